"""Training of inverters on a tiny generator: it learns, resumes exactly, and its terms do what they say."""

from __future__ import annotations

import pytest
import torch

from remime.perceptual import load_lpips
from remime.training import inverters
from remime.training.data import selected_frames
from remime.training.inverters import InverterTask
from remime.training.loop import LoopOptions, Updater, train
from tests import tiny

pytestmark = pytest.mark.weights
CPU = torch.device("cpu")
OPTIONS = {
    "method": "restyle-psp",
    "preset": "small",
    "generator": "tiny",
    "seed": 0,
    "size": 64,
    "width": 16,
    "refinements": 2,
    "batch": 4,
    "validate_batches": 2,
    "learning_rate": 1e-3,
}
E4E = {"method": "restyle-e4e", "progressive_start": 2, "progressive_every": 1}


@pytest.fixture(autouse=True)
def cheap(monkeypatch, weights):
    weights("lpips-alex")
    monkeypatch.setattr(inverters, "ImageLosses", tiny.Losses)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("results") / "faces")


def task(folder, train=None, validation=None, **options):
    torch.manual_seed(0)
    return InverterTask({**OPTIONS, **options}, tiny.generator(), train, validation, folder / "state", CPU)


def first_step(made, step=0):
    """The figures and gradients' owners of one training step."""
    updater = Updater(made, LoopOptions(1), torch.Tensor.backward)
    return made.training_step(made.batch(step), step, updater)


class Four:
    """Four frames, always the same."""

    def __init__(self):
        with torch.no_grad():
            self.pictures = tiny.generator().synthesize(tiny.latents("x", "someone", 4)).clamp(-1, 1)

    def __len__(self):
        return 4

    def images(self, indices):
        return self.pictures[list(indices)]


def test_a_few_images_are_learnt_by_heart(tmp_path, monkeypatch):
    """Golden check with the two losses L2 and LPIPS: both fall to a fraction."""

    class Two(tiny.Losses):
        def __init__(self, identity):
            super().__init__(identity)
            self.lpips = load_lpips("alex")

        def perceptual(self, a, b):
            return self.lpips(a, b).mean()

    monkeypatch.setattr(inverters, "ImageLosses", Two)
    frames = Four()
    losses = {"l2": 1.0, "lpips": 0.8, "id": 0.0}
    made = task(tmp_path, frames, frames, real=1.0, width=32, learning_rate=4e-3, losses=losses)
    result = train(made, LoopOptions(40, clip=1.0, validate_every=40), tmp_path / "state", "golden")
    by_step = {
        s: {r["name"]: r["value"] for r in result.history if r["split"] == "val" and r["step"] == s}
        for s in (0, 40)
    }
    assert by_step[40]["l2_real"] < 0.55 * by_step[0]["l2_real"]
    assert by_step[40]["lpips_real"] < 0.35 * by_step[0]["lpips_real"]
    assert result.step == 40


@pytest.mark.parametrize(
    "more", [{}, {"pool": 24, "pool_batch": 8, "losses": {"latent": 1.0}}, E4E], ids=["psp", "pool", "e4e"]
)
def test_exact_resume(tmp_path, dataset, more):
    loop = LoopOptions(4, seed=1, ema=0.5, validate_every=2, checkpoint_every=2)

    def made(folder):
        return task(folder, *(selected_frames([dataset], split) for split in ("train", "val")), **more)

    whole = train(made(tmp_path), loop, tmp_path / "a", "d")
    interrupted = made(tmp_path)
    proceed = interrupted.batch
    interrupted.batch = lambda step: proceed(step) if step < 3 else 1 // 0
    with pytest.raises(ZeroDivisionError):
        train(interrupted, loop, tmp_path / "b", "d")
    resumed = train(made(tmp_path), loop, tmp_path / "b", "d")
    assert resumed.resumed_from == 2
    rows = [[(r["step"], r["split"], r["name"], r["value"]) for r in run.history] for run in (whole, resumed)]
    assert rows[0] == rows[1]
    assert all(torch.equal(whole.tensors[k], resumed.tensors[k]) for k in whole.tensors)


def test_known_latents_are_learnt_from_the_pool(tmp_path):
    made = task(tmp_path, pool=64, pool_batch=32, image_every=0, losses={"latent": 1.0}, learning_rate=5e-3)
    result = train(made, LoopOptions(60, validate_every=60), tmp_path / "state", "pool")
    losses = [r["value"] for r in result.history if r["name"] == "pool_latent"]
    assert "images" not in made.batch(0)
    assert sum(losses[-5:]) < 0.93 * sum(losses[:5])


def test_batches_that_are_only_read_are_made_ahead(tmp_path):
    """A thread reads them while a step runs, which changes no number."""
    results = []
    for name in ("ahead", "in turn"):
        made = task(tmp_path / name, pool=24, pool_batch=8, image_every=0, losses={"latent": 1.0})
        assert made.ahead
        made.ahead = name == "ahead"
        results.append(train(made, LoopOptions(5, validate_every=5), tmp_path / name / "state", "x"))
    first, second = ([(r["step"], r["name"], r["value"]) for r in result.history] for result in results)
    assert first == second
    assert not task(tmp_path).ahead


def test_pool_needs_features_that_can_be_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(inverters, "build_inverter", lambda o, g: inverters_stub(g))
    with pytest.raises(ValueError, match="preset 'small'"):
        task(tmp_path, pool=8)


def inverters_stub(generator):
    from remime.encoders.restyle import ReStyle

    class Plain(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.mean((2, 3))).view(-1, tiny.ROWS, 512)

    return ReStyle(Plain(6, tiny.ROWS * 512), generator, steps=1, size=64)


def test_batches_mix_generated_and_real_frames(tmp_path, dataset):
    frames = selected_frames([dataset], "train")
    batch = task(tmp_path, frames, None, real=0.5).batch(3)
    assert {k: len(v) for k, v in batch.items()} == {"latents": 2, "images": 2, "degraded": 2, "real": 2}
    again = task(tmp_path, frames, None, real=0.5).batch(3)
    assert all(torch.equal(batch[k], again[k]) for k in batch)
    assert {k: len(v) for k, v in task(tmp_path, frames, None, real=1.0).batch(0).items()} == {"real": 4}
    assert "real" not in task(tmp_path).batch(0)
    spaced = task(tmp_path, image_every=3)
    assert [bool(spaced.batch(step)) for step in range(4)] == [True, False, False, True]


def test_losses_may_decode_at_a_resolution_of_their_own(tmp_path, monkeypatch):
    """The samples that are inverted, and validation, stay as in use."""
    monkeypatch.setattr(tiny.StyleGAN2, "decode_resolution", lambda self, size: 32 if size > 16 else size)
    synthesize, seen = tiny.StyleGAN2.synthesize, []

    def record(self, w_plus, resolution=None):
        seen.append(resolution)
        return synthesize(self, w_plus, resolution=resolution)

    monkeypatch.setattr(tiny.StyleGAN2, "synthesize", record)
    made = task(tmp_path, decode_resolution=16)
    made.batch(0)
    assert set(seen) == {32}
    seen.clear()
    first_step(made)
    assert seen.count(16) == OPTIONS["refinements"]
    seen.clear()
    made.validate()
    assert set(seen) == {32}


def test_varied_images_have_no_latent(tmp_path, dataset):
    made = task(tmp_path, selected_frames([dataset], "train"), varied=0.5, batch=8, losses={"latent": 1.0})
    batch = made.batch(0)
    assert len(batch["images"]) == 4
    assert len(batch["latents"]) == 2
    same = [
        (made.inverter.decode(w[None]) - x).abs().max() < 1e-5
        for w in batch["latents"]
        for x in batch["images"]
    ]
    assert same == [False, False, True, False, False, False, False, True]
    assert "latent" in first_step(made)
    everything = task(tmp_path, varied=1.0, losses={"latent": 1.0})
    assert "latent" not in first_step(everything)


def test_only_the_head_learns(tmp_path):
    made = task(tmp_path)
    before = {k: v.clone() for k, v in made.module.state_dict().items()}
    mean, plain = made.inverter.latent_avg.clone(), tiny.generator().state_dict()
    first_step(made)
    moved = {k for k, v in made.module.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert not any(k.startswith("encoder.trunk.") for k in moved)
    assert torch.equal(made.inverter.latent_avg, mean)
    assert all(torch.equal(v, plain[k]) for k, v in made.generator.state_dict().items())


def test_e4e_follows_its_schedule(tmp_path):
    made = task(tmp_path, **E4E)
    for step, stage in ((0, 0), (1, 0), (2, 1), (4, 3), (50, tiny.ROWS - 1)):
        figures = first_step(made, step)
        assert made.inverter.encoder.stage == stage
    assert {"delta", "adversarial", "discriminator_adversarial"} <= figures.keys()


@pytest.mark.parametrize(("step", "stage"), [(0, 0), (2, 0), (3, 1), (4, 2), (100, tiny.ROWS - 1)])
def test_e4e_model_keeps_the_stage_of_its_step(tmp_path, step, stage):
    """Steps count from 0, so the model after ``step`` steps has seen the stage of the one before."""
    from remime.encoders.inverter import build_inverter

    made = task(tmp_path, **E4E, losses={"adversarial": 0.0})
    structure = made.structure(step)
    assert structure == {"stage": stage}
    made.restore(step)
    assert made.inverter.encoder.stage == stage
    assert build_inverter({**OPTIONS, **E4E, **structure}, tiny.generator()).encoder.stage == stage
    assert task(tmp_path).structure(step) == {}


def test_e4e_keeps_the_heads_of_the_model_that_it_starts_from(tmp_path):
    late = {**E4E, "progressive_start": 1000, "losses": {"adversarial": 0.0}}
    assert task(tmp_path, **late).structure(5) == {"stage": 0}
    assert task(tmp_path, **late, init=True, stage=2).structure(5) == {"stage": 2}
    assert task(tmp_path, **late, init=True).structure(5) == {"stage": tiny.ROWS - 1}
    assert task(tmp_path, **late, init=True, stage=1).structure(5000) == {"stage": tiny.ROWS - 1}


def test_discriminator_learns_from_its_own_loss_only(tmp_path):
    """The encoder's adversarial term leaves no gradient behind in the discriminator."""
    made, plain = task(tmp_path, **E4E), task(tmp_path, **E4E, losses={"adversarial": 1e-9})
    for each in (made, plain):
        torch.manual_seed(7)
        first_step(each)
    own, other = (each.module.adversary.discriminator.state_dict() for each in (made, plain))
    assert all(torch.equal(own[k], other[k]) for k in own)


def test_without_the_adversarial_term_there_is_no_discriminator(tmp_path):
    made = task(tmp_path, **{**E4E, "losses": {"adversarial": 0.0}})
    assert [*made.optimizers] == ["main"]
    assert "adversarial" not in first_step(made)


def test_model_file_holds_the_inverter_alone(tmp_path):
    made = task(tmp_path, **E4E)
    tensors = made.tensors(made.module.state_dict())
    assert {k.split(".")[0] for k in tensors} == {"encoder", "latent_avg"}
    own = {k for k in made.module.state_dict() if k.startswith("encoder.")}
    trunk = {k for k in own if k.startswith("encoder.trunk.")}
    assert trunk
    assert own - trunk == tensors.keys() - {"latent_avg"}


def test_validation_measures_reconstruction(tmp_path, dataset):
    made = task(tmp_path, None, selected_frames([dataset], "val"))
    figures = made.validate()
    assert figures == made.validate()
    assert figures["score"] == pytest.approx((figures["lpips_generated"] + figures["lpips_real"]) / 2)
    images = made._generated(4, 9_000_000)["images"]
    w_plus = made.inverter.invert(images)
    assert figures["l2_generated"] == pytest.approx(
        float(made.inverter.error(images, w_plus).mean()), rel=1e-4
    )


def test_seed_of_the_run_matters(tmp_path):
    batches = [task(tmp_path, seed=seed).batch(0)["images"] for seed in (0, 1)]
    assert not torch.equal(*batches)

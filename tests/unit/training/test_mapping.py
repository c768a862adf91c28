"""Training of P1's mapping on a tiny generator and a stand-in mesh."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from remime.errors import InputError
from remime.methods.mapping import Mapping
from remime.training import mapping
from remime.training.data import Frames, SameMotion, indexed_frames, selected_frames
from remime.training.loop import LoopOptions, Updater, train
from remime.training.losses import cosface, face_crop
from remime.training.mapping import MappingTask
from tests import tiny

CPU = torch.device("cpu")
OPTIONS = {
    "method": "mapping",
    "preset": "small",
    "seed": 0,
    "batch": 2,
    "validate_batches": 2,
    "learning_rate": 1e-3,
}
LATENT = {"latent_batch": 8, "image_every": 0, "losses": {"latent": 1.0}}
CORRECTION = {"correction": 12, "correction_batch": 4, "correction_resolution": 32, "image_every": 0}
CROSS = {"cross_batch": 4, "cross_resolution": 32, "image_every": 0}


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    def build(options, generator):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            correction = options.get("correction", 0)
            method = Mapping(generator.rows, "small", width=32, components=4, correction=correction)
        method.motion_encoder.attach(tiny.Mesh())
        return method

    monkeypatch.setattr(mapping, "ImageLosses", tiny.Losses)
    monkeypatch.setattr(mapping, "build_method", build)
    monkeypatch.setattr(mapping, "SIZE", 32)
    monkeypatch.setattr("remime.faces.mesh.load_mesh", tiny.Mesh)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("results") / "faces")


@pytest.fixture
def made(dataset):
    """``made(**options)``: a task on the dataset's train and val splits."""

    def make(validation="val", where=dataset, **options):
        sets = [indexed_frames([where], "psp", split) if split else None for split in ("train", validation)]
        return MappingTask({**OPTIONS, **options}, tiny.generator(), sets[0], sets[1], CPU)

    return make


def one_step(task, step=0):
    updater = Updater(task, LoopOptions(1, clip=0.0), torch.Tensor.backward)
    return task.training_step(task.batch(step), step, updater)


def test_latent_loss_is_learnt(made, tmp_path):
    """Latents that move along a few directions as the mesh does are what the small mapping can learn."""
    task = made(**LATENT, learning_rate=1e-2)
    source = torch.Generator().manual_seed(0)
    encoder = task.method.motion_encoder
    seen = ((task.measured - encoder.mean) / encoder.spread).clamp(-5, 5)
    codes = seen @ torch.randn(seen.shape[1], 2, generator=source) / seen.shape[1] ** 0.5
    along = torch.randn(2, tiny.ROWS * 512, generator=source)
    task.cached_latents = (codes @ along).unflatten(1, (tiny.ROWS, 512)).half()
    result = train(task, LoopOptions(150, validate_every=150), tmp_path, "latent")
    losses = [r["value"] for r in result.history if r["name"] == "latent"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_latent_loss_by_hand(made):
    """The mapped target must be the driving frame's latent, in units of the latents' spread."""
    task = made(**LATENT)
    batch = task.batch(0)
    frames = task.pairs.frames
    codes = task.method.motion_encoder(frames.images(batch["latent"]["s_a"]))
    own = task.method.motion_encoder(frames.images(batch["latent"]["t_a"]))
    out = task.method(frames.latents(batch["latent"]["t_a"]), codes, own)
    wanted = frames.latents(batch["latent"]["s_a"])
    expected = ((out - wanted) / task.cached_latents.float().std(0).mean()).square().mean()
    assert one_step(task)["latent"] == pytest.approx(float(expected.detach()), rel=1e-2)


def test_rendered_frames_show_the_true_motion(tmp_path, made):
    """The wanted latent is the target's inversion plus the change between the true latents."""
    rendered = tiny.make_dataset(tmp_path / "results" / "faces")
    # Of one clip nothing is known; there the inversions count.
    tiny.add_truth(rendered, rendered.shard_names[1])
    tiny.add_truth(rendered, rendered.shard_names[0], without="bob-1")
    task = made(where=rendered, **LATENT)
    frames = task.pairs.frames
    true = {c: tiny.true_latents(c) for c in tiny.CLIPS if c != "bob-1"}
    batch = task.batch(0)["latent"]
    driving, target = batch["s_a"], batch["t_a"]

    def truth(i):
        sample = frames.samples[i]
        number = round((sample.time - 0.5) * 25)
        if sample.clip not in true:
            return frames.latents([i])[0]
        return true[sample.clip][number + 2]

    wanted = frames.latents(target) + torch.stack(
        [truth(s) - truth(t) for s, t in zip(driving, target, strict=True)]
    )
    codes, own = (task.method.motion_encoder(frames.images(rows)) for rows in (driving, target))
    out = task.method(frames.latents(target), codes, own)
    expected = ((out - wanted) / task.spread).square().mean()
    assert one_step(task)["latent"] == pytest.approx(float(expected.detach()), rel=1e-2)
    unaware = one_step(made(where=rendered, **LATENT, truth=[]))["latent"]
    assert unaware == pytest.approx(one_step(made(**LATENT))["latent"])
    assert unaware != pytest.approx(float(expected.detach()), rel=0.1)


def test_lids_of_rendered_heads_close_as_they_do(tmp_path, made, monkeypatch):
    """What closes lids is as large in the wanted latents as they are closed, all else is the inversions'."""
    rendered = tiny.make_dataset(tmp_path / "results" / "faces")
    for shard in rendered.shard_names:
        tiny.add_blinks(rendered, shard)
    # Fewer rows than W+ has, as the shipped ones; along these the tiny clips move.
    lids = tiny.directions()[0, : tiny.ROWS - 2].numpy()
    monkeypatch.setattr(mapping, "EMBEDDED", "tiny")
    monkeypatch.setattr(mapping, "load_directions", lambda: Known(lids))
    task = made(where=rendered, **LATENT, generator="tiny")
    frames = task.pairs.frames
    inverted = frames.latents(range(len(frames)))
    wanted = inverted + task.lost.float()
    closing = torch.zeros(tiny.ROWS, 512)
    closing[: len(lids)] = torch.from_numpy(lids)
    along = [(w.flatten(1) @ closing.flatten()) / closing.square().sum() for w in (inverted, wanted)]
    closed = [
        tiny.closed_lids(tiny.CLIPS[s.clip][1])[round((s.time - 0.5) * 25)].item() for s in frames.samples
    ]
    assert along[0].std() > 0.1
    assert along[1].tolist() == pytest.approx(closed, abs=5e-3)  # half precision
    beside = [w - a[:, None, None] * closing for w, a in zip((inverted, wanted), along, strict=True)]
    assert torch.allclose(*beside, atol=5e-3)
    assert made(where=rendered, **LATENT, generator="tiny", truth=[]).lost is None


@dataclass
class Known:
    """Directions of which only the lids are told."""

    lids: np.ndarray
    names = ("eyeBlinkLeft",)

    @property
    def steps(self):
        return np.zeros((1, *self.lids.shape), np.float32)


def moving(task):
    """The same task, with directions that show."""
    with torch.no_grad():
        task.method.map.directions.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    return task


def test_only_the_correction_learns_to_keep_the_person(made, tmp_path):
    task = moving(made(**CORRECTION, learning_rate=1e-2, losses={"kept_motion": 0.0}))
    batch = task.batch(0)
    task.batch = lambda step: batch  # so that what is left to learn is seen, not the luck of batches
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    result = train(task, LoopOptions(60, validate_every=60), tmp_path, "correction")
    losses = [r["value"] for r in result.history if r["name"] == "kept_id"]
    assert losses[-1] < 0.8 * losses[0]
    changed = {k for k, v in task.module.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.startswith("method.map.correction.") for k in changed)


def test_kept_terms_by_hand(made):
    task = moving(made(**CORRECTION))
    torch.nn.init.normal_(task.correction.out.weight, generator=torch.Generator().manual_seed(2))
    b = task.batch(3)["kept"]
    assert b["latents"].shape == (4, tiny.ROWS, 512)
    encoder, latents = task.method.motion_encoder, b["latents"]
    kept = task.decode(latents)
    difference = encoder(task.pairs.frames.images(b["driving"])) - encoder(kept)
    plain = latents + torch.einsum("bk,krd->brd", difference, task.method.map.directions)
    shown, wanted = task.decode(task.method.map(latents, difference)), task.decode(plain)
    assert not torch.allclose(shown, wanted)
    (_, first), (_, second) = [
        (tiny.Mesh()(images).points, encoder.measure(images)) for images in (shown, wanted)
    ]
    shapes = (first[:, -52:] - second[:, -52:]).square().mean() / 0.1**2
    codes = (encoder.encode(first) - encoder.encode(second)).square().mean()
    figures = one_step(task, 3)
    assert figures["kept_motion"] == pytest.approx(float((shapes + codes).detach()), rel=1e-3)
    assert figures["kept_id"] == pytest.approx(float(task.losses.same_person(shown, kept).detach()), rel=1e-3)


def test_targets_of_the_correction_are_generated_and_real(made):
    """Half come from the generator's W, the same in every row, half from the training data; with noise."""
    task = made(**CORRECTION)
    latents = task.batch(0)["kept"]["latents"]
    rows = latents.std(1).mean((1,))
    known = task.pairs.frames.latents(range(len(task.pairs.frames)))
    nearest = [(known - latent).abs().mean((1, 2)).min().item() for latent in latents]
    assert max(nearest[2:]) < 0.12 * task.spread < min(nearest[:2])
    assert rows[:2].max() < 0.12 * task.spread
    again = made(**CORRECTION).batch(0)["kept"]
    assert torch.equal(again["latents"], latents)
    assert not torch.equal(task.batch(1)["kept"]["latents"], latents)


def test_cross_terms_by_hand(made):
    """What differs between two moments of the driving clip differs between the outputs."""
    task = moving(made(**CROSS))
    b = task.batch(3)["cross"]
    assert b["latents"].shape == (4, tiny.ROWS, 512)
    samples = task.pairs.frames.samples
    for one, other in zip(b["one"], b["other"], strict=True):
        assert samples[one].clip == samples[other].clip
        assert one != other
    encoder = task.method.motion_encoder
    kept = task.decode(b["latents"])
    rest = encoder(kept)
    measured, outputs = [], []
    for moment in ("one", "other"):
        driving = task.pairs.frames.images(b[moment])
        moved = task.method.map(b["latents"], encoder(driving) - rest)
        outputs.append(task.decode(moved))
        measured.append((encoder.measure(outputs[-1]), encoder.measure(driving)))
    (found_one, driving_one), (found_other, driving_other) = measured
    shapes = (found_one - found_other - driving_one + driving_other)[:, -52:] / 0.1

    def turns(values):
        points = values[:, :-52].reshape(len(values), 478, 3)
        eyes, face = points[:, 263] - points[:, 33], points[:, 152] - points[:, 10]
        return torch.stack([torch.atan2(eyes[:, 2], eyes[:, 0]), torch.atan2(face[:, 2], face[:, 1])])

    turned = turns(found_one) - turns(found_other) - turns(driving_one) + turns(driving_other)
    wanted = shapes.square().mean() + turned.rad2deg().div(2).square().mean()
    figures = one_step(task, 3)
    assert figures["cross_motion"] == pytest.approx(float(wanted.detach()), rel=1e-3)
    person = task.losses.same_person(torch.cat(outputs), kept.repeat(2, 1, 1, 1))
    assert figures["cross_id"] == pytest.approx(float(person.detach()), rel=1e-3)


@pytest.mark.parametrize("term", ["cross_id", "cross_motion"])
def test_cross_terms_are_learned(made, tmp_path, term, monkeypatch):
    monkeypatch.setattr(mapping, "TURN", math.inf)  # the points of the tiny mesh are no head's
    other = {"cross_id": "cross_motion", "cross_motion": "cross_id"}[term]
    task = moving(made(**CROSS, learning_rate=1e-2, losses={other: 0.0}))
    batch = task.batch(0)
    task.batch = lambda step: batch  # so that what is left to learn is seen, not the luck of batches
    result = train(task, LoopOptions(60, validate_every=60), tmp_path, "cross")
    losses = [r["value"] for r in result.history if r["name"] == term]
    assert losses[-1] < 0.8 * losses[0]


def test_a_correction_learns_from_crossings_with_the_rest(made, tmp_path):
    task = moving(made(**CROSS, correction=12, learning_rate=1e-2))
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    train(task, LoopOptions(3, validate_every=3), tmp_path, "cross")
    after = task.module.state_dict()
    for name in (
        "method.map.directions",
        "method.map.correction.out.weight",
        "method.motion_encoder.out.weight",
    ):
        assert not torch.equal(after[name], before[name])
    assert after["method.map.correction.axes"].norm() > 0


def test_cross_needs_the_small_preset(made, monkeypatch):
    def build(options, generator):
        return Mapping(generator.rows, "small", width=32, components=4)

    monkeypatch.setattr(mapping, "MeshMotionEncoder", type("Other", (), {}))
    monkeypatch.setattr(mapping, "build_method", build)
    with pytest.raises(InputError, match=r"cross_batch: is 4\n  needs the preset small"):
        made(**CROSS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"correction": 0}, r"the mapping has no correction"),
        ({"image_every": 1}, r"image_every asks for more"),
        ({"latent_batch": 4}, r"latent_batch asks for more"),
        ({"varied": 0.5}, r"varied asks for more"),
        ({"cross_batch": 2}, r"cross_batch asks for more"),
        ({"variant": "gen"}, r"variant asks for more"),
    ],
)
def test_a_correction_learns_alone(made, options, message):
    with pytest.raises(InputError, match=message):
        made(**{**CORRECTION, **options})


@pytest.mark.parametrize(
    "more",
    [{}, {"variant": "gen"}, {"latent_batch": 4}, CORRECTION, {"latent_batch": 4, "varied": 0.5}, CROSS],
    ids=["ours", "gen", "latent too", "correction", "varied", "cross"],
)
def test_exact_resume(made, tmp_path, more):
    loop = LoopOptions(6, seed=1, validate_every=3, checkpoint_every=2)
    whole = train(made(**more), loop, tmp_path / "a", "d")
    interrupted = made(**more)
    proceed = interrupted.batch
    interrupted.batch = lambda step: proceed(step) if step < 5 else 1 // 0
    with pytest.raises(ZeroDivisionError):
        train(interrupted, loop, tmp_path / "b", "d")
    resumed = train(made(**more), loop, tmp_path / "b", "d")
    assert resumed.resumed_from == 4
    rows = [[(r["step"], r["split"], r["name"], r["value"]) for r in run.history] for run in (whole, resumed)]
    assert rows[0] == rows[1]
    assert all(torch.equal(whole.tensors[k], resumed.tensors[k]) for k in whole.tensors)


def moved(task, batch, who, codes):
    """W+ of the targets t_A or t_B under motion codes."""
    own = task.method.motion_encoder(batch[f"image_t_{who}"])
    return task.method(batch[f"latent_t_{who}"], codes, own)


def test_terms_are_those_of_the_paper(made):
    """Eq. 1, 2 and 6 are on (s_A, g_AA), Eq. 3 on (t_B, g_AB)."""
    losses = {"l2": 1.0, "lpips": 1.0, "id": 1.0, "l2_crop": 1.0, "lpips_crop": 1.0}
    task = made(losses=losses)
    b = task.batch(0)["pairs"]
    with torch.no_grad():
        terms = task._image_terms(b)
        codes = task.method.motion_encoder(b["image_s_a"])
        g_aa, g_ab = (task.decode(moved(task, b, x, codes)) for x in "ab")
    cheap, s_a = tiny.Losses(), b["image_s_a"]
    expected = {
        "l2": cheap.l2(g_aa, s_a),
        "lpips": cheap.perceptual(g_aa, s_a),
        "l2_crop": cheap.l2(face_crop(g_aa), face_crop(s_a)),
        "lpips_crop": cheap.perceptual(face_crop(g_aa), face_crop(s_a)),
        "id": cheap.same_person(g_ab, b["image_t_b"]),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(float(value), abs=1e-5)


def test_weights_choose_and_scale_the_terms(made):
    zero = {"l2": 0.0, "lpips": 0.0, "id": 0.0, "l2_crop": 0.0, "lpips_crop": 0.0}
    figures = one_step(made(losses={**zero, "l2": 3.0}))
    assert figures["loss"] == pytest.approx(3 * figures["l2"], rel=1e-5)
    assert not {"lpips", "l2_crop", "lpips_crop", "cos"} & figures.keys()


def test_identity_may_be_compared_with_the_inversion(made):
    task = made(id_target="inversion")
    b = task.batch(0)["pairs"]
    codes = task.method.motion_encoder(b["image_s_a"])
    with torch.no_grad():
        g_ab = task.decode(moved(task, b, "b", codes))
        expected = tiny.Losses().same_person(g_ab, task.decode(b["latent_t_b"]))
        assert float(task._image_terms(b)["id"]) == pytest.approx(float(expected), abs=1e-5)


def test_crop_follows_the_option(made):
    by_crop = [one_step(made(crop=crop))["l2_crop"] for crop in ("paper", "reference")]
    assert by_crop[0] != by_crop[1]


def test_the_variant_cos_needs_a_weight(made):
    with pytest.raises(InputError, match=r"losses\.cos: is 0"):
        made(variant="cos")


def test_cosine_loss_by_hand(made):
    """Per sample, positive pairs are (z_AA, z_A) and (z_AB, z_A), negative ones those with z_B."""
    task = made(variant="cos", losses={"cos": 0.1})
    b = task.batch(0)["pairs"]
    encode = task.method.motion_encoder
    with torch.no_grad():
        z_a, z_b = encode(b["image_s_a"]), encode(b["image_s_b"])
        g_aa, g_ab = (task.decode(moved(task, b, x, z_a)) for x in "ab")
        codes = {"a": z_a, "b": z_b, "aa": encode(g_aa), "ab": encode(g_ab)}
        values = []
        for i in range(2):
            z = {k: v[i].flatten() / v[i].norm() for k, v in codes.items()}
            pairs = [torch.stack([z["aa"] @ z[k], z["ab"] @ z[k]]) for k in "ab"]
            values.append(float(cosface(*pairs, scale=5.0)))
        assert float(task._image_terms(b)["cos"]) == pytest.approx(np.mean(values), rel=1e-4)
    assert "cos" not in one_step(made())


def changed(task, steps=1):
    before = {k: v.clone() for k, v in task.generator.state_dict().items()}
    for step in range(steps):
        one_step(task, step)
    return {k for k, v in task.generator.state_dict().items() if not torch.equal(v, before[k])}


def test_generator_is_frozen_but_in_its_variant(made):
    assert changed(made()) == set()
    tuned = changed(made(variant="gen"))
    assert any(name.endswith("modulation.weight") for name in tuned)
    assert any(name.startswith("to_rgbs") for name in tuned)
    assert not any(name.startswith(("style.", "input", "mean_latent")) for name in tuned)


def test_model_file_of_the_variants(made):
    ours, gen = made(), made(variant="gen")
    assert {k.split(".")[0] for k in ours.tensors(ours.module.state_dict())} == {"method"}
    assert {k.split(".")[0] for k in gen.tensors(gen.module.state_dict())} == {"method", "generator"}


def test_statistics_of_the_mesh_are_those_of_the_data(made):
    task = made(**LATENT)
    everything = task.method.motion_encoder.measure(task.pairs.frames.images(range(len(task.pairs.frames))))
    assert torch.allclose(task.method.motion_encoder.mean, everything.mean(0), atol=1e-5)
    assert torch.allclose(task.method.motion_encoder.spread, everything.std(0).clamp_min(1e-3), atol=1e-4)
    assert torch.allclose(task.measured, everything, atol=1e-5)


def test_statistics_need_no_latent_loss_and_yield_to_a_model(made):
    encoder = made(latent_batch=0).method.motion_encoder
    assert (encoder.mean != 0).any()
    assert (encoder.spread != 1).any()
    assert not made(latent_batch=0, init=True).method.motion_encoder.mean.any()


def test_generator_that_learns_is_decoded_as_a_whole(made, monkeypatch):
    monkeypatch.setattr(mapping, "SIZE", 16)
    # As for a generator with preview heads.
    monkeypatch.setattr(tiny.StyleGAN2, "previews", True, raising=False)
    monkeypatch.setattr(tiny.StyleGAN2, "drop_previews", lambda self: setattr(self, "previews", False))
    monkeypatch.setattr(
        tiny.StyleGAN2, "decode_resolution", lambda self, size: size if self.previews else self.resolution
    )
    assert made().resolution == 16
    assert made(variant="gen").resolution == 32


def test_validation_rewards_expression_and_identity(made):
    task = made()
    figures = task.validate()
    assert figures == task.validate()
    assert figures["score"] == pytest.approx(-(figures["expression"] + figures["identity"]))
    assert -1 <= figures["expression"] <= 1
    # A mapping that copies the driving frame moves as it does, and has lost the person.
    task.method.motion_encoder.forward = lambda frames: frames
    task.method.forward = lambda latents, codes, own: codes
    task.decode = lambda x: x if x.ndim == 4 else mapping.fit(task.generator.synthesize(x), 32)
    copied = task.validate()
    assert copied["expression"] > 0.999
    assert copied["identity"] < 0.999


def test_turns_are_what_is_missing_of_the_driving_head_s(made, monkeypatch):
    """Heads that turn to and fro by ten degrees, and a mapping that does not follow, or follows."""

    class Turning(tiny.Mesh):
        def forward(self, images):
            result = super().forward(images)
            angles = torch.deg2rad(20 * (images.mean((1, 2, 3)) > 0).float() - 10)
            points = torch.zeros_like(result.points)
            points[:, 263] = torch.stack([angles.cos(), torch.zeros_like(angles), angles.sin()], 1)
            points[:, 152, 1] = 1
            return replace(result, points=points)

    monkeypatch.setattr("remime.faces.mesh.load_mesh", Turning)
    task = made()
    task.validation.targets.images = lambda rows: torch.stack(
        [torch.full((3, 32, 32), 1.0 if i % 2 else -1.0) for i in range(len(rows))]
    )
    task.decode = lambda x: torch.full((len(x), 3, 32, 32), -1.0)
    lengths = [len(task.validation.batch(i)[1]) for i in range(OPTIONS["validate_batches"])]
    variances = [np.var([20.0 * (i % 2) for i in range(length)]) for length in lengths]
    # The mean over yaw, of which everything is missing, and pitch, which stays.
    assert task.validate()["turns"] == pytest.approx(np.sqrt(np.mean(variances) / 2), rel=1e-4)
    task.method.motion_encoder.forward = lambda frames: frames
    task.method.forward = lambda latents, codes, own: codes
    task.decode = lambda x: x if x.ndim == 4 else torch.zeros(len(x), 3, 32, 32)
    assert task.validate()["turns"] == pytest.approx(0, abs=1e-3)


def test_resting_faces_of_driving_people_earn_nothing(made):
    """Expression is a matter of courses: an output that is the driving person, at rest, scores 0."""
    task = made()
    task.method.motion_encoder.forward = lambda frames: frames
    task.method.forward = lambda latents, codes, own: codes.mean(0, keepdim=True).expand_as(codes)
    task.decode = lambda x: x if x.ndim == 4 else mapping.fit(task.generator.synthesize(x), 32)
    assert task.validate()["expression"] == 0


def test_others_who_share_motions_drive_the_validation(made, dataset):
    alone = made().validate()
    sets = [indexed_frames([dataset], "psp", split) for split in ("train", "val")]
    driving = selected_frames([dataset], "train")
    task = MappingTask(OPTIONS, tiny.generator(), *sets, CPU, driving=driving)
    assert len(task.validation) > len(made().validation)
    assert task.validate() != alone


@pytest.mark.parametrize("validation", [None, "nobody", "one"])
def test_without_people_to_validate_on_the_last_checkpoint_is_kept(
    made, dataset, tmp_path, validation, capsys
):
    if validation == "one":
        frames = indexed_frames([dataset], "psp", "val")
        some = Frames([dataset], [s for s in frames.samples if s.identity == "cid"], "psp")
        task = MappingTask(OPTIONS, tiny.generator(), indexed_frames([dataset], "psp", "train"), some, CPU)
        assert "1 identities" in capsys.readouterr().err
    else:
        task = made(validation)
    assert train(task, LoopOptions(3, validate_every=1), tmp_path, "d").step == 3


SAME = {"latent_batch": 8, "image_every": 0, "losses": {"latent": 1.0, "same_motion": 3.0}}


@pytest.fixture
def same(tmp_path):
    paths = {clip: json.dumps({"motion": 1, "scene": 2, "fps": 25}) for clip in tiny.CLIPS}
    return SameMotion.read([tiny.make_dataset(tmp_path / "heads", paths=paths)], "train", 0)


def test_same_motion_by_hand(dataset, same):
    sets = [indexed_frames([dataset], "psp", "train"), None]
    task = MappingTask({**OPTIONS, **SAME}, tiny.generator(), *sets, CPU, same_motion=same)
    with torch.no_grad():
        task.method.map.directions.normal_(generator=torch.Generator().manual_seed(1))
        found = task.batch(7)["same_motion"]
        assert np.shape(found) == (mapping.MOMENTS, mapping.PEOPLE)
        added = [
            [task.method.map.motion(task.method.motion_encoder(same.frames.images([i])))[0] for i in moment]
            for moment in found
        ]
        wanted = np.mean([np.var([a.numpy() for a in moment], axis=0, ddof=1) for moment in added])
        loss = float(task._same_motion_loss(found))
    assert loss == pytest.approx(wanted / task.spread**2, rel=1e-3)
    figures = one_step(task, 7)
    assert figures["same_motion"] == pytest.approx(3 * loss, rel=1e-5)
    assert figures["loss"] == pytest.approx(figures["latent"] + figures["same_motion"], rel=1e-5)


def test_only_driving_frames_are_varied(made):
    """E_m sees them so; images that the losses compare with, and targets, stay as they are."""
    plain, varied = made(), made(varied=1.0)
    a, b = plain.batch(2)["pairs"], varied.batch(2)["pairs"]
    assert b.keys() - a.keys() == {"seen_s_a"}
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert (b["seen_s_a"] - b["image_s_a"]).abs().mean(1).amax((1, 2)).min() > 0.05
    with torch.no_grad():
        codes = varied.method.motion_encoder(b["seen_s_a"])
        g_aa = varied.decode(moved(varied, b, "a", codes))
        terms = varied._image_terms(b)
    assert float(terms["l2_crop"]) == pytest.approx(
        float(tiny.Losses().l2(face_crop(g_aa), face_crop(b["image_s_a"]))), rel=1e-4
    )


def test_cameras_say_nothing_of_quality(made, monkeypatch):
    """Drawn from one seed, what is turned to one side would always be blurred."""
    seeds = []
    for name in ("vary", "degrade"):
        monkeypatch.setattr(mapping, name, lambda images, seed, *a, **k: seeds.append(seed) or images)
    task = made(**LATENT, varied=1.0)
    assert len(seeds) == 2 * len(task.pairs.frames)
    assert len(set(seeds)) == len(seeds)


def test_encoders_of_images_see_varied_frames_in_the_latent_loss(made):
    task = made(**LATENT, varied=0.5)
    task.method.motion_encoder = torch.nn.Identity()
    rows = [3, 3, 1]
    seen, frames = task._codes(rows, [1, 0, 0]), task.pairs.frames
    assert torch.equal(seen[0], task._varied_images(frames, [3])[0])
    assert torch.equal(seen[1:], frames.images([3, 1]))
    assert not torch.equal(seen[0], seen[1])


def test_share_of_varied_frames_in_the_latent_loss(made):
    task = made(**LATENT, varied=0.5)
    assert task.varied.shape == task.measured.shape
    assert not torch.allclose(task.varied, task.measured, atol=1e-3)
    chosen = np.concatenate([task.batch(step)["latent"]["varied"] for step in range(40)])
    assert 0.35 < chosen.mean() < 0.65
    batch = task.batch(1)["latent"]
    with torch.no_grad():
        codes = task._codes(batch["s_a"], batch["varied"])
        for i, (row, other) in enumerate(zip(batch["s_a"], batch["varied"], strict=True)):
            seen = (task.varied if other else task.measured)[row]
            assert torch.allclose(codes[i], task.method.motion_encoder.encode(seen[None])[0], atol=1e-5)
    assert "varied" not in made(**LATENT).batch(1)["latent"]


def test_leakage_by_hand(dataset, same):
    """1 where people differ as much as moments, 0 where only the motion counts."""
    sets = [indexed_frames([dataset], "psp", split) for split in ("train", "val")]
    task = MappingTask(OPTIONS, tiny.generator(), *sets, CPU, leaking=same)
    assert len(same.groups) <= mapping.LEAKING
    with torch.no_grad():
        task.method.map.directions.normal_(generator=torch.Generator().manual_seed(1))
        added = [
            task.method.map.motion(task.method.motion_encoder(same.frames.images(group))).flatten(1).numpy()
            for group in same.groups
        ]
    people = np.mean([a.var(0).sum() for a in added])
    moments = np.var([a.mean(0) for a in added], axis=0).sum()
    assert task.validate()["leakage"] == pytest.approx(np.sqrt(people / moments), rel=1e-3)
    # Codes that tell the moment alone, and such that tell the person as much as the moment.
    count = len(same.groups)
    moment = torch.cat([torch.full((len(group), 4), float(i)) for i, group in enumerate(same.groups)])
    person = torch.cat([torch.linspace(-1, 1, len(group))[:, None].expand(-1, 4) for group in same.groups])
    alike = [len(group) for group in same.groups]
    person *= np.std(np.arange(count)) / np.mean([np.linspace(-1, 1, n).var() for n in alike]) ** 0.5
    task.method.motion_encoder.encode = lambda measured: moment + person
    assert task._leakage(same)["leakage"] == pytest.approx(1, rel=1e-3)
    task.method.motion_encoder.encode = lambda measured: moment
    assert task._leakage(same)["leakage"] == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        task.method.map.directions.zero_()
    assert task._leakage(same)["leakage"] == 0
    assert "leakage" not in MappingTask(OPTIONS, tiny.generator(), *sets, CPU).validate()


def test_amplitude_is_that_of_the_driving_clip(made):
    task = made()
    task.method.motion_encoder.forward = lambda frames: frames
    task.method.forward = lambda latents, codes, own: codes
    task.decode = lambda x: x if x.ndim == 4 else mapping.fit(task.generator.synthesize(x), 32)
    assert task.validate()["amplitude"] == pytest.approx(1, abs=1e-3)
    task.method.forward = lambda latents, codes, own: codes.mean(0, keepdim=True).expand_as(codes)
    assert task.validate()["amplitude"] == pytest.approx(0, abs=1e-3)


def test_same_motion_is_learnt(dataset, same, tmp_path):
    """With the loss, what two people's looks add to a motion becomes less."""
    added = {}
    for weight in (0.0, 3.0):
        losses = {"latent": 1.0, "same_motion": weight}
        options = {**OPTIONS, **LATENT, "learning_rate": 1e-2, "losses": losses}
        sets = [indexed_frames([dataset], "psp", "train"), None]
        task = MappingTask(options, tiny.generator(), *sets, CPU, same_motion=same)
        assert ("same_motion" in task.batch(0)) == bool(weight)
        train(task, LoopOptions(60, validate_every=60), tmp_path / str(weight), "same")
        task.same_motion = same
        with torch.no_grad():
            added[weight] = float(task._same_motion_loss(same.batch(1, 16, 4)))
    assert added[3.0] < 0.5 * added[0.0]

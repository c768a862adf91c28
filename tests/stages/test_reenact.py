"""The reenact stage: the videos are what the method says, and finished ones survive."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from remime import video
from remime.archive import AlignedReader
from remime.encoders.inverter import load_inverter
from remime.errors import InputError
from remime.methods import Driving, load_method
from remime.models import save_model
from remime.reenactment import Decoder, Reenactor, invert, mean_latent, random_face
from remime.stages import reenact as stage
from remime.tables import write_table
from tests import clips, tiny
from tests.unit.methods.test_mapping import small

pytestmark = pytest.mark.weights
BATCH = "0000-of-0001"
OPTIONS = {
    "generator": "tiny",
    "resolution": 32,
    "batch": 2,
    "inverter": "psp",
    "method": "linear",
    "model": "linear-psp",
}
PAIRS = [
    ("eve-1", "eve", "fox-1", 2, 5),
    ("fox-1", "fox", "random:3", 0, 3),
    ("eve-1", "eve", "eve-1", 1, 2),
]


def pair_rows(dataset):
    where = {clip: dataset.shard_names[i % 2] for i, clip in enumerate(tiny.TEST)}
    return [
        {"pair": f"pair-{i}", "protocol": "cross", "batch": BATCH, "frames": n, "driving_dataset": "faces",
         "driving_clip": driving, "driving_identity": who, "driving_shard": where[driving],
         "target_dataset": "faces", "target_clip": target, "target_shard": where.get(target, ""),
         "target_frame": frame}
        for i, (driving, who, target, frame, n) in enumerate(PAIRS)
    ]  # fmt: skip


class World:
    """A dataset, its pairs and an inverter in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.film = clips.encode(folder / "eve.mp4", clips.numbered(40), audio=True)
        self.dataset = tiny.make_dataset(folder / "results" / "faces", tiny.TEST, paths={"eve-1": self.film})
        self.inverter = tiny.save_inverter(folder / "models" / "psp" / "model.safetensors")
        self.pairs = folder / "pairs.parquet"
        write_table(
            self.pairs, "pairs", [*pair_rows(self.dataset), {**pair_rows(self.dataset)[0], "batch": "other"}]
        )

    def run(self, name="linear", model=None, **options):
        output = self.folder / name / "videos" / BATCH
        chosen = {**OPTIONS, **options}
        state = self.folder / "state" / name
        count = stage.run(self.pairs, BATCH, [self.dataset], self.inverter, output, state, chosen, model)
        assert count == len(PAIRS)
        return output

    def clip(self, name):
        """A clip's frames and the latents that are cached of it."""
        who, n = tiny.TEST[name]
        with AlignedReader(
            self.dataset.aligned(self.dataset.shard_names[[*tiny.TEST].index(name)])
        ) as reader:
            images = reader.frames(reader.by_id[name].rows)
        return images, tiny.latents(name, who, n)


@pytest.fixture
def world(tmp_path, monkeypatch, weights):
    weights("lpips-alex")
    monkeypatch.setattr("remime.generators.load_generator", lambda *_, **__: tiny.generator())
    monkeypatch.setattr("remime.faces.mesh.load_mesh", tiny.Mesh)
    return World(tmp_path)


def frames_of(path):
    return np.stack([frame.image for frame in video.read(path)])


def assert_alike(path, expected):
    """A video holds these frames, compressed alike."""
    other = path.with_suffix(".expected.mp4")
    how = {"pixel_format": "yuv420p", "x264": video.NO_CUTS}
    with video.Writer(other, 25, (32, 32), **how) as writer:
        for frame in expected:
            writer.write(frame)
    actual, wanted = frames_of(path).astype(float), frames_of(other)
    assert actual.shape == wanted.shape
    assert np.abs(actual - wanted).mean() < 2
    assert wanted.std(0).mean() > 5


def test_linear_videos_follow_the_equation(world):
    output = world.run()
    inverter = load_inverter(world.inverter, tiny.generator())
    (a_images, a), (b_images, b) = world.clip("eve-1"), world.clip("fox-1")
    known = torch.cat(
        [invert(inverter, a_images[:1]), a[1:]]
    )  # the first frame was not kept, so it is inverted now
    means = mean_latent(inverter, a_images, a[1:]), mean_latent(inverter, b_images, b[1:])
    method = load_method(OPTIONS, None, tiny.generator())
    reenactor = Reenactor(tiny.generator(), method, 32, pixel_format="yuv420p")
    expected = reenactor.frames(reenactor.identify(means[1]), a_images, known, Driving(means[0]))
    assert_alike(output / "pair-0.mp4", expected)


def test_files_of_a_pair(world):
    output = world.run()
    names = {f"pair-{i}{end}" for i in range(3) for end in (".mp4", ".json", ".target.png", ".inversion.png")}
    assert {p.name for p in output.iterdir()} == names
    assert [len(frames_of(output / f"pair-{i}.mp4")) for i in range(3)] == [5, 3, 2]
    assert not (world.folder / "state" / "linear").exists()
    images, latents = world.clip("fox-1")
    assert np.array_equal(np.asarray(Image.open(output / "pair-0.target.png")), images[2])
    (inversion,) = Decoder(tiny.generator(), 32).decode(latents[2:3])
    assert np.array_equal(np.asarray(Image.open(output / "pair-0.inversion.png")), inversion)
    face = np.asarray(Image.open(output / "pair-1.target.png"))
    assert np.array_equal(face, random_face(tiny.generator(), 3, 64))


def test_every_video_says_that_it_is_generated(world):
    output = world.run()
    note = json.loads((output / "pair-0.json").read_text())
    assert note == video.provenance(output / "pair-0.mp4")
    assert "generated" in note["synthetic"]
    said = {k: note[k] for k in ("pair", "driving_clip", "target_clip", "target_frame", "method", "model")}
    assert said == {
        "pair": "pair-0", "driving_clip": "eve-1", "target_clip": "fox-1", "target_frame": 2,
        "method": "linear", "model": "linear-psp",
    }  # fmt: skip
    assert len(note["weights"]["inverter"]) == 64


def test_sound_comes_from_the_driving_clip(world):
    output = world.run()
    known = [video.probe(output / f"pair-{i}.mp4") for i in range(3)]
    assert [info.has_audio for info in known] == [True, False, True]
    assert all(info.fps == 25 for info in known)
    assert known[0].duration < 0.5


@pytest.fixture
def model(world):
    tensors = {f"method.{k}": v for k, v in small(seed=5).state_dict().items()}
    meta = {
        "kind": "method",
        "options": {"method": "mapping", "preset": "small", "width": 16, "components": 4},
    }
    save_model(world.folder / "m.safetensors", tensors, meta)
    return world.folder / "m.safetensors"


def test_targets_are_fitted_to_their_frames(world, model, monkeypatch):
    monkeypatch.setattr("remime.optimisation.ImageLosses", tiny.Losses)
    plain, fitted = (
        world.run(f"mapping-{steps}", model, method="mapping", optimise=steps) for steps in (0, 25)
    )

    def error(folder, pair):
        target, inversion = (
            np.asarray(Image.open(folder / f"{pair}.{name}.png").resize((32, 32), Image.Resampling.BOX))
            for name in ("target", "inversion")
        )
        return np.square(target.astype(float) - inversion).mean()

    # The cached latents of clips are the true ones here; an invented face's comes from an untrained inverter.
    assert error(fitted, "pair-1") < 0.5 * error(plain, "pair-1")
    assert not np.array_equal(frames_of(plain / "pair-1.mp4"), frames_of(fitted / "pair-1.mp4"))
    # The mean of a clip belongs to no frame.
    linear = [world.run(f"linear-{steps}", optimise=steps) for steps in (0, 25)]
    assert np.array_equal(*(frames_of(folder / "pair-0.mp4") for folder in linear))


@pytest.mark.parametrize("damaged", [False, True])
def test_a_target_is_fitted_once(world, model, monkeypatch, damaged):
    """Also when the job was killed in between, for all pairs that share it; a damaged one is made again."""
    from remime.optimisation import LatentOptimiser

    monkeypatch.setattr("remime.optimisation.ImageLosses", tiny.Losses)
    fit, calls = LatentOptimiser.__call__, []
    monkeypatch.setattr(
        LatentOptimiser, "__call__", lambda self, *a: (calls.append(self.losses.name), fit(self, *a))[1]
    )
    frames, seen = Reenactor.frames, []

    def once(self, *arguments):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return frames(self, *arguments)

    monkeypatch.setattr(Reenactor, "frames", once)
    rows = pair_rows(world.dataset)
    same = [{**rows[0], "pair": f"again-{i}"} for i in range(2)]
    write_table(world.pairs, "pairs", [*rows[:2], *same])
    chosen = {**OPTIONS, "method": "mapping", "optimise": 2, "optimise_identity": "sface"}
    for _ in range(2):
        try:
            stage.run(world.pairs, BATCH, [world.dataset], world.inverter, world.folder / "out",
                      world.folder / "state" / "m", chosen, model)  # fmt: skip
        except KeyboardInterrupt:
            assert len(calls) == 2
            (kept, *_) = sorted((world.folder / "state").rglob("*.npy"))
            if damaged:
                kept.write_bytes(kept.read_bytes()[:-9])
    assert calls == ["sface"] * (3 if damaged else 2)
    assert len(list((world.folder / "out").glob("*.mp4"))) == 4


def test_mapping_videos_follow_the_method(world, model):
    output = world.run("mapping", model, method="mapping")
    method = load_method({"method": "mapping"}, model, tiny.generator())
    images, _ = world.clip("eve-1")
    reenactor = Reenactor(tiny.generator(), method, 32, pixel_format="yuv420p")
    identity = reenactor.identify(world.clip("fox-1")[1][2])
    assert_alike(output / "pair-0.mp4", reenactor.frames(identity, images))


def test_relative_expressions_know_the_whole_clip(world, model, monkeypatch):
    """A pair may use a clip's first frames only; how its face rests is told by all of it."""
    rows = [{**row, "frames": 4} for row in pair_rows(world.dataset)]
    write_table(world.pairs, "pairs", rows)
    how = {"method": "mapping", "relative_expression": 1.0}
    at_rest, shown = Reenactor.at_rest, []
    monkeypatch.setattr(Reenactor, "at_rest", lambda self, i: (shown.append(len(i)), at_rest(self, i))[1])
    output = world.run("mapping", model, **how)
    assert sorted(shown) == [4, 5]  # all frames of both driving clips, once for all pairs
    images, _ = world.clip("eve-1")
    reenactor = Reenactor(tiny.generator(), load_method(how, model, tiny.generator()), 32, 8, "yuv420p")
    identity, rest = reenactor.identify(world.clip("fox-1")[1][2]), reenactor.at_rest(list(images))
    assert_alike(output / "pair-0.mp4", reenactor.frames(identity, images[:4], driving=rest))
    absolute = world.run("absolute", model, method="mapping")
    assert not np.array_equal(*(frames_of(folder / "pair-0.mp4") for folder in (output, absolute)))
    note = json.loads((output / "pair-0.json").read_text())
    assert note["relative_expression"] == 1
    assert "directions" in note["weights"]


def test_tuned_generator_decodes_the_videos_but_not_the_inversion(world, model):
    tensors = {f"method.{k}": v for k, v in small(seed=5).state_dict().items()}
    tensors["generator.to_rgbs.2.bias"] = torch.full((1, 3, 1, 1), 0.9)
    save_model(
        model, tensors, {"kind": "method", "options": {"preset": "small", "width": 16, "components": 4}}
    )
    plain = np.asarray(Image.open(world.run() / "pair-0.inversion.png"))
    output = world.run("gen", model, method="mapping", variant="gen")
    assert np.array_equal(np.asarray(Image.open(output / "pair-0.inversion.png")), plain)
    assert frames_of(output / "pair-0.mp4").mean() > 180


def test_finished_pairs_survive(world, monkeypatch):
    whole = world.run("whole")
    made, make = [], stage._Job.make

    def cut(self, pair, *arguments):
        if made:
            raise KeyboardInterrupt
        made.append(pair["pair"])
        make(self, pair, *arguments)

    monkeypatch.setattr(stage._Job, "make", cut)
    with pytest.raises(KeyboardInterrupt):
        world.run("cut")
    assert not (world.folder / "cut").exists()
    monkeypatch.setattr(
        stage._Job, "make", lambda self, pair, *a: made.append(pair["pair"]) or make(self, pair, *a)
    )
    output = world.run("cut")
    assert made == ["pair-0", "pair-1", "pair-2"]
    for path in whole.glob("*.mp4"):
        assert np.array_equal(frames_of(path), frames_of(output / path.name))
    world.run("cut", strength=0.5)
    assert len(made) == 6


def test_earlier_videos_are_replaced(world):
    output = world.run()
    (output / "old.mp4").touch()
    world.run()
    assert not (output / "old.mp4").exists()


def test_unknown_dataset(world):
    write_table(world.pairs, "pairs", [{**pair_rows(world.dataset)[0], "driving_dataset": "others"}])
    with pytest.raises(InputError, match=r"'others'.*\n.*faces"):
        world.run()


def test_command_line(world):
    arguments = {
        "pairs": world.pairs,
        "batch": "other",
        "inverter-model": world.inverter,
        "output": world.folder / "out",
        "state": world.folder / "state",
        "options": json.dumps(OPTIONS),
        "datasets": f"{world.dataset.folder}=2",
    }
    stage.main([str(x) for k, v in arguments.items() for x in (f"--{k}", v)])
    assert (world.folder / "out" / "pair-0.mp4").exists()

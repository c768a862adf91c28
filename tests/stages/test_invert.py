"""The invert stage: the right frames, their errors, and what a kill leaves behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from remime.archive import AlignedReader, AlignedWriter, LatentReader, encode_jpeg
from remime.encoders.inverter import build_inverter, load_inverter
from remime.encoders.restyle import ReStyle
from remime.errors import InputError
from remime.generators import load_generator
from remime.images import fit, to_tensor
from remime.models import save_model
from remime.perceptual import load_lpips
from remime.reenactment import random_face
from remime.stages import invert as stage
from remime.tables import read_table, write_table
from tests import tiny

pytestmark = pytest.mark.weights


@pytest.fixture
def world(tmp_path, monkeypatch, weights):
    """A dataset whose first shard holds ann-1, bob-1 and dee-1, and an inverter."""
    weights("lpips-alex")
    monkeypatch.setattr("remime.generators.load_generator", lambda *_, **__: tiny.generator())
    dataset = tiny.make_dataset(tmp_path / "results" / "faces")
    return dataset, tiny.save_inverter(tmp_path / "models" / "mine" / "model.safetensors"), tmp_path


def run(world, **options):
    dataset, inverter, folder = world
    shard = dataset.shard_names[0]
    output = dataset.latents("mine", shard)
    done = stage.run(
        dataset.aligned(shard), dataset.selected(shard), inverter, output, folder / "state", options
    )
    with LatentReader(output) as reader:
        clips = {
            c.id: {k: reader.file[k][c.first : c.first + c.count] for k in ("latents", "clip_row", "error")}
            for c in reader.clips
        }
        return done, clips, reader


def test_kept_frames_and_their_errors(world):
    dataset, inverter, _ = world
    done, clips, reader = run(world)
    assert {c: len(v["error"]) for c, v in clips.items()} == {"ann-1": 4, "bob-1": 5, "dee-1": 4}
    assert (done, reader.inverter, reader.rows) == (13, "mine", tiny.ROWS)
    network, lpips = load_inverter(inverter, tiny.generator()), load_lpips()
    with AlignedReader(dataset.aligned(dataset.shard_names[0])) as aligned:
        for clip, values in clips.items():
            entry = aligned.by_id[clip]
            assert values["clip_row"].tolist() == list(entry.rows)[1:]
            images = fit(to_tensor(aligned.frames(values["clip_row"])), 64)
            w_plus = network.invert(images)
            assert np.abs(values["latents"] - w_plus.numpy()).max() < 1e-4
            with torch.no_grad():
                errors = lpips(network.decode(w_plus).clamp(-1, 1), images).numpy()
            np.testing.assert_allclose(values["error"], errors, atol=1e-4)


def test_batches_do_not_matter(world):
    one, many = run(world, batch=1)[1], run(world, batch=3)[1]
    for clip in one:
        assert np.abs(one[clip]["latents"] - many[clip]["latents"]).max() < 1e-4


def test_batches_that_the_memory_is_too_small_for(world, monkeypatch):
    """The reconstruction, in which most is kept at once, has room for one image."""
    expected, sizes, decode = run(world, batch=1)[1], [], ReStyle.decode

    def small(self, w_plus):
        sizes.append(len(w_plus))
        if len(w_plus) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(self, w_plus)

    monkeypatch.setattr(ReStyle, "decode", small)
    found = run(world, batch=3)[1]
    assert max(sizes) > 1
    assert sizes[-5:] == [1] * 5
    for clip in expected:
        assert np.abs(found[clip]["latents"] - expected[clip]["latents"]).max() < 1e-4
        np.testing.assert_allclose(found[clip]["error"], expected[clip]["error"], atol=1e-4)


def test_sampled_frames_only(world):
    clips = run(world, frames="sampled")[1]
    assert {c: len(v["error"]) for c, v in clips.items()} == {"ann-1": 2, "bob-1": 3, "dee-1": 2}


def select(world, rule):
    dataset = world[0]
    path = dataset.selected(dataset.shard_names[0])
    write_table(path, "selected", [{**r, "keep": rule(r)} for r in read_table(path, "selected").to_pylist()])


def test_clip_without_a_usable_frame(world):
    select(world, lambda r: r["clip"] == "bob-1")
    assert [*run(world)[1]] == ["bob-1"]


def test_nothing_to_invert(world):
    select(world, lambda r: False)
    done, clips, reader = run(world)
    assert (done, clips, reader.rows) == (0, {}, tiny.ROWS)


@pytest.fixture
def interrupted(world, monkeypatch):
    """The world after a run that was cut off in its second clip, and the batches inverted from then on."""
    calls, invert = [], ReStyle.invert

    def fail(self, images, batch):
        if calls:
            raise KeyboardInterrupt
        calls.append(len(images))
        return invert(self, images, batch)

    monkeypatch.setattr(ReStyle, "invert", fail)
    with pytest.raises(KeyboardInterrupt):
        run(world)
    assert not world[0].latents("mine", world[0].shard_names[0]).exists()
    calls.clear()

    def count(self, images, batch):
        calls.append(len(images))
        return invert(self, images, batch)

    monkeypatch.setattr(ReStyle, "invert", count)
    return world, calls


def test_finished_clips_survive(interrupted):
    world, calls = interrupted
    resumed = run(world)[1]
    assert calls == [5, 4]
    assert not (world[2] / "state").exists()
    whole = run(world)[1]
    assert calls == [5, 4, 4, 5, 4]
    for clip in whole:
        assert all(np.array_equal(whole[clip][k], resumed[clip][k]) for k in whole[clip])


@pytest.mark.parametrize("change", ["selection", "options", "weights", "damage"])
def test_parts_that_do_not_fit_are_made_again(interrupted, change):
    world, calls = interrupted
    options = {}
    if change == "selection":
        select(world, lambda r: r["frame"] == 2)
    if change == "options":
        options = {"frames": "sampled"}
    if change == "weights":
        tiny.save_inverter(world[1], seed=9)
    if change == "damage":
        (part,) = (world[2] / "state").iterdir()
        part.write_bytes(part.read_bytes()[:1000])
    clips = run(world, **options)[1]
    assert len(calls) == 3
    sizes = {"selection": [1, 1, 1], "options": [2, 3, 2]}.get(change, [4, 5, 4])
    assert [len(v["error"]) for v in clips.values()] == sizes


def test_other_models_are_refused(world):
    save_model(world[1], {"a": torch.zeros(1)}, {"kind": "method"})
    with pytest.raises(InputError, match="'method'"):
        run(world)


def test_command_line(world):
    dataset, inverter, folder = world
    shard = dataset.shard_names[1]
    arguments = {
        "aligned": dataset.aligned(shard),
        "selected": dataset.selected(shard),
        "inverter": inverter,
        "output": dataset.latents("mine", shard),
        "state": folder / "state",
        "options": json.dumps({"frames": "sampled"}),
    }
    stage.main([str(x) for k, v in arguments.items() for x in (f"--{k}", v)])
    with LatentReader(dataset.latents("mine", shard)) as reader:
        assert {c.id: c.count for c in reader.clips} == {"ann-2": 2, "cid-1": 2}


def test_with_the_embedded_generator(tmp_path, weights):
    """A generated face through the real generator: 16 rows, and an error like that of the mean face."""
    weights("mobile-ffhq")
    weights("lpips-alex")
    generator = load_generator()
    options = {"method": "restyle-psp", "preset": "small", "width": 8, "refinements": 1}
    inverter = build_inverter(options, generator)
    tensors = {k: v for k, v in inverter.state_dict().items() if not k.startswith("generator.")}
    meta = {"kind": "inverter", "generator": "mobile-ffhq", "options": options}
    save_model(tmp_path / "psp" / "model.safetensors", tensors, meta)
    face = random_face(generator, 0, 256)
    with AlignedWriter(tmp_path / "aligned.h5", {"resolution": 256}) as writer:
        zeros = np.zeros((1, 68, 2)), np.zeros((1, 2, 3)), np.zeros(1), np.zeros(1, bool)
        writer.add_clip("c", 25, "x", [encode_jpeg(face)], *zeros)
    row = {"clip": "c", "frame": 0, "row": 0, "keep": True, "sampled": True}
    write_table(tmp_path / "selected.parquet", "selected", [row])
    files = [
        tmp_path / n for n in ("aligned.h5", "selected.parquet", "psp/model.safetensors", "out.h5", "state")
    ]
    assert stage.run(*files, {}) == 1
    with LatentReader(tmp_path / "out.h5") as reader:
        assert reader.latents.shape == (1, 16, 512)
        # An untrained encoder leaves the mean latent where it is.
        assert np.abs(reader.latents[0] - generator.mean_latent.numpy()).max() < 0.2
        mean = load_lpips()(inverter.average_image.clamp(-1, 1), to_tensor(face[None]))
        assert reader.error[0] == pytest.approx(float(mean), abs=0.05)

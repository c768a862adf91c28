"""A kit brings a job with all that it reads to another folder."""

from __future__ import annotations

import json

import pytest
import torch

from remime.errors import InputError
from remime.models import load_model
from remime.training.job import read_job
from remime.training.kit import pack_kit, read_kit
from remime.training.parts import read_parts, write_parts
from remime.versions import STAGES
from tests import tiny

OPTIONS = {"kind": "inverter", "method": "restyle-psp", "generator": "tiny", "steps": 1}


@pytest.fixture
def dataset(tmp_path):
    return tiny.make_dataset(tmp_path / "results" / "faces")


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "here" / "net.safetensors"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)))
    path.with_suffix(".json").write_text("{}")
    return path


def test_an_inverters_job(tmp_path, dataset, network):
    start = load_model(tiny.save_inverter(tmp_path / "start.safetensors"))
    job = read_job("psp", OPTIONS, [dataset], start)
    made = pack_kit(job, [network], tmp_path / "kit")
    assert made.about == {"kind": "job", "name": "psp", "digest": job.digest, "train": STAGES["train"]}
    there = read_kit(tmp_path / "kit", "psp", tmp_path / "other")
    for key in ("name", "options", "digest", "datasets"):
        assert getattr(there, key) == getattr(job, key)
    for file in (network, network.with_suffix(".json")):
        assert (tmp_path / "other" / file.name).read_bytes() == file.read_bytes()
    for ours, theirs in ((job.train, there.train), (job.validation, there.validation)):
        assert ours is not None
        assert theirs is not None
        assert len(ours) == len(theirs) > 1
        rows = [len(ours) - 1, 0]
        assert torch.equal(ours.images(rows), theirs.images(rows))
    assert there.start is not None
    assert there.start.meta == start.meta
    assert all(torch.equal(v, there.start.tensors[k]) for k, v in start.tensors.items())


@pytest.mark.parametrize("truth", [["latents"], []])
def test_a_methods_job(tmp_path, dataset, network, truth):
    for shard in dataset.shard_names:
        tiny.add_truth(dataset, shard)
    inverter = tiny.save_inverter(tmp_path / "inverter.safetensors")
    options = {**OPTIONS, "kind": "method", "method": "mapping", "inverter": "psp", "latent_batch": 4}
    job = read_job("m", {**options, "truth": truth}, [dataset], None, inverter)
    pack_kit(job, [], tmp_path / "kit")
    there = read_kit(tmp_path / "kit", "m", tmp_path)
    assert there.train is not None
    assert job.train is not None
    assert there.train.samples == job.train.samples
    rows = list(range(len(job.train)))
    assert torch.equal(there.train.latents(rows), job.train.latents(rows))
    known = list(there.train.true_latents())
    assert bool(known) == bool(truth)
    for (where, latents), (expected, true) in zip(known, job.train.true_latents(), strict=False):
        assert where == expected
        assert torch.equal(latents, true)
    assert there.start is None


def test_known_face_units_travel_too(tmp_path, dataset):
    for shard in dataset.shard_names:
        tiny.add_blinks(dataset, shard)
    inverter = tiny.save_inverter(tmp_path / "inverter.safetensors")
    options = {**OPTIONS, "kind": "method", "method": "mapping", "inverter": "psp", "latent_batch": 4}
    job = read_job("m", options, [dataset], None, inverter)
    pack_kit(job, [], tmp_path / "kit")
    there = read_kit(tmp_path / "kit", "m", tmp_path)
    assert job.train is not None
    assert there.train is not None
    ours, theirs = (list(frames.face_units()) for frames in (job.train, there.train))
    assert [(u.where, u.names) for u in theirs] == [(u.where, u.names) for u in ours]
    assert torch.equal(*(torch.cat([u.values for u in known]) for known in (ours, theirs)))


def test_a_job_belongs_to_its_directions(tmp_path, dataset, monkeypatch):
    """Its loss is about them, so another machine must have the same."""
    inverter = tiny.save_inverter(tmp_path / "inverter.safetensors")
    options = {**OPTIONS, "kind": "method", "method": "mapping", "inverter": "psp", "latent_batch": 4}
    options["generator"] = "mobile-ffhq"
    file = tmp_path / "models" / "puppet-directions.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"one")
    monkeypatch.setenv("REMIME_MODELS", str(file.parent))
    job = read_job("m", options, [dataset], None, inverter)
    pack_kit(job, [], tmp_path / "kit")
    assert read_kit(tmp_path / "kit", "m", tmp_path).digest == job.digest
    file.write_bytes(b"other")
    with pytest.raises(InputError, match="differs from what the job was prepared with"):
        read_kit(tmp_path / "kit", "m", tmp_path)
    assert read_job("m", options, [dataset], None, inverter).digest != job.digest
    # Who reads none, does not depend on them.
    unaware = [{**options, "generator": "tiny"}, {**options, "preset": "paper", "latent_batch": 0}]
    for without in unaware:
        digests = []
        for content in (b"one", b"other"):
            file.write_bytes(content)
            digests.append(read_job("m", without, [dataset], None, inverter).digest)
        assert digests[0] == digests[1]


def test_people_who_share_motions_travel_too(tmp_path, dataset):
    paths = {clip: json.dumps({"motion": 1, "scene": 2}) for clip in tiny.CLIPS}
    heads = tiny.make_dataset(tmp_path / "heads", paths=paths)
    inverter = tiny.save_inverter(tmp_path / "inverter.safetensors")
    options = {**OPTIONS, "kind": "method", "method": "mapping", "inverter": "psp"}
    plain = read_job("m", options, [dataset], None, inverter)
    driven = read_job("m", options, [dataset], None, inverter, [heads])
    # Without a weight they only validate.
    assert driven.same_motion is None
    assert driven.driving is not None
    weighted = options | {"losses": {"same_motion": 0.1}}
    job = read_job("m", weighted, [dataset], None, inverter, [heads])
    assert driven.digest != plain.digest
    assert job.digest != plain.digest
    pack_kit(job, [], tmp_path / "kit")
    read = read_kit(tmp_path / "kit", "m", tmp_path)
    there, ours = read.same_motion, job.same_motion
    assert there is not None
    assert ours is not None
    assert there.batch(3, 4, 2) == ours.batch(3, 4, 2)
    assert torch.equal(there.frames.images([0, 2]), ours.frames.images([0, 2]))
    assert read.leaking is not None
    assert job.leaking is not None
    assert read.leaking.groups == job.leaking.groups
    assert {sample.split for sample in job.leaking.frames.samples} == {"val"}
    assert read.driving is not None
    assert job.driving is not None
    there_and_here = [
        [(s.clip, s.identity, s.row) for s in frames.samples] for frames in (read.driving, job.driving)
    ]
    assert there_and_here[0] == there_and_here[1]
    assert {sample.split for sample in job.driving.samples} == {"val"}
    last = len(job.driving) - 1
    assert torch.equal(read.driving.images([0, last]), job.driving.images([0, last]))


def test_without_data(tmp_path, network):
    job = read_job("psp", OPTIONS)
    pack_kit(job, [], tmp_path / "kit")
    there = read_kit(tmp_path / "kit", "psp", tmp_path)
    assert there == job


def test_another_network_is_not_overwritten(tmp_path, network):
    pack_kit(read_job("psp", OPTIONS), [network], tmp_path / "kit")
    read_kit(tmp_path / "kit", "psp", network.parent)  # the same one is fine
    network.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"net\.safetensors: differs from what"):
        read_kit(tmp_path / "kit", "psp", network.parent)
    assert network.read_bytes() == b"mine"


def test_networks_go_where_they_are_looked_for(tmp_path, network, monkeypatch):
    pack_kit(read_job("psp", OPTIONS), [network], tmp_path / "kit")
    monkeypatch.setenv("REMIME_WEIGHTS", str(tmp_path / "named"))
    read_kit(tmp_path / "kit", "psp")
    assert (tmp_path / "named" / network.name).is_file()


@pytest.mark.parametrize("file", ["../x.json", "/tmp/x.json", "x.py", ".."])
def test_a_kit_writes_networks_only(tmp_path, network, file):
    pack_kit(read_job("psp", OPTIONS), [network], tmp_path / "kit")
    tree = read_parts(tmp_path / "kit", "psp-job")
    tree["networks"] = {file: tree["networks"][network.name]}
    write_parts(tmp_path / "kit", "psp-job", tree, {})
    with pytest.raises(InputError, match="only networks belong into it"):
        read_kit(tmp_path / "kit", "psp", tmp_path / "other")
    assert not (tmp_path / "other").exists()

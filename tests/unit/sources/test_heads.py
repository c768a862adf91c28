"""Heads: clips that follow from their description, with the truth that they were rendered from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from remime import video
from remime.heads import assets, take
from remime.heads.assets import COEFFICIENTS
from remime.heads.identity import Identity
from remime.heads.renderer import LABELS
from remime.heads.scene import Scene
from remime.heads.take import Take, motion_of, render, scene_of
from remime.shards import split_of
from remime.sources import heads, read_clips, write_clips
from remime.stages import collect
from tests import heads as small

OPTIONS = {"identities": 2, "clips": 2, "frames": 3, "size": 48, "seed": 7}


@pytest.fixture(autouse=True)
def kit(monkeypatch):
    monkeypatch.setattr(take, "load_kit", small.kit)
    monkeypatch.setattr(assets, "load_kit", small.kit)
    take.figure_of.cache_clear()
    yield
    take.figure_of.cache_clear()


def test_clips_of_a_dataset():
    clips = heads.clips("heads", OPTIONS, None)
    assert clips == heads.clips("heads", OPTIONS, None)
    assert len({c.clip for c in clips}) == 4
    assert len({c.identity for c in clips}) == 2
    assert all(c.identity.startswith("head-7-") and c.kind == "render" for c in clips)
    assert all(c.clip.replace("-", "").isalnum() for c in clips)
    assert [c.split for c in clips] == [split_of(c.identity, 7) for c in clips]
    # A shard has all clips of a person, which is built once.
    assert [c.video for c in clips] == [c.identity for c in clips]


def test_seeds_are_independent():
    clips = heads.clips("heads", OPTIONS, None)
    described = [Take(**json.loads(c.path)) for c in clips]
    assert described[0].identity == described[1].identity != described[2].identity
    for name in ("motion", "scene"):
        assert len({getattr(each, name) for each in described}) == 4
    more = heads.clips("heads", {**OPTIONS, "identities": 3}, None)
    assert more[:4] == clips
    other = heads.clips("heads", {**OPTIONS, "seed": 8}, None)
    assert not {c.identity for c in clips} & {c.identity for c in other}
    assert not {c.path for c in clips} & {c.path for c in other}


def test_shared_motions():
    clips = heads.clips("heads", {**OPTIONS, "shared_motions": True}, None)
    described = [Take(**json.loads(c.path)) for c in clips]
    assert described[0].motion == described[2].motion
    assert described[1].motion == described[3].motion
    assert described[0].motion != described[1].motion
    assert len({each.scene for each in described}) == 4
    other = heads.clips("heads", {**OPTIONS, "shared_motions": True, "seed": 8}, None)
    assert json.loads(other[0].path)["motion"] != described[0].motion


def test_two_thousand_people_are_one_line():
    clips = heads.clips("heads", {"identities": 2000, "clips": 5}, None)
    assert len({c.clip for c in clips}) == 10_000


def test_a_rendered_clip_holds_its_truth(tmp_path):
    clip = heads.clips("heads", OPTIONS, None)[1]
    with heads.collector(OPTIONS, {}).video([clip], tmp_path / "state") as make:
        film, truth = make(clip, tmp_path)
    shown = Take(**json.loads(clip.path))
    info = video.probe(film)
    assert (info.width, info.height, info.fps) == (48, 48, 25)
    frames = [frame.image for frame in video.read(film)]
    rendered = list(render(shown))
    assert len(frames) == 3
    errors = [np.abs(a.astype(int) - b.image).mean() for a, b in zip(frames, rendered, strict=True)]
    assert max(errors) < 12  # compressed
    motion = motion_of(shown)
    with np.load(truth) as known:
        assert known["time"].tolist() == [0, 1 / 25, 2 / 25]
        assert tuple(known["names"]) == COEFFICIENTS
        assert tuple(known["label_names"]) == LABELS
        np.testing.assert_allclose(known["coefficients"], motion.coefficients, atol=1e-6)
        np.testing.assert_allclose(known["gaze"], motion.gaze, atol=1e-4)
        np.testing.assert_allclose(known["pose"], motion.pose, atol=1e-4)
        assert known["landmarks"].shape == (3, 68, 2)
        assert np.array_equal(known["landmarks"][2], rendered[2].landmarks)
        assert known["visible"].shape == (3, 68)
        assert np.array_equal(known["labels"][1], rendered[1].labels[::2, ::2])
        assert Take(**json.loads(str(known["take"]))) == shown
        assert Identity.from_json(str(known["identity"])).seed == shown.identity
        scene = Scene.from_json(str(known["scene"]))
        assert scene == scene_of(shown)
        # The focal length is in pixels of the video.
        assert known["camera"][0] == pytest.approx(48 / scene.span * scene.distance)
        assert known["camera"][1:3].tolist() == [23.5, 23.5]


def run(tmp_path, name):
    path = tmp_path / "clips.tsv"
    write_clips(path, heads.clips("heads", OPTIONS, None))
    rows = collect.run(
        "heads", path, tmp_path / f"{name}.tar", tmp_path / f"{name}.tsv", tmp_path / "state", OPTIONS
    )
    assert [row["status"] for row in rows] == ["ok"] * len(read_clips(path))
    return (tmp_path / f"{name}.tar").read_bytes()


def test_a_shard_is_the_same_after_a_kill(tmp_path, monkeypatch):
    whole = run(tmp_path, "whole")
    real, made = take.render, []

    def dies(what):
        made.append(what.motion)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(what)

    monkeypatch.setattr(take, "render", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "killed")
    assert run(tmp_path, "killed") == whole
    # Of four clips two were finished: the third and the fourth were made again.
    assert len(made) == 3 + 2

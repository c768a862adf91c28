"""Puppets: motion that is smooth, talks and blinks, and clips that follow from their description."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from remime import video
from remime.faces.mesh import BLENDSHAPES
from remime.shards import split_of
from remime.sources import puppets
from remime.sources.directions import LIDS, ROWS, SHUT, Directions, load_directions
from tests import tiny

NAMES = ("yaw", "pitch", *BLENDSHAPES[1:])
K = len(NAMES)
LONG = 25 * 240


@pytest.fixture(scope="module")
def directions():
    rng = np.random.default_rng(0)
    spread = np.where(np.arange(K) < 2, 10.0, 0.1).astype(np.float32)
    zeros = np.zeros(K, np.float32)
    return Directions(NAMES, 0.2 * rng.standard_normal((K, 512)).astype(np.float32), zeros, spread, zeros)


def motion(directions, name, **options):
    chosen = {"frames": LONG, "fps": 25, "seed": 1, **options}
    column = directions.column(name)
    return puppets.trajectory(directions, **chosen)[:, column] / directions.spread[column]


def test_motion_follows_from_the_seed(directions):
    first = puppets.trajectory(directions, 40, 25, 3)
    assert (first.shape, first.dtype) == ((40, K), np.float32)
    assert np.array_equal(first, puppets.trajectory(directions, 40, 25, 3))
    assert not np.array_equal(first, puppets.trajectory(directions, 40, 25, 4))
    assert np.isfinite(first).all()


def test_amplitude_scales_everything(directions):
    np.testing.assert_allclose(
        puppets.trajectory(directions, 40, 25, 3, 0.5),
        puppets.trajectory(directions, 40, 25, 3) / 2,
        rtol=1e-5,
    )
    assert not puppets.trajectory(directions, 40, 25, 3, 0.0).any()


@pytest.mark.parametrize(
    ("name", "least"), [("yaw", 12), ("pitch", 10), ("browInnerUp", 7), ("jawOpen", 1.3)]
)
def test_motion_is_smooth(directions, name, least):
    """The spread over time is several times the change from frame to frame, and that changes slowly too.

    Of white noise the second difference is √3 times the first; a talking jaw turns around every few frames.
    """
    signal = motion(directions, name)
    step, turn = np.diff(signal), np.diff(signal, 2)
    assert signal.std() > least * np.sqrt((step**2).mean())
    assert np.sqrt((turn**2).mean()) < 1.1 * np.sqrt((step**2).mean())


@pytest.mark.parametrize("name", ["yaw", "jawOpen", "eyeBlinkLeft"])
def test_speed_is_in_seconds_not_in_frames(directions, name):
    slow = [np.abs(np.diff(motion(directions, name, seed=s))).mean() for s in range(4)]
    fast = [
        np.abs(np.diff(motion(directions, name, seed=s, fps=50, frames=2 * LONG))).mean() for s in range(4)
    ]
    assert np.mean(slow) / np.mean(fast) == pytest.approx(2, rel=0.15)


def test_sizes_are_in_units_of_the_measured_spread(directions):
    """Of parameters that belong to one group only: what moves within a clip, and where clips rest."""
    groups = {"yaw": 0, "pitch": 1, "browInnerUp": 2, "browDownLeft": 3}
    for name, number in groups.items():
        group = puppets._SLOW[number]
        share = group.parts[name]
        each = np.array([motion(directions, name, seed=s, frames=2500) for s in range(40)])
        assert each.std(1).mean() == pytest.approx(share * group.size, rel=0.25)
        assert each.mean(1).std() == pytest.approx(share * group.rest_spread, rel=0.4)
        assert each.mean() == pytest.approx(share * group.rest, abs=share * group.rest_spread / 2)


def test_every_part_has_a_direction():
    """A part that only one side of the face had would pull all faces askew."""
    groups = [group.parts for group in puppets._SLOW]
    parts = set().union(*groups, LIDS, puppets._TALK, *puppets._GLANCE_ASIDE)
    assert parts <= set(load_directions().names)


def test_a_smile_is_more_than_the_corners_of_a_mouth(directions):
    smile = motion(directions, "mouthSmileLeft")
    assert np.corrcoef(smile, motion(directions, "mouthSmileRight"))[0, 1] > 0.999
    for part in ("mouthUpperUpLeft", "eyeSquintRight"):
        assert np.corrcoef(smile, motion(directions, part))[0, 1] > 0.4


def test_blinks(directions):
    both = [motion(directions, name) for name in LIDS]
    assert np.array_equal(*both)
    closed = both[0] * directions.spread[directions.column(LIDS[0])] / SHUT
    shut = (closed > 0.5).astype(int)
    begin, end = np.flatnonzero(np.diff(shut) > 0) + 1, np.flatnonzero(np.diff(shut) < 0) + 1
    begin, end = begin[: len(end)], end[-len(begin) :]
    assert 60 < len(begin) < 140
    gaps = (begin[1:] - end[:-1]) / 25
    # Half closed for 2.355 standard deviations of 0.07 s, and for as long as they stay shut.
    half = 2.355 * 0.07
    assert gaps.min() > 1 - half - 0.05
    assert gaps.max() < 4 + 0.05
    lengths = (end - begin) / 25
    short = lengths < half + 0.1
    assert 0.6 < short.mean() < 0.9
    assert lengths[short].mean() == pytest.approx(half, abs=0.02)
    assert lengths[~short].max() < half + 1.2 + 0.05
    assert closed.min() == pytest.approx(0, abs=1e-6)
    assert all(closed[b:e].max() > 0.8 for b, e in zip(begin, end, strict=True))
    assert (closed < 0.01).mean() > 0.7


def test_eyes_look_together(directions):
    for first, second in (("eyeLookInLeft", "eyeLookOutRight"), ("eyeLookOutLeft", "eyeLookInRight")):
        assert np.array_equal(motion(directions, first), motion(directions, second))


def test_mouth_talks_and_pauses(directions):
    """The mouth's parts move together, some seconds much and others hardly."""
    jaw, lips = motion(directions, "jawOpen"), motion(directions, "mouthLowerDownLeft")
    assert np.corrcoef(jaw, lips)[0, 1] > 0.4
    activity = np.abs(jaw).reshape(-1, 25).mean(1)
    assert np.quantile(activity, 0.9) > 4 * np.quantile(activity, 0.1)


def test_parameters_without_a_direction_are_left_out(directions):
    few = Directions(
        ("yaw",), *(a[:1] for a in (directions.basis, directions.mean, directions.spread, directions.mean))
    )
    assert puppets.trajectory(few, 10, 25, 0).shape == (10, 1)


def test_clips_of_a_dataset():
    options = {"identities": 5, "clips": 2, "seed": 7}
    clips = puppets.clips("puppets", options, None)
    assert clips == puppets.clips("puppets", options, None)
    assert len({c.clip for c in clips}) == 10
    assert len({c.identity for c in clips}) == 5
    assert all(c.clip.replace("-", "").isalnum() and c.kind == "render" for c in clips)
    assert [c.split for c in clips] == [split_of(c.identity, 7) for c in clips]
    described = [json.loads(c.path) for c in clips]
    assert described[0] | {"motion": ""} == described[1] | {"motion": ""}
    assert described[0]["identity"] != described[2]["identity"]
    other = puppets.clips("puppets", {**options, "amplitude": 0.5}, None)
    assert all(a.path != b.path for a, b in zip(clips, other, strict=True))
    assert not {c.identity for c in clips} & {
        c.identity for c in puppets.clips("p", {**options, "seed": 8}, None)
    }


def test_latents_keep_the_person(directions):
    generator = tiny.generator(resolution=128)  # 12 rows
    described = {"frames": 6, "fps": 25, "truncation": 0.7, "amplitude": 1.0, "identity": "p", "motion": "m"}
    w_plus, moved = puppets.latents_of(described, directions, generator)
    assert w_plus.shape == (6, 12, 512)
    assert moved.shape == (6, K)
    assert torch.equal(w_plus[:, ROWS:], w_plus[:1, ROWS:].expand(6, 12 - ROWS, -1))
    offsets = w_plus[:, :ROWS] - w_plus[:, ROWS:].mean(1, keepdim=True)
    assert torch.allclose(offsets, torch.from_numpy(directions.offset(moved)), atol=1e-4)
    other, _ = puppets.latents_of({**described, "motion": "n"}, directions, generator)
    assert torch.equal(other[:, ROWS:], w_plus[:, ROWS:])
    assert not torch.equal(other, w_plus)
    still, _ = puppets.latents_of({**described, "truncation": 0.0, "amplitude": 0.0}, directions, generator)
    assert torch.allclose(still, generator.mean_latent.expand_as(still), atol=1e-6)


@pytest.mark.weights
def test_rendered_clip_holds_its_truth(tmp_path, weights, monkeypatch, directions):
    weights("mobile-ffhq")
    monkeypatch.setattr(puppets, "load_directions", lambda generator: directions)
    options = {"identities": 1, "frames": 2, "size": 256, "amplitude": 0.05}
    (clip,) = puppets.clips("puppets", options, None)
    with puppets.collector(options, {}).video([clip], tmp_path / "state") as make:
        film, truth = make(clip, tmp_path)
    assert (film.name, truth.name) == (f"{clip.clip}.mp4", f"{clip.clip}.npz")
    info = video.probe(film)
    assert (info.width, info.height, info.fps) == (256, 256, 25)
    frames = [frame.image for frame in video.read(film)]
    assert len(frames) == 2
    assert min(frame.std() for frame in frames) > 20
    with np.load(truth) as known:
        assert known["time"].tolist() == [0, 1 / 25]
        assert known["w_plus"].shape == (2, 16, 512)
        assert known["motion"].shape == (2, K)
        assert tuple(known["names"]) == NAMES

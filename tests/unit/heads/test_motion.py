"""Motion: smooth at any rate, within its caps, and like that of people."""

from __future__ import annotations

import numpy as np
import pytest

from remime.heads import motion
from remime.heads.assets import COEFFICIENTS

SECONDS = 120


def column(moved, name):
    return moved.coefficients[:, COEFFICIENTS.index(name)]


@pytest.fixture(scope="module")
def long():
    return [motion.sample(seed, SECONDS * 50, 50, 30, 12) for seed in range(6)]


def test_motion_follows_from_the_seed():
    first, again, other = (motion.sample(seed, 40, 25) for seed in (3, 3, 4))
    for name in ("time", "coefficients", "gaze", "pose"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.pose, other.pose)
    assert not np.array_equal(first.coefficients, other.coefficients)
    assert first.coefficients.shape == (40, 52)
    assert (first.gaze.shape, first.pose.shape, len(first)) == ((40, 2), (40, 3), 40)


@pytest.mark.parametrize("fps", [10, 50, 100])
def test_the_curves_are_the_same_at_any_rate(fps):
    """Frames at the same moments are the same, so motion is as smooth at any rate."""
    slow, fast = motion.sample(5, 50, 5), motion.sample(5, 50 * fps // 5, fps)
    same = slice(0, None, fps // 5)
    for name in ("time", "coefficients", "gaze", "pose"):
        np.testing.assert_allclose(getattr(fast, name)[same], getattr(slow, name), atol=1e-9)


def test_a_longer_clip_begins_like_a_shorter_one():
    short, long = motion.sample(5, 50, 25), motion.sample(5, 500, 25)
    for name in ("coefficients", "gaze", "pose"):
        np.testing.assert_allclose(getattr(long, name)[:50], getattr(short, name), atol=1e-9)


def test_caps(long):
    for moved in long:
        assert np.abs(moved.pose).max(0) == pytest.approx([30, 12, 12], abs=12)
        assert (np.abs(moved.pose).max(0) <= [30, 12, 12]).all()
        assert np.abs(moved.gaze).max() <= 22
        assert moved.coefficients.min() >= 0
        assert moved.coefficients.max() <= 1
    assert max(np.abs(moved.pose[:, 0]).max() for moved in long) > 20
    still = motion.sample(1, 100, 25, 0, 0)
    assert np.abs(still.pose).max() < 1e-3


def test_heads_are_smooth(long):
    """No jumps: heads turn with less than 200 degrees and 3000 degrees per second (squared)."""
    for moved in long:
        speed = np.diff(moved.pose, axis=0) * 50
        assert np.abs(speed).max() < 200
        assert np.abs(np.diff(speed, axis=0)).max() * 50 < 3000


def test_blinks(long):
    for moved in long:
        closed = column(moved, "eyeBlinkLeft")
        assert np.array_equal(closed, column(moved, "eyeBlinkRight"))
        starts = np.flatnonzero((closed[1:] >= 0.5) & (closed[:-1] < 0.5))
        ends = np.flatnonzero((closed[1:] < 0.5) & (closed[:-1] >= 0.5))
        assert 10 < len(starts) * 60 / SECONDS < 40  # per minute
        peaks = [closed[a : b + 1].max() for a, b in zip(starts, ends[ends > starts[0]], strict=False)]
        assert min(peaks) > 0.95
        assert (closed < 0.01).mean() > 0.75


def test_blinks_close_faster_than_they_open():
    closed = column(motion.sample(2, 200 * 60, 200), "eyeBlinkLeft")
    moving = (closed > 0.02) & (closed < 0.98)
    step = np.diff(closed)
    assert (moving[1:] & (step > 0)).sum() < 0.7 * (moving[1:] & (step < 0)).sum()


def test_a_blink_is_seen_at_25_frames_per_second():
    """Lids stay closed for longer than a frame, whenever frames are taken."""
    for seed in range(5):
        fine, coarse = (column(motion.sample(seed, 60 * fps, fps), "eyeBlinkLeft") for fps in (200, 25))
        starts = np.flatnonzero((fine[1:] >= 0.9) & (fine[:-1] < 0.9)) / 200
        for start in starts[1:-1]:
            assert coarse[int(25 * (start - 0.05)) : int(25 * (start + 0.25))].max() > 0.95


def test_eyes_fixate_and_jump(long):
    for moved in long:
        speed = np.abs(np.diff(moved.gaze, axis=0)).max(1) * 50
        assert (speed > 60).mean() < 0.25
        assert speed.max() > 100


def test_eyes_often_look_at_the_camera(long):
    """When the head turns, the gaze goes the other way."""
    yaw, gaze = (
        np.concatenate(values) for values in ([m.pose[:, 0] for m in long], [m.gaze[:, 0] for m in long])
    )
    assert np.corrcoef(yaw, gaze)[0, 1] < -0.4


def test_lids_follow_the_gaze(long):
    moved = long[0]
    left, right = column(moved, "eyeLookInLeft"), column(moved, "eyeLookOutLeft")
    assert not (left * right).any()
    np.testing.assert_allclose(22 * (left - right), moved.gaze[:, 0], atol=1e-9)
    up, down = column(moved, "eyeLookUpRight"), column(moved, "eyeLookDownRight")
    np.testing.assert_allclose(12 * (up - down), moved.gaze[:, 1], atol=1e-9)


def test_mouths_talk_and_pause(long):
    jaw = np.concatenate([column(moved, "jawOpen") for moved in long])
    assert (jaw < 0.02).mean() > 0.1
    # Syllables: the jaw opens some three to seven times a second while it moves at all.
    peaks = (jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.1)
    assert 2 < peaks.sum() / ((jaw > 0.02).sum() / 50) < 7


def test_everything_moves_some_day(long):
    most = np.max([moved.coefficients.max(0) for moved in long], 0)
    assert {name for name, value in zip(COEFFICIENTS, most, strict=True) if value < 0.05} == set()


def test_frames_are_poses():
    moved = motion.sample(3, 10, 25)
    pose = moved[4]
    assert np.array_equal(pose.coefficients, moved.coefficients[4])
    assert pose.gaze == tuple(moved.gaze[4])
    assert pose.head == tuple(moved.pose[4])


def test_curves():
    time = np.linspace(-1, 3, 401)
    bump = motion.bump(time, 0.0, 0.5, 1.0, 0.25)
    assert bump[time <= 0].max() == 0
    assert bump[(time >= 0.5) & (time <= 1.5)].min() == 1
    assert bump[time >= 1.75].max() == pytest.approx(0, abs=1e-12)
    assert motion.ease(np.array([0.25]))[0] == pytest.approx(10 / 64 - 15 / 256 + 6 / 1024)
    curve = motion.wander(np.random.default_rng(0), np.arange(0, 4000, 0.1), 1.0, 60)
    assert curve.std() == pytest.approx(1, abs=0.1)
    assert np.abs(motion.capped(10 * curve, 3.0)).max() <= 3

"""True answers in aligned frames: poses as a camera sees them, frames by their times."""

from __future__ import annotations

import numpy as np
import pytest

from remime.errors import InputError
from remime.heads.aligned import aligned_answers, frame_numbers, in_frame, seen_pose
from remime.heads.identity import sample
from remime.heads.shape import Pose, Shape
from remime.heads.take import Take, answer, motion_of
from tests import heads
from tests.answered import SIZE, small_kit, transforms  # noqa: F401

KIT = heads.kit()
TAKE = Take(identity=1, motion=2, scene=3, frames=4, fps=25, size=96, max_yaw=30, max_pitch=12)
IDENTITY = np.eye(2, 3)


@pytest.fixture(scope="module")
def shape():
    return Shape(KIT, sample(0, KIT))


def head(yaw=0.0, pitch=0.0, roll=0.0):
    return Pose(np.zeros(52), head=(yaw, pitch, roll))


def test_straight_ahead_of_the_camera_the_pose_is_the_heads(shape):
    """The camera stands where the line of sight runs along z."""
    for angles in ((0, 0, 0), (20, 0, 0), (-15, 8, 5)):
        _, place = shape.head_move(head(*angles))
        camera = (float(place[0]), float(place[1]), 10.0)
        np.testing.assert_allclose(seen_pose(shape, head(*angles), camera), angles, atol=1e-4)


def test_a_camera_at_the_side_sees_the_head_turned_away(shape):
    """From the picture's right, a head that looks straight ahead points to the picture's left."""
    _, place = shape.head_move(head())
    aside = seen_pose(shape, head(), (float(place[0]) + 1.0, float(place[1]), float(place[2]) + 10.0))
    np.testing.assert_allclose(aside, [np.degrees(np.arctan(0.1)), 0, 0], atol=1e-4)
    above = seen_pose(shape, head(), (float(place[0]), float(place[1]) + 1.0, float(place[2]) + 10.0))
    np.testing.assert_allclose(above, [0, -np.degrees(np.arctan(0.1)), 0], atol=1e-4)


def test_turning_the_picture_rolls_the_head():
    clockwise = np.radians(10)
    turn = 1.7 * np.array(
        [[np.cos(clockwise), -np.sin(clockwise), 3], [np.sin(clockwise), np.cos(clockwise), 4]]
    )
    np.testing.assert_allclose(in_frame(np.array([0.0, 0.0, -10.0]), turn), [0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(in_frame(np.array([0.0, 0.0, 5.0]), turn), [0, 0, 15], atol=1e-9)
    np.testing.assert_allclose(in_frame(np.array([12.0, 3.0, 1.0]), IDENTITY), [12, 3, 1], atol=1e-9)


def test_frames_are_found_by_their_times():
    assert frame_numbers(TAKE, np.array([0.04, 0.121])) == [1, 3]
    for wrong in ([0.06], [-0.04], [0.16]):
        with pytest.raises(InputError, match="times of Take"):
            frame_numbers(TAKE, np.array(wrong))


def test_landmarks_move_with_the_picture(small_kit):  # noqa: F811
    """In the frame of an unaligned video nothing changes; in another one everything moves alike."""
    plain = list(answer(TAKE, 5, [2, 3]))
    times = np.array([2, 3]) / 25
    same = list(aligned_answers(TAKE, 5, times, np.stack([IDENTITY] * 2), TAKE.size))
    for one, two in zip(plain, same, strict=True):
        np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_allclose(one.landmarks, two.landmarks, atol=1e-4)
        # Near the picture's edge a crop is blurred, as what lies beyond is mirrored.
        inside = slice(24, -24), slice(24, -24)
        assert np.abs(one.image[inside].astype(int) - two.image[inside]).max() <= 1
    matrices = transforms(4)[2:]
    moved = list(aligned_answers(TAKE, 5, times, matrices, SIZE))
    motion = motion_of(TAKE)
    for number, one, two, matrix in zip((2, 3), plain, moved, matrices, strict=True):
        expected = one.landmarks @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(two.landmarks, expected, atol=1e-3)
        np.testing.assert_allclose(two.coefficients, motion.coefficients[number], atol=1e-6)
        # Labels lie where the picture does.
        there, here = (tuple(np.rint(points[30]).astype(int)[::-1]) for points in (expected, one.landmarks))
        assert two.labels[there] == one.labels[here] != 0

"""Landmark ratios and their correlation on faces drawn by hand."""

import numpy as np
import pytest

from remime.metrics.expression import (
    LEFT_BROW,
    LEFT_EYE,
    RIGHT_EYE,
    brow_ratio,
    eye_aspect_ratio,
    fl_corr,
    mouth_aspect_ratio,
    signals,
)

NAN = float("nan")


def face(eye: float = 2.0, mouth: float = 4.0, brow: float = 10.0) -> np.ndarray:
    """Landmarks with the given opening of eyes and mouth and height of the brows, in pixels; eyes 8 wide."""
    p = np.random.default_rng(0).uniform(0, 100, (68, 2))
    for first, x, brows in ((36, 20, slice(17, 22)), (42, 60, slice(22, 27))):
        p[first : first + 6] = [
            (x, 30), (x + 2, 30 - eye / 2), (x + 6, 30 - eye / 2),
            (x + 8, 30), (x + 6, 30 + eye / 2), (x + 2, 30 + eye / 2),
        ]  # fmt: skip
        p[brows] = (x + 4, 30 - brow)
    p[60], p[64] = (30, 70), (50, 70)
    for above, below, x in ((61, 67, 35), (62, 66, 40), (63, 65, 45)):
        p[above], p[below] = (x, 70 - mouth / 2), (x, 70 + mouth / 2)
    return p


def clip(n: int = 40, scale: float = 1.0, phase: float = 0.0) -> np.ndarray:
    t = np.linspace(0, 9, n)
    rows = zip(np.sin(t + phase), np.cos(2 * t + phase), np.sin(0.7 * t + phase), strict=True)
    return scale * np.stack([face(2 + a, 4 + b, 10 + c) for a, b, c in rows])


def test_ratios_equal_their_hand_computed_values():
    points = face(eye=2, mouth=4, brow=10)[None]
    assert eye_aspect_ratio(points, LEFT_EYE)[0] == pytest.approx((2 + 2) / (2 * 8))
    assert eye_aspect_ratio(points, RIGHT_EYE)[0] == pytest.approx((2 + 2) / (2 * 8))
    assert mouth_aspect_ratio(points)[0] == pytest.approx((4 + 4 + 4) / (2 * 20))
    assert brow_ratio(points, LEFT_BROW, LEFT_EYE)[0] == pytest.approx(10 / 8)


def test_ratios_ignore_position_rotation_and_size():
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    points = face()[None]
    np.testing.assert_allclose(signals(7 * points @ turn.T + 100), signals(points))


def test_same_motion_of_another_face_correlates_fully():
    result = fl_corr(clip(), clip(scale=3.0))
    assert result.value == pytest.approx(1)
    assert result.frames == 40
    assert (result.interpolated, result.constant) == (0, 0)


def test_value_is_the_mean_over_the_signals():
    result = fl_corr(clip(), clip(phase=1.0))
    assert result.value == pytest.approx(np.mean(list(result.parts.values())))
    assert result.value < 0.9


def test_short_gap_is_interpolated_and_counted():
    generated = clip()
    generated[10:13] = NAN
    result = fl_corr(clip(), generated)
    assert result.interpolated == 3
    assert result.frames == 40
    assert result.value > 0.98


def test_long_gap_takes_no_part():
    generated = clip()
    generated[10:20] = NAN
    result = fl_corr(clip(), generated)
    assert (result.interpolated, result.frames) == (0, 30)
    assert result.value == pytest.approx(1)


def test_constant_signal_is_counted_and_left_out():
    generated = clip()
    generated[:, 60:68] = face()[60:68]
    result = fl_corr(clip(), generated)
    assert result.constant == 1
    assert np.isnan(result.parts["fl_mouth"])
    assert result.value == pytest.approx(1)


def test_clip_without_faces_has_no_value():
    result = fl_corr(clip(), np.full((40, 68, 2), NAN))
    assert np.isnan(result.value)
    assert (result.constant, result.frames, result.interpolated) == (0, 0, 0)


def test_broken_landmarks_of_zero_width_are_missing():
    points = np.zeros((1, 68, 2))
    assert np.isnan(signals(points)).all()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\[n, 68, 2\]"):
        signals(np.zeros((68, 2)))
    with pytest.raises(ValueError, match="generated"):
        fl_corr(clip(10), clip(11))

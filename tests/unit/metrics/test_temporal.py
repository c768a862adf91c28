"""Gaps, correlation and jitter on cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from remime.metrics.temporal import acceleration, fill_gaps, is_constant, jitter, pearson

NAN = float("nan")
SIGNAL = arrays(np.float64, st.integers(5, 30), elements=st.floats(-100, 100, width=32))


def test_short_gap_is_interpolated_and_long_one_is_not():
    signal = [1.0, NAN, NAN, 4.0, NAN, NAN, NAN, 8.0]
    filled, mask = fill_gaps(signal, max_gap=2)
    np.testing.assert_allclose(filled, [1, 2, 3, 4, NAN, NAN, NAN, 8])
    assert mask.tolist() == [False, True, True, False, False, False, False, False]


def test_nothing_is_extrapolated():
    filled, mask = fill_gaps([NAN, 2.0, NAN])
    np.testing.assert_array_equal(filled, [NAN, 2.0, NAN])
    assert not mask.any()


def test_all_missing_stays_missing():
    filled, mask = fill_gaps([NAN] * 4)
    assert np.isnan(filled).all()
    assert not mask.any()


def test_fill_gaps_leaves_its_argument_alone():
    signal = np.array([1.0, NAN, 3.0])
    fill_gaps(signal)
    assert np.isnan(signal[1])


@settings(max_examples=50, deadline=None)
@given(SIGNAL, st.floats(0.1, 10), st.floats(-10, 10))
def test_correlation_ignores_scale_and_offset(signal, scale, offset):
    if np.ptp(signal) < 1e-3:
        return
    assert pearson(signal, scale * signal + offset) == pytest.approx(1, abs=1e-6)
    assert pearson(signal, -scale * signal + offset) == pytest.approx(-1, abs=1e-6)


def test_missing_frames_take_no_part_in_a_correlation():
    assert pearson([1, 2, NAN, 3, 4], [2, 4, 100, 6, NAN]) == pytest.approx(1)


@pytest.mark.parametrize("signal", [[3.0, 3.0, 3.0, 3.0], [1e6, 1e6 + 1e-5, 1e6, 1e6]])
def test_constant_signal_has_no_correlation(signal):
    assert is_constant(signal)
    assert np.isnan(pearson(signal, [1.0, 2.0, 3.0, 4.0]))


def test_two_frames_have_no_correlation():
    assert np.isnan(pearson([1, 2], [1, 2]))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="expected shape"):
        pearson([1, 2, 3], [1, 2])


def face(offset: float = 0.0) -> np.ndarray:
    points = np.random.default_rng(0).uniform(50, 200, (68, 2))
    points[36:42], points[42:48] = (80, 100), (140, 100)  # eye centres 60 px apart
    return points + offset


def test_acceleration_of_a_steady_walk_is_zero_and_of_a_jerk_is_known():
    steady = np.stack([face(2.0 * t) for t in range(5)])
    np.testing.assert_allclose(acceleration(steady)[1:-1], 0, atol=1e-12)
    assert np.isnan(acceleration(steady)[[0, -1]]).all()
    jerk = np.stack([face(x) for x in (0, 3, 0)])  # second difference (−6, −6)
    assert acceleration(jerk)[1] == pytest.approx(6 * np.sqrt(2) / 60)


def test_jitter_is_a_ratio_that_the_size_of_the_face_leaves_alone():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(20, 68, 2))
    driving = face() + noise
    assert jitter(driving, driving) == pytest.approx(1)
    assert jitter(driving, 4 * driving) == pytest.approx(1)
    assert jitter(driving, face() + 3 * noise) == pytest.approx(3, rel=0.05)


def test_jitter_needs_three_consecutive_frames():
    driving = np.random.default_rng(1).normal(size=(4, 68, 2)) + face()
    broken = driving.copy()
    broken[1:3] = NAN
    assert np.isnan(jitter(driving, broken))


def test_jitter_of_a_frozen_driving_video_is_not_a_number():
    frozen = np.stack([face()] * 5)
    assert np.isnan(jitter(frozen, frozen + np.arange(5)[:, None, None] ** 2))

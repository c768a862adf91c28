"""The pose error against hand-computed angles."""

import numpy as np
import pytest

from remime.metrics.pose import pitch_corr, pose_mae, yaw_corr


def test_error_is_the_mean_of_yaw_and_pitch_without_roll():
    driving = [[10.0, 5.0, 0.0], [0.0, 0.0, 0.0]]
    generated = [[4.0, 9.0, 50.0], [-1.0, 0.0, -50.0]]
    np.testing.assert_allclose(pose_mae(driving, generated), [5.0, 0.5])


def test_unknown_angle_gives_no_error_for_its_frame_only():
    error = pose_mae([[1, 1, 1], [np.nan, 1, 1]], [[0, 0, 0], [0, 0, 0]])
    assert error[0] == 1
    assert np.isnan(error[1])


def test_correlations_take_their_own_angle():
    t = np.linspace(0, 6, 40)
    driving = 10 * np.stack([np.sin(t), np.cos(t), 0 * t], 1)
    generated = np.stack([2 * np.sin(t), -np.cos(t), 0 * t], 1)
    assert yaw_corr(driving, generated) == pytest.approx(1)
    assert pitch_corr(driving, generated) == pytest.approx(-1)


def test_a_head_that_hardly_turns_has_no_correlation():
    t = np.linspace(0, 6, 40)
    driving = np.stack([np.sin(t), 10 * np.cos(t), 0 * t], 1)
    assert np.isnan(yaw_corr(driving, driving))
    assert pitch_corr(driving, driving) == pytest.approx(1)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="yaw, pitch, roll"):
        pose_mae(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="generated angles"):
        pose_mae(np.zeros((3, 3)), np.zeros((2, 3)))

"""Errors against the truth: hand-computed cases."""

import numpy as np
import pytest

from remime.heads.renderer import LABELS
from remime.metrics import truth

TRUE = np.random.default_rng(0).uniform(20, 80, (3, 68, 2))
TRUE[:, 36], TRUE[:, 45] = (30, 40), (70, 40)  # 40 pixels between the outer corners of the eyes


def similar(points, scale=1.2, degrees=10.0, shift=(5.0, -3.0)):
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]]) + shift


def test_the_face_is_what_the_labels_say():
    names = ("background", "hair", *truth.FACE, "clothes")
    labels = np.arange(len(names)).reshape(2, -1)
    assert truth.face_mask(labels, names).sum() == len(truth.FACE)
    assert not truth.face_mask(np.array([[0, 1, len(names) - 1]]), names).any()
    assert set(truth.FACE) < set(LABELS)


def test_nme_is_per_cent_of_the_distance_between_the_eyes():
    np.testing.assert_allclose(truth.nme(TRUE + np.array([3, 4]), TRUE), 100 * 5 / 40)
    assert truth.nme(TRUE, TRUE).tolist() == [0, 0, 0]


def test_the_contour_does_not_count_and_missing_faces_have_no_value():
    found = TRUE.copy()
    found[:, :17] += 50
    found[1] = np.nan
    np.testing.assert_array_equal(truth.nme(found, TRUE), [0, np.nan, 0])
    values = truth.nme_shape(found, TRUE)
    np.testing.assert_allclose(values, [0, np.nan, 0], atol=1e-9)


def test_registration_removes_position_size_and_roll_only():
    moved = similar(TRUE)
    assert truth.nme(moved, TRUE).min() > 10
    np.testing.assert_allclose(truth.nme_shape(moved, TRUE), 0, atol=1e-9)
    # An opened mouth stays an error, and mirroring is no similarity.
    opened = moved.copy()
    opened[:, 65:68, 1] += 10
    assert truth.nme_shape(opened, TRUE).min() > 0.5
    assert truth.nme_shape(TRUE * [-1, 1], TRUE).min() > 10


def test_registration_is_scipys():
    """Procrustes of the found points onto the true ones, with the true scale."""
    from scipy.spatial import procrustes

    found = similar(TRUE) + np.random.default_rng(1).normal(0, 4, TRUE.shape)
    for frame in range(3):
        a, b = TRUE[frame, truth.INNER], found[frame, truth.INNER]
        first, second, _ = procrustes(a, b)
        length = np.linalg.norm(a - a.mean(0))
        expected = 100 * np.linalg.norm((first - second) * length, axis=1).mean() / 40
        assert truth.nme_shape(found, TRUE)[frame] == pytest.approx(expected, rel=1e-6)


def test_blendshape_errors():
    true = np.array([[0.0, 0.2], [0.4, 0.2], [0.8, 0.2], [0.2, 0.2]])
    found = true + np.array([0.1, -0.3])
    np.testing.assert_allclose(truth.blendshape_mae(found, true), 0.2)
    # The second one does not move, so only the first counts; neither offset nor scale enters.
    assert truth.blendshape_corr(0.5 * found, true) == pytest.approx(1)
    assert truth.blendshape_corr(1 - found, true) == pytest.approx(-1)


def test_what_does_not_follow_correlates_by_nothing():
    true = np.stack([np.linspace(0, 1, 6), np.linspace(1, 0, 6)], axis=1)
    still = np.full_like(true, 0.3)
    assert truth.blendshape_corr(still, true) == 0
    rounded = still + np.random.default_rng(0).normal(0, 1e-6, still.shape)
    assert truth.blendshape_corr(rounded, true) == 0
    half = true.copy()
    half[:, 1] = 0.3
    assert truth.blendshape_corr(half, true) == pytest.approx(0.5)


def test_without_motion_or_frames_there_is_no_correlation():
    true = np.full((5, 3), 0.4)
    assert np.isnan(truth.blendshape_corr(np.random.default_rng(0).random((5, 3)), true))
    moving = np.linspace(0, 1, 5)[:, None]
    seen = moving.copy()
    seen[2:] = np.nan
    assert np.isnan(truth.blendshape_corr(seen, moving))
    assert np.isnan(truth.blendshape_mae(seen, moving)[2:]).all()


@pytest.mark.parametrize("call", [truth.nme, truth.blendshape_mae])
def test_wrong_shapes_are_named(call):
    with pytest.raises(ValueError, match="expected"):
        call(np.zeros((2, 5)), np.zeros((2, 4)))

"""The 68 landmarks lie where iBUG's order says, the same on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from remime.heads.assets import WEIGHTS, load_kit
from remime.heads.landmarks import landmark_vertices

MIRRORED = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip


@pytest.mark.weights
def test_places(weights):
    for name in WEIGHTS:
        weights(name)
    kit = load_kit()
    points = kit.vertices[landmark_vertices(kit)]
    np.testing.assert_allclose(points[MIRRORED] * [-1, 1, 1], points, atol=1e-6)
    assert (np.diff(points[:17, 0]) > 0).all()  # the jaw from the left of the picture to the right
    assert points[8, 1] == points[:, 1].min()  # the chin
    assert points[30, 2] == points[:, 2].max()  # the tip of the nose
    assert points[36:42, 0].max() < 0 < points[42:48, 0].min()
    for side, eye in ((slice(36, 42), kit.eyes[1]), (slice(42, 48), kit.eyes[0])):
        assert np.linalg.norm(points[side].mean(0) - kit.vertices[eye].mean(0)) < 0.2
    assert points[51, 1] > points[62, 1] > points[66, 1] > points[57, 1]  # lips
    assert points[17:27, 1].min() > points[36:48, 1].max()  # brows above eyes

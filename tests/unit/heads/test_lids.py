"""Closed eyes are closed, whoever has them."""

from __future__ import annotations

import numpy as np
import pytest

from remime.heads.assets import WEIGHTS, load_kit
from remime.heads.identity import sample
from remime.heads.lids import calibrate, visible
from remime.heads.shape import Shape
from tests import heads


def test_what_shows_of_an_eye():
    """Half a ball, cut by what covers it; the window is four radii wide."""
    shape = Shape(heads.kit(), sample(0, heads.kit()))
    share = visible(shape, 0, 0.0)
    assert 0 < share < np.pi / 16
    assert share == visible(shape, 0, 0.0)


@pytest.mark.weights
@pytest.mark.parametrize("seed", range(6))
def test_blinks_close(weights, seed):
    for name in WEIGHTS:
        weights(name)
    shape = Shape(load_kit(), sample(seed, load_kit()))
    factors = calibrate(shape)
    for side in (0, 1):
        opened = visible(shape, side, 0.0)
        assert opened > 0.03
        assert visible(shape, side, 1.0) <= 0.002
        assert visible(shape, side, 0.4) > 0.15 * opened
        assert visible(shape, side, 1.0, gaze=(15, 8)) < 0.1 * opened
    assert (factors < 1.5).all()

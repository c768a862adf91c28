"""How far a person's lids must go to close: the face unit was modelled on one face, eyes differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from remime.heads.assets import COEFFICIENTS
from remime.heads.raster import cover
from remime.heads.shape import EYES, SKIN, Pose, Shape

_SIDE = 96  # samples across the window around an eye
_CLOSED = 0.002  # of the window
_LEAST, _MOST, _STEPS = 0.4, 2.0, 8


def visible(shape: Shape, side: int, closed: float, gaze: tuple[float, float] = (0.0, 0.0)) -> float:
    """The share of a window around an eye, seen from ahead, in which the eyeball shows.

    Args:
        shape: the person; ``shape.blink`` counts.
        side: 0 the person's left eye, 1 the right one.
        closed: the coefficient ``eyeBlink`` of both eyes.
        gaze: where the eyes look, in degrees.
    """
    coefficients = np.zeros(len(COEFFICIENTS))
    coefficients[[COEFFICIENTS.index(f"eyeBlink{name}") for name in ("Left", "Right")]] = closed
    vertices = shape.posed(Pose(coefficients, gaze))
    centre, reach = shape.eyes[side], 2 * shape.radius
    scale = _SIDE / (2 * reach)
    points = np.empty_like(vertices)
    points[:, 0] = _SIDE / 2 + (vertices[:, 0] - centre[0]) * scale
    points[:, 1] = _SIDE / 2 - (vertices[:, 1] - centre[1]) * scale
    points[:, 2] = 100 - vertices[:, 2]  # from far away
    near = np.abs(vertices - centre).max(1) < reach
    kept = np.isin(shape.material, (SKIN, EYES)) & near[shape.triangles].any(1)
    found = cover(points, np.ascontiguousarray(shape.triangles[kept]), _SIDE).triangle
    return float((shape.material[kept][found[found >= 0]] == EYES).sum() / _SIDE**2)


def calibrate(shape: Shape) -> NDArray[np.float64]:
    """Find what ``eyeBlink`` of the left and right eye is multiplied with, so that 1 just closes them."""
    for side in (0, 1):
        low, high = _LEAST, _MOST
        for _ in range(_STEPS):
            shape.blink[side] = (low + high) / 2
            if visible(shape, side, 1.0) > _CLOSED:
                low = shape.blink[side]
            else:
                high = shape.blink[side]
        shape.blink[side] = high
    return shape.blink

"""How closely the head follows the driving head."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from remime.errors import shape_error
from remime.metrics.temporal import pearson

MIN_TURN = 2.0  # degrees


def _angles(driving: ArrayLike, generated: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(driving, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    if a.ndim != 2 or a.shape[1] != 3:
        raise shape_error("driving angles", "[n, 3] of yaw, pitch, roll", a.shape)
    if b.shape != a.shape:
        raise shape_error("generated angles", str(a.shape), b.shape)
    return a, b


def pose_mae(driving: ArrayLike, generated: ArrayLike) -> NDArray[np.float64]:
    """Pose error of each frame (P1, Sec. 4.3): the mean of |Δyaw| and |Δpitch|.

    Roll takes no part, because alignment removes it from both videos.

    Args:
        driving, generated: [n, 3] yaw, pitch, roll in degrees; NaN where they are not known.

    Returns:
        [n] in degrees, NaN where an angle is not known.
    """
    a, b = _angles(driving, generated)
    return np.abs(a - b)[:, :2].mean(axis=1)


def yaw_corr(driving: ArrayLike, generated: ArrayLike) -> float:
    """Pearson correlation of the yaw over time; arguments as for :func:`pose_mae`.

    NaN when the driving head hardly turns (standard deviation below ``MIN_TURN``): what is left then is the
    noise of the pose network, which also reacts to expressions.
    """
    return _correlation(driving, generated, 0)


def pitch_corr(driving: ArrayLike, generated: ArrayLike) -> float:
    """Pearson correlation of the pitch over time; as :func:`yaw_corr`."""
    return _correlation(driving, generated, 1)


def _correlation(driving: ArrayLike, generated: ArrayLike, column: int) -> float:
    a, b = _angles(driving, generated)
    known = a[np.isfinite(a[:, column]), column]
    if len(known) < 3 or known.std() < MIN_TURN:
        return float("nan")
    return pearson(a[:, column], b[:, column])

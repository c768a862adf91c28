"""Signals over time: gaps, correlation, jitter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from remime.errors import shape_error

MAX_GAP = 5
"""Longest run of missing frames that is interpolated: 0.2 s at 25 fps."""


def fill_gaps(signal: ArrayLike, max_gap: int = MAX_GAP) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Interpolate short runs of NaN between known values linearly.

    Runs longer than ``max_gap`` and runs at either end stay NaN: nothing is extrapolated.

    Args:
        signal: [n], one value a frame, NaN where it is missing.
        max_gap: longest run of missing frames that is filled.

    Returns:
        the signal [n] and a mask [n] of the values that were interpolated.
    """
    values = np.array(signal, dtype=np.float64)
    if values.ndim != 1:
        raise shape_error("signal", "[n]", values.shape)
    filled = np.zeros(len(values), dtype=bool)
    known = np.flatnonzero(~np.isnan(values))
    for before, after in pairwise(known):
        if 1 < after - before <= max_gap + 1:
            filled[before + 1 : after] = True
    if filled.any():
        values[filled] = np.interp(np.flatnonzero(filled), known, values[known])
    return values, filled


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Zero-lag Pearson correlation of two signals over the frames where both are known.

    Args:
        a, b: [n], NaN where a value is missing.

    Returns:
        −1…1, or NaN when fewer than three frames are left or one signal is constant.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise shape_error("signals", f"two of one length, the first has {x.shape}", y.shape)
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 3 or is_constant(x) or is_constant(y):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    r = np.dot(x / np.linalg.norm(x), y / np.linalg.norm(y))
    return float(np.clip(r, -1.0, 1.0))


def is_constant(signal: ArrayLike) -> bool:
    """Whether a signal's known values do not differ by more than rounding does.

    Networks compute in float32: of equal frames in batches of several sizes they say the same to about 3e-6.
    """
    x = np.asarray(signal, dtype=np.float64)
    x = x[~np.isnan(x)]
    return x.size == 0 or bool(np.ptp(x) <= 1e-5 * max(1.0, float(np.abs(x).max())))


def acceleration(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Mean length of the second difference of the landmarks, in eye distances.

    Args:
        landmarks: [n, 68, 2] in pixels (x right, y down); NaN where no face was found.

    Returns:
        [n]: at frame t the mean over points of ‖p(t+1) − 2p(t) + p(t−1)‖, divided by the clip's median
        distance of the eye centres; NaN at both ends and next to missing frames.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise shape_error("landmarks", "[n, 68, 2]", points.shape)
    result = np.full(len(points), np.nan)
    eyes = np.linalg.norm(points[:, 36:42].mean(1) - points[:, 42:48].mean(1), axis=-1)
    if len(points) < 3 or np.isnan(eyes).all():
        return result
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    result[1:-1] = np.linalg.norm(second, axis=-1).mean(1) / np.nanmedian(eyes)
    return result


def jitter(driving: ArrayLike, generated: ArrayLike) -> float:
    """Landmark acceleration of the generated video over that of the driving video.

    The ratio of the means over the frames where both are known, so that neither the frame rate nor the
    size of the face enters.

    Args:
        driving, generated: [n, 68, 2] in pixels; NaN where no face was found.

    Returns:
        1 when both move equally steadily, more when the generated video trembles; NaN without three
        consecutive frames in both, or when the driving landmarks do not accelerate at all.
    """
    a, b = acceleration(driving), acceleration(generated)
    if a.shape != b.shape:
        raise shape_error("generated", str(np.shape(driving)), np.shape(generated))
    known = ~(np.isnan(a) | np.isnan(b))
    if not known.any() or a[known].sum() <= 1e-9:
        return float("nan")
    return float(b[known].sum() / a[known].sum())

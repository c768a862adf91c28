"""How closely eyes, mouth and brows follow the driving ones (P1, Sec. 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from remime.errors import shape_error
from remime.metrics.registry import SIGNALS
from remime.metrics.temporal import MAX_GAP, fill_gaps, is_constant, pearson

LEFT_EYE, RIGHT_EYE = np.arange(36, 42), np.arange(42, 48)
LEFT_BROW, RIGHT_BROW = np.arange(17, 22), np.arange(22, 27)


def _points(landmarks: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise shape_error("landmarks", "[n, 68, 2]", points.shape)
    return points


def _distance(points: NDArray[np.float64], a: int, b: int) -> NDArray[np.float64]:
    return np.linalg.norm(points[:, a] - points[:, b], axis=-1)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Their quotient; NaN where the width is zero, which only broken landmarks have."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def eye_aspect_ratio(landmarks: ArrayLike, eye: NDArray[np.int_]) -> NDArray[np.float64]:
    """Aspect ratio of an eye: (‖p2 − p6‖ + ‖p3 − p5‖) / (2‖p1 − p4‖).

    Args:
        landmarks: [n, 68, 2] in pixels.
        eye: the indices of p1…p6, ``LEFT_EYE`` or ``RIGHT_EYE``.

    Returns:
        [n]; 0 for a closed eye.
    """
    p = _points(landmarks)
    p1, p2, p3, p4, p5, p6 = eye
    return _ratio(_distance(p, p2, p6) + _distance(p, p3, p5), 2 * _distance(p, p1, p4))


def mouth_aspect_ratio(landmarks: ArrayLike) -> NDArray[np.float64]:
    """Aspect ratio of the inner lips: (‖61−67‖ + ‖62−66‖ + ‖63−65‖) / (2‖60−64‖); [n]."""
    p = _points(landmarks)
    height = _distance(p, 61, 67) + _distance(p, 62, 66) + _distance(p, 63, 65)
    return _ratio(height, 2 * _distance(p, 60, 64))


def brow_ratio(landmarks: ArrayLike, brow: NDArray[np.int_], eye: NDArray[np.int_]) -> NDArray[np.float64]:
    """Mean distance of a brow's points to the centre of its eye, over the eye's width; [n]."""
    p = _points(landmarks)
    centre = p[:, eye].mean(axis=1, keepdims=True)
    height = np.linalg.norm(p[:, brow] - centre, axis=-1).mean(axis=1)
    return _ratio(height, _distance(p, eye[0], eye[3]))


def signals(landmarks: ArrayLike) -> NDArray[np.float64]:
    """The five ratios of each frame, in the order of ``SIGNALS``.

    Args:
        landmarks: [n, 68, 2] in pixels (x right, y down); NaN where no face was found.

    Returns:
        [n, 5]: left eye, right eye, mouth, left brow, right brow; left and right are those of the image.
    """
    columns = [
        eye_aspect_ratio(landmarks, LEFT_EYE),
        eye_aspect_ratio(landmarks, RIGHT_EYE),
        mouth_aspect_ratio(landmarks),
        brow_ratio(landmarks, LEFT_BROW, LEFT_EYE),
        brow_ratio(landmarks, RIGHT_BROW, RIGHT_EYE),
    ]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class FlCorr:
    """The expression fidelity of one clip.

    Args:
        value: mean over the signals that have a correlation; NaN when none has.
        parts: the correlation of each of ``SIGNALS``.
        interpolated: frames in which a gap was interpolated, in either video.
        constant: signals without a correlation because one side does not change.
        frames: frames that the correlations rest on, interpolated ones included.
    """

    value: float
    parts: dict[str, float]
    interpolated: int
    constant: int
    frames: int


def fl_corr(driving: ArrayLike, generated: ArrayLike, max_gap: int = MAX_GAP) -> FlCorr:
    """Correlation of the landmark ratios of the driving and the generated video (P1, Sec. 4.3).

    Args:
        driving, generated: [n, 68, 2] in pixels of one clip; NaN where no face was found.
        max_gap: longest run of missing frames that is interpolated.
    """
    a, b = signals(driving), signals(generated)
    if a.shape != b.shape:
        raise shape_error("generated", str(np.shape(driving)), np.shape(generated))
    parts: dict[str, float] = {}
    interpolated = np.zeros(len(a), dtype=bool)
    usable = np.zeros(len(a), dtype=bool)
    constant = 0
    for i, name in enumerate(SIGNALS):
        x, x_filled = fill_gaps(a[:, i], max_gap)
        y, y_filled = fill_gaps(b[:, i], max_gap)
        known = ~(np.isnan(x) | np.isnan(y))
        interpolated |= (x_filled | y_filled) & known
        usable |= known
        parts[name] = pearson(x, y)
        constant += bool(known.sum() >= 3 and (is_constant(x[known]) or is_constant(y[known])))
    found = [r for r in parts.values() if not np.isnan(r)]
    value = float(np.mean(found)) if found else float("nan")
    return FlCorr(value, parts, int(interpolated.sum()), constant, int(usable.sum()))

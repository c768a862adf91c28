"""How close a reenactment comes to the true answer, where there is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from remime.errors import shape_error
from remime.metrics.temporal import is_constant, pearson

FACE = ("skin", "brows", "lashes", "eyes", "teeth", "tongue", "lips")
"""The labels of an answer's label map that are face; hair, clothes and background are not."""
INNER = slice(17, 68)
"""The 51 landmarks without the contour, where dlib follows the outline and the truth fixed points."""
MIN_MOTION = 0.02
"""Coefficients whose standard deviation over a clip is below this do not move."""

_LEFT, _RIGHT = 36, 45  # outer corners of the eyes


def face_mask(labels: ArrayLike, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which pixels [h, w] of a label map show face.

    Args:
        labels: [h, w] numbers of ``names``.
        names: what they stand for.
    """
    return np.isin(np.asarray(labels), [names.index(name) for name in FACE])


def _landmarks(found: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(found, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.ndim != 3 or a.shape[1:] != (68, 2):
        raise shape_error("landmarks", "[n, 68, 2]", a.shape)
    if b.shape != a.shape:
        raise shape_error("true landmarks", str(a.shape), b.shape)
    return a, b


def nme(found: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Normalised mean error of 51 landmarks in per cent of the inter-ocular distance (300-W).

    Args:
        found: [n, 68, 2] in pixels of the answer; NaN where no face was found.
        true: [n, 68, 2].

    Returns:
        [n]: mean distance of the inner landmarks over the true distance of the outer eye corners, × 100.
    """
    a, b = _landmarks(found, true)
    eyes = np.linalg.norm(b[:, _LEFT] - b[:, _RIGHT], axis=-1)
    return 100 * np.linalg.norm(a[:, INNER] - b[:, INNER], axis=-1).mean(axis=1) / eyes


def nme_shape(found: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """:func:`nme` after the similarity transform of each frame that brings the found landmarks nearest."""
    a, b = _landmarks(found, true)
    fitted = a.copy()
    for frame in np.flatnonzero(np.isfinite(a).all(axis=(1, 2))):
        fitted[frame, INNER] = _registered(a[frame, INNER], b[frame, INNER])
    return nme(fitted, b)


def _registered(points: NDArray[np.float64], onto: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [k, 2] moved, turned and scaled for the least squared distance."""
    # A complex factor turns and scales.
    p, q = (each[:, 0] + 1j * each[:, 1] for each in (points, onto))
    centred = p - p.mean()
    length = np.vdot(centred, centred).real
    factor = np.vdot(centred, q - q.mean()) / length if length > 0 else 1.0
    moved = factor * centred + q.mean()
    return np.stack([moved.real, moved.imag], axis=1)


def blendshape_mae(found: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Mean absolute difference [n] of blendshapes [n, k]; NaN where there is no frame."""
    a, b = _blendshapes(found, true)
    return np.abs(a - b).mean(axis=1)


def blendshape_corr(found: ArrayLike, true: ArrayLike) -> float:
    """Pearson correlation of blendshapes [n, k] over time, mean over those that truly move.

    One that moves but does not in the generated video counts as 0. NaN when none moves, or with fewer than
    three frames.
    """
    a, b = _blendshapes(found, true)
    a, b = (each[np.isfinite(a).all(axis=1)] for each in (a, b))
    if len(a) < 3:
        return float("nan")
    moving = [(x, y) for x, y in zip(a.T, b.T, strict=True) if y.std() >= MIN_MOTION]
    parts = [0.0 if is_constant(x) else pearson(x, y) for x, y in moving]
    return float(np.mean(parts)) if parts else float("nan")


def _blendshapes(found: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(found, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if a.ndim != 2:
        raise shape_error("blendshapes", "[n, k]", a.shape)
    if b.shape != a.shape:
        raise shape_error("true blendshapes", str(a.shape), b.shape)
    return a, b

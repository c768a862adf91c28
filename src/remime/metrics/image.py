"""Distances between single images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from remime.errors import shape_error

WINDOW, SIGMA = 11, 1.5
"""SSIM's Gaussian window, as in Wang et al. 2004."""


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(a), np.asarray(b)
    if x.ndim != 3 or x.shape[2] != 3:
        raise shape_error("image", "[height, width, 3]", x.shape)
    if x.shape != y.shape:
        raise shape_error("second image", str(x.shape), y.shape)
    if x.dtype != np.uint8 or y.dtype != np.uint8:
        raise ValueError(f"images: expected uint8 RGB, got {x.dtype} and {y.dtype}")
    return x.astype(np.float64), y.astype(np.float64)


def _mean(values: NDArray[np.float64], mask: ArrayLike | None) -> float:
    """The mean over pixels and channels of values [h, w, 3], inside a mask [h, w] where there is one."""
    if mask is None:
        return float(values.mean())
    inside = np.asarray(mask, dtype=bool)
    if inside.shape != values.shape[:2]:
        raise shape_error("mask", str(values.shape[:2]), inside.shape)
    return float(values[inside].mean()) if inside.any() else float("nan")


def l1(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean absolute difference of two uint8 images [h, w, 3], on the scale 0–255 (P4).

    Args:
        a, b: the images.
        mask: [h, w] the pixels that count, here and in the other metrics; without it all. NaN of none.
    """
    x, y = _pair(a, b)
    return _mean(np.abs(x - y), mask)


def mse(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean squared difference of two uint8 images [h, w, 3], on the scale 0–1 (P3); arguments as ``l1``."""
    x, y = _pair(a, b)
    return _mean(np.square((x - y) / 255), mask)


def psnr(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Peak signal-to-noise ratio of two uint8 images [h, w, 3] in dB, peak 255; inf when they are equal."""
    error = mse(a, b, mask)
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(a: ArrayLike, b: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Structural similarity of two uint8 RGB images [h, w, 3].

    Each channel with a Gaussian window of 11×11 pixels, σ = 1.5, population covariance, data range 255,
    K = (0.01, 0.03); the mean over all windows that lie inside the image, and over the channels (Wang et al.
    2004). The same values as scikit-image with ``gaussian_weights=True, use_sample_covariance=False``.

    With a mask the mean is over the windows whose centres lie in it; they still see what is beside it.

    Raises:
        ValueError: different shapes, not uint8, or smaller than the window.
    """
    x, y = _pair(a, b)
    if min(x.shape[:2]) < WINDOW:
        raise shape_error("image", f"at least {WINDOW} pixels on each side", x.shape)

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(image, (WINDOW, WINDOW), SIGMA), dtype=np.float64)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    similarity = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    edge = WINDOW // 2
    centres = (slice(edge, -edge), slice(edge, -edge))
    return _mean(similarity[centres], None if mask is None else np.asarray(mask)[centres])


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square uint8 image at ``size`` pixels: area average when it shrinks, cubic when it grows."""
    if image.shape[:2] == (size, size):
        return image
    shrinks = image.shape[0] > size
    return np.asarray(
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC),
        dtype=np.uint8,
    )

"""The geometry of FFHQ's face crop: its quad, smoothing over time, and an antialiased warp.

Coordinates are pixels, x right, y down, pixel centres at integers, in source and aligned frames alike. A
quad is ``[4, 2]``: upper left, lower left, lower right, upper right corner of the crop's outer edge.
Definitions: Karras et al., "A Style-Based Generator Architecture for GANs", CVPR 2019, appendix C.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

REFERENCE_FPS = 25.0
# Beyond this many standard deviations a Gaussian weight is left off.
REACH = 3.0
_MAX_SAMPLES = 4


def quad(landmarks: NDArray[np.floating]) -> Array:
    """The FFHQ crop of a face.

    Args:
        landmarks: ``[..., 68, 2]`` pixels.

    Returns:
        ``[..., 4, 2]`` corners, see the module's convention. It moves, turns and grows with the face.

    Raises:
        ValueError: another shape, or eyes and mouth in one point.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape[-2:] != (68, 2):
        raise ValueError(f"landmarks: expected shape [..., 68, 2], got {points.shape}")
    left, right = points[..., 36:42, :].mean(-2), points[..., 42:48, :].mean(-2)
    eyes, mouth = (left + right) / 2, (points[..., 48, :] + points[..., 54, :]) / 2
    eye_to_eye, eye_to_mouth = right - left, mouth - eyes
    # A quarter turn of eye_to_mouth points like eye_to_eye; their mean is steadier than either.
    x = eye_to_eye - _quarter_turn(eye_to_mouth)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    if np.any(length < 1e-9):
        raise ValueError("landmarks: the eyes and the mouth of a face lie in one point")
    size = np.maximum(2.0 * _norm(eye_to_eye), 1.8 * _norm(eye_to_mouth))
    x = x / length * size
    return corners(eyes + 0.1 * eye_to_mouth, x, _quarter_turn(x))


def _norm(vector: Array) -> Array:
    return np.asarray(np.linalg.norm(vector, axis=-1, keepdims=True))


def _quarter_turn(vector: Array) -> Array:
    """The vector turned by 90°, x axis to y axis (clockwise on the screen)."""
    return np.stack([-vector[..., 1], vector[..., 0]], axis=-1)


def corners(centre: Array, x: Array, y: Array) -> Array:
    """The quad with a centre and half axes, each ``[..., 2]``."""
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y], axis=-2)


def axes(quads: Array) -> tuple[Array, Array, Array]:
    """Centre and half axes x, y of quads, the inverse of ``corners``."""
    upper_left, lower_left, upper_right = quads[..., 0, :], quads[..., 1, :], quads[..., 3, :]
    return quads.mean(-2), (upper_right - upper_left) / 2, (lower_left - upper_left) / 2


def gaussian(times: Array, at: float, sigma: float) -> Array:
    """Weights ``[n]``, summing to 1, of samples at ``times`` for the moment ``at``.

    They fit a line to the samples under a Gaussian and take its value at the moment (local linear
    regression). With the same samples before as after that is the plain Gaussian mean; at the ends of a clip,
    where a mean would lag behind by half its width, steady motion stays exact.

    Args:
        times: ``[n]`` seconds; one of them is ``at``.
        at: seconds.
        sigma: standard deviation in frames at 25 fps; near 0 it takes the nearest sample alone.
    """
    distance = times - at
    if sigma < 1e-3:
        nearest = np.abs(distance) == np.abs(distance).min()
        return nearest / nearest.sum()
    scaled = distance * REFERENCE_FPS / sigma
    weights = np.exp(-0.5 * scaled**2) * (np.abs(scaled) <= REACH + 1e-6)
    first, second = float(weights @ scaled), float(weights @ scaled**2)
    weights = weights * (second - first * scaled) if second > 1e-6 else weights
    return weights / weights.sum()


def reach_of(sigma_centre: float, sigma_axes: float) -> float:
    """How many seconds before and after a moment smoothing looks."""
    return (REACH + 1e-6) * max(sigma_centre, sigma_axes) / REFERENCE_FPS


def smooth_at(
    quads: Array, times: Array, at: float, sigma_centre: float = 1.0, sigma_axes: float = 3.0
) -> Array:
    """The smoothed quad ``[4, 2]`` at one moment.

    Args:
        quads: ``[n, 4, 2]`` of the frames around it; only those within ``REACH · sigma`` count.
        times: ``[n]`` seconds.
        at: seconds, where one of the frames lies.
        sigma_centre: standard deviation for the centre, in frames at 25 fps.
        sigma_axes: the same for the axes, that is for size and rotation.
    """
    centre, x, y = axes(quads)
    near, far = gaussian(times, at, sigma_centre), gaussian(times, at, sigma_axes)
    return corners(near @ centre, far @ x, far @ y)


def smooth(
    quads: Array,
    fps: float,
    times: Array | None = None,
    sigma_centre: float = 1.0,
    sigma_axes: float = 3.0,
) -> Array:
    """Gaussian smoothing of quads over time, by the same span of time at every frame rate.

    A face at rest stays where it is and steady motion stays steady, also at the ends; see ``gaussian``.

    Args:
        quads: ``[n, 4, 2]`` in order of time.
        fps: frames per second, used where no times are given.
        times: ``[n]`` seconds, for a variable rate.
        sigma_centre: standard deviation for the centre, in frames at 25 fps.
        sigma_axes: the same for the axes.

    Returns:
        ``[n, 4, 2]``.
    """
    moments = np.arange(len(quads)) / fps if times is None else np.asarray(times, np.float64)
    reach = reach_of(sigma_centre, sigma_axes)
    first = np.searchsorted(moments, moments - reach, side="left")
    end = np.searchsorted(moments, moments + reach, side="right")
    smoothed = np.empty_like(quads, np.float64)
    for i, (a, b) in enumerate(zip(first, end, strict=True)):
        smoothed[i] = smooth_at(quads[a:b], moments[a:b], moments[i], sigma_centre, sigma_axes)
    return smoothed


def transform_of(corner: Array, size: int) -> Array:
    """The affine map ``[2, 3]`` from source pixels to pixels of the aligned frame.

    Args:
        corner: quad ``[4, 2]``.
        size: side of the aligned frame; its outer edge, half a pixel around the centres, is the quad.
    """
    return invert(_to_source(corner, size))


def quad_of(transform: Array, size: int) -> Array:
    """The quad ``[4, 2]`` of a map from source to aligned pixels, the inverse of ``transform_of``."""
    low, high = -0.5, size - 0.5
    return apply(invert(transform), np.array([[low, low], [low, high], [high, high], [high, low]]))


def _to_source(corner: Array, size: int) -> Array:
    right, down = (corner[3] - corner[0]) / size, (corner[1] - corner[0]) / size
    return np.column_stack([right, down, corner[0] + (right + down) / 2])


def invert(transform: Array) -> Array:
    """The inverse of an affine map ``[..., 2, 3]``."""
    matrix = np.linalg.inv(transform[..., :2])
    return np.concatenate([matrix, -matrix @ transform[..., 2:]], axis=-1)


def apply(transform: NDArray[np.floating], points: NDArray[np.floating]) -> Array:
    """Map points ``[..., n, 2]`` by ``[..., 2, 3]``."""
    return points @ np.swapaxes(transform[..., :2], -1, -2) + transform[..., None, :, 2]


def warp(image: Image, corner: Array, size: int) -> tuple[Image, Array]:
    """Cut the quad out of an image, straight to the output size, with antialiasing.

    Where the crop leaves the image, the image is mirrored, blurred and faded to its median colour, as in
    FFHQ's reference procedure. ``tests/parity`` holds the distance to that procedure.

    Args:
        image: ``[H, W, 3]`` uint8.
        corner: quad ``[4, 2]`` in pixels of the image.
        size: side of the result in pixels.

    Returns:
        The aligned frame ``[size, size, 3]`` uint8, and the map ``[2, 3]`` from source to aligned pixels.
    """
    transform = transform_of(corner, size)
    side = float(np.linalg.norm(corner[3] - corner[0]))
    region, moved = _region(image, corner, side, size)
    region, moved = _shrink(region, moved, max(1, int(side / size * 0.5)))
    missing = _missing(region, moved)
    if missing is None:
        return _sample(region, moved, size), transform
    return _sample_beyond(region, moved, size, missing), transform


def _border(side: float) -> int:
    return max(round(0.1 * side), 3)


def _bounds(corner: Array) -> tuple[int, int, int, int]:
    low, high = np.floor(corner.min(0)).astype(int), np.ceil(corner.max(0)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _region(image: Image, corner: Array, side: float, size: int) -> tuple[Image, Array]:
    """The part of the image that matters, and the quad in its pixels."""
    height, width = image.shape[:2]
    left, top, right, bottom = _bounds(corner)
    border = _border(side)
    x0, y0 = max(left - border, 0), max(top - border, 0)
    x1, y1 = min(right + border, width), min(bottom + border, height)
    if x1 - x0 < 2 or y1 - y0 < 2:
        # The crop lies beside the image; what is nearest to it is mirrored.
        x0, y0 = min(x0, width - 2), min(y0, height - 2)
        x1, y1 = max(x1, x0 + 2), max(y1, y0 + 2)
    return image[y0:y1, x0:x1], corner - np.array([x0, y0])


def _shrink(region: Image, corner: Array, factor: int) -> tuple[Image, Array]:
    """Average blocks of factor × factor pixels."""
    height, width = (max(2, side // factor) for side in region.shape[:2])
    if factor == 1 or height * factor > region.shape[0] or width * factor > region.shape[1]:
        return region, corner
    blocks = region[: height * factor, : width * factor]
    small = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), (corner + 0.5) / factor - 0.5


def _missing(region: Image, corner: Array) -> Array | None:
    """How far crop and border reach over the region (left, top, right, bottom); None if they do not."""
    height, width = region.shape[:2]
    border = _border(float(np.linalg.norm(corner[3] - corner[0])))
    left, top, right, bottom = _bounds(corner)
    over = np.array([border - left, border - top, right - width + border, bottom - height + border])
    return np.maximum(over, 0).astype(np.float64) if over.max() > border - 4 else None


def _sample_beyond(region: Image, corner: Array, size: int, missing: Array) -> Image:
    """Sample with the region mirrored at its edges, blurred and faded the further out.

    All of it happens at the output's scale, which costs less than the reference's padded source image and
    differs only in that the blur cannot see further than its own reach.
    """
    side = float(np.linalg.norm(corner[3] - corner[0]))
    sigma = 0.02 * size
    reach = int(np.ceil(3 * sigma))
    grown = corner.mean(0) + (corner - corner.mean(0)) * (1 + 2 * reach / size)
    wide = _sample(region, grown, size + 2 * reach).astype(np.float32)
    inner = slice(reach, reach + size)
    blurred = _blur(wide, sigma)[inner, inner]
    pad = np.maximum(missing, round(0.3 * side))
    out = _outwards(region, corner, size, pad)
    image = _blend(wide[inner, inner], blurred, 3 * out + 1)
    image = _blend(image, _median(region, pad), out)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _blend(
    image: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``share`` [H, W], held within 0 and 1, of another image or colour in an image [H, W, 3]."""
    share = np.clip(share, 0, 1)
    # numpy repeats an array of one channel over three at half the speed.
    return image + (other - image) * cv2.merge([share, share, share])


def _blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur; a wide one is done on a smaller image, which it cannot tell apart."""
    height, width = image.shape[:2]
    factor = max(1, int(sigma / 2.5))
    small = cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma / factor)
    return np.asarray(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _outwards(region: Image, corner: Array, size: int, pad: Array) -> NDArray[np.float32]:
    """Per output pixel: 0 at the region's edge, 1 where the padding ends, negative inside the region."""
    height, width = region.shape[:2]
    v, u = np.mgrid[:size, :size].astype(np.float32)
    (a, b, c), (d, e, f) = _to_source(corner, size).astype(np.float32)
    x, y = a * u + b * v + c, d * u + e * v + f
    left, top, right, bottom = (np.float32(value) for value in pad)
    across = np.maximum(-x / left, (x - (width - 1)) / right)
    down = np.maximum(-y / top, (y - (height - 1)) / bottom)
    return np.maximum(across, down)


def _median(region: Image, pad: Array) -> NDArray[np.float32]:
    """The median colour of the padded region, from a sample of its pixels."""
    step = max(1, min(region.shape[:2]) // 64)
    left, top, right, bottom = (int(value) // step for value in pad)
    few = np.ascontiguousarray(region[::step, ::step])
    padded = cv2.copyMakeBorder(few, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    return np.median(padded, axis=(0, 1)).astype(np.float32)


def _sample(region: Image, corner: Array, size: int) -> Image:
    """Average several bilinear samples per output pixel, as close to each other as the source's pixels."""
    side = float(np.linalg.norm(corner[3] - corner[0]))
    samples = int(np.clip(np.ceil(side / size), 1, _MAX_SAMPLES))
    dense = cv2.warpAffine(
        np.ascontiguousarray(region),
        _to_source(corner, size * samples),
        (size * samples, size * samples),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if samples > 1:
        dense = cv2.resize(dense, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(dense, np.uint8)

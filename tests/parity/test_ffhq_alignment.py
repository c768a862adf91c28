"""The fast warp against FFHQ's reference procedure, written anew from its description with Pillow and SciPy.

Karras et al., CVPR 2019, appendix C, as summed up in the project's method notes: shrink by an integer, crop
with a border, pad by mirroring with blur and a fade to the median, sample the quad bilinearly at 4096², and
reduce with a good filter.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from remime.faces import alignment
from tests import clips

REFERENCE = 1024
SUPERSAMPLED = 4096


def reference(pixels: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The reference procedure at 1024²."""
    image, corner = Image.fromarray(pixels), corner.astype(np.float64).copy()
    side = float(np.hypot(*(corner[3] - corner[0])))
    shrink = int(np.floor(side / REFERENCE * 0.5))
    if shrink > 1:
        size = round(image.width / shrink), round(image.height / shrink)
        image = image.resize(size, Image.Resampling.LANCZOS)
        corner, side = corner / shrink, side / shrink

    border = max(int(np.rint(0.1 * side)), 3)
    low, high = np.floor(corner.min(0)).astype(int), np.ceil(corner.max(0)).astype(int)
    box = (
        max(low[0] - border, 0),
        max(low[1] - border, 0),
        min(high[0] + border, image.width),
        min(high[1] + border, image.height),
    )
    image, corner = image.crop(tuple(int(v) for v in box)), corner - box[:2]

    low, high = np.floor(corner.min(0)).astype(int), np.ceil(corner.max(0)).astype(int)
    before = np.maximum(border - low, 0)
    after = np.maximum(high - [image.width, image.height] + border, 0)
    if max(before.max(), after.max()) > border - 4:
        least = int(np.rint(0.3 * side))
        image = padded(image, np.maximum(before, least), np.maximum(after, least), 0.02 * side)
        corner = corner + np.maximum(before, least)

    size = (SUPERSAMPLED, SUPERSAMPLED)
    image = image.transform(
        size, Image.Transform.QUAD, (corner + 0.5).flatten().tolist(), Image.Resampling.BILINEAR
    )
    return np.asarray(image.resize((REFERENCE, REFERENCE), Image.Resampling.LANCZOS))


def padded(image: Image.Image, before: np.ndarray, after: np.ndarray, sigma: float) -> Image.Image:
    wide = np.pad(
        np.asarray(image, np.float32), ((before[1], after[1]), (before[0], after[0]), (0, 0)), "reflect"
    )
    height, width = wide.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    across = np.minimum(columns / before[0], (width - 1 - columns) / after[0])
    down = np.minimum(rows / before[1], (height - 1 - rows) / after[1])
    fade = np.maximum(1 - across, 1 - down)[..., None]
    wide = wide + (gaussian_filter(wide, (sigma, sigma, 0)) - wide) * np.clip(3 * fade + 1, 0, 1)
    wide = wide + (np.median(wide, axis=(0, 1)) - wide) * np.clip(fade, 0, 1)
    return Image.fromarray(np.clip(np.rint(wide), 0, 255).astype(np.uint8))


def stills() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Real faces, as images and landmarks: of every kind of scale, and at the picture's edge."""
    still = clips.portrait()
    rolled = (1.0, 25.0, (20.0, 10.0), 300)
    large = cv2.resize(still[:300, 100:400], None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    return {
        "as it is": (still, clips.LANDMARKS),
        "at the edge": (still[70:300, 150:300], clips.LANDMARKS - [150, 70]),
        "large": (large, (clips.LANDMARKS - [100, 0] + 0.5) * 5 - 0.5),
        "rolled": (clips.view(*rolled), clips.view_landmarks(*rolled)),
        "small": (clips.view(0.5), clips.view_landmarks(0.5)),
    }


def inside(landmarks: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    hull = cv2.convexHull(alignment.apply(transform, landmarks).round().astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((size, size), np.uint8), hull, 1).astype(bool)


def compare(image: np.ndarray, landmarks: np.ndarray) -> None:
    """The mean absolute difference is below one 8-bit level (two are allowed), in frames of two sizes."""
    corner = alignment.quad(landmarks)
    expected = reference(image, corner)
    for size in (256, REFERENCE):
        aligned, transform = alignment.warp(image, corner, size)
        truth = cv2.resize(expected, (size, size), interpolation=cv2.INTER_AREA)
        difference = np.abs(aligned.astype(float) - truth)
        assert difference[inside(landmarks, transform, size)].mean() < 1.0, size
        assert difference.mean() < 1.0, size


@pytest.mark.parametrize("name", list(stills()) if clips.has_portrait() else ["as it is"])
def test_the_fast_warp_is_the_reference_procedure(name: str) -> None:
    compare(*stills()[name])


@pytest.mark.weights
@pytest.mark.parametrize("name", ["obama", "biden"])
def test_on_photographs(name: str) -> None:
    from tests import stills as photos

    image = np.array(Image.open(photos._path(name)).convert("RGB"))
    compare(image, photos._landmarks(image))


def test_a_shift_of_half_a_pixel_would_show() -> None:
    """The tolerance is tight enough to find an error in the coordinate convention."""
    image, landmarks = stills()["large"]
    corner = alignment.quad(landmarks)
    expected = cv2.resize(reference(image, corner), (256, 256), interpolation=cv2.INTER_AREA)
    step = np.linalg.norm(corner[3] - corner[0]) / 256
    shifted, transform = alignment.warp(image, corner + 0.5 * step, 256)
    difference = np.abs(shifted.astype(float) - expected)[inside(landmarks, transform, 256)]
    assert difference.mean() > 1.2

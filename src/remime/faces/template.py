"""Where the crop of every face network lies in an FFHQ-aligned frame, and how it is cut out.

The FFHQ quad fixes the eyes and the mouth of any face to almost the same place of the square frame: over
237 images of the embedded FFHQ generator (512², truncation 0.7 and 1.0, 68 landmarks by dlib) the standard
deviation is at most 0.006 of the frame's side for the eyes and 0.017 for the corners of the mouth. So the
crop that a network expects can be a fixed upright box, which needs no landmarks, costs no detection, and
passes gradients. Where landmarks are at hand, the crop can follow them instead.

Frame units: (0, 0) is the frame's upper left corner and (1, 1) its lower right one, x right, y down; a pixel
centre at integer coordinate p of an R² frame lies at (p + 0.5) / R.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from remime.errors import shape_error

# Mean landmarks of those 237 images in frame units, made symmetric about x = 0.5 (which moved none by more
# than 0.003). The points of the other half follow by mirroring.
_LEFT_AND_MIDDLE: dict[int, tuple[float, float]] = {
    0: (0.2181, 0.4828),
    1: (0.2203, 0.5578),
    2: (0.2278, 0.6321),
    3: (0.2419, 0.7054),
    4: (0.2697, 0.7734),
    5: (0.3141, 0.8325),
    6: (0.3698, 0.8818),
    7: (0.4312, 0.9219),
    8: (0.5000, 0.9342),
    17: (0.2723, 0.4317),
    18: (0.3065, 0.3974),
    19: (0.3567, 0.3863),
    20: (0.4087, 0.3928),
    21: (0.4569, 0.4125),
    27: (0.5000, 0.4669),
    28: (0.5000, 0.5153),
    29: (0.5000, 0.5630),
    30: (0.5000, 0.6127),
    31: (0.4414, 0.6448),
    32: (0.4696, 0.6552),
    33: (0.5000, 0.6644),
    36: (0.3303, 0.4765),
    37: (0.3606, 0.4593),
    38: (0.3957, 0.4597),
    39: (0.4280, 0.4824),
    40: (0.3941, 0.4870),
    41: (0.3591, 0.4868),
    48: (0.3847, 0.7304),
    49: (0.4271, 0.7148),
    50: (0.4697, 0.7068),
    51: (0.5000, 0.7138),
    57: (0.5000, 0.7965),
    58: (0.4672, 0.7929),
    59: (0.4257, 0.7733),
    60: (0.4018, 0.7331),
    61: (0.4694, 0.7292),
    62: (0.5000, 0.7324),
    66: (0.5000, 0.7607),
    67: (0.4687, 0.7569),
}
_MIRRORED: dict[int, int] = {
    **{16 - i: i for i in range(8)},
    **{26 - i: 17 + i for i in range(5)},
    35: 31,
    34: 32,
    **dict(zip(range(42, 48), (39, 38, 37, 36, 41, 40), strict=True)),
    **dict(zip((52, 53, 54, 55, 56, 63, 64, 65), (50, 49, 48, 59, 58, 61, 60, 67), strict=True)),
}


def _mean_landmarks() -> Tensor:
    points = dict(_LEFT_AND_MIDDLE)
    points |= {right: (1 - points[left][0], points[left][1]) for right, left in _MIRRORED.items()}
    return torch.tensor([points[i] for i in range(68)], dtype=torch.float64)


MEAN_LANDMARKS = _mean_landmarks()  # [68, 2], frame units


@dataclass(frozen=True)
class Box:
    """An upright rectangle in frame units; it may reach beyond the frame, whose border is then repeated."""

    left: float
    top: float
    right: float
    bottom: float


# Output pixels that one product makes. Few source pixels matter to a block, so most zeros are left out.
_BLOCK = 32


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept here may serve a training step later
def _resampling(
    low: float, high: float, source: int, size: int, device: torch.device
) -> list[tuple[int, int, Tensor]]:
    """Antialiased bilinear resampling of [low, high] (frame units) of ``source`` pixels to ``size`` pixels.

    Returns:
        For each block of n output pixels in turn, the first and the end of the source pixels that matter to
        it, and the weights [n, end - first].
    """
    step = (high - low) * source / size
    centres = low * source + (torch.arange(size, dtype=torch.float64) + 0.5) * step
    # A triangle as wide as an output pixel where the image shrinks: every source pixel then counts.
    reach = max(step, 1.0)
    positions = torch.arange(source, dtype=torch.float64) + 0.5
    distances = positions - centres.clamp(0.5, source - 0.5)[:, None]
    weights = (1 - distances.abs() / reach).clamp_min(0)
    weights /= weights.sum(1, keepdim=True)
    blocks = []
    for block in weights.split(_BLOCK):
        used = block.any(0).nonzero().flatten()
        first, end = int(used[0]), int(used[-1]) + 1
        blocks.append((first, end, block[:, first:end].float().to(device)))
    return blocks


def crop(images: Tensor, box: Box, size: int) -> Tensor:
    """Cut a fixed box out of square frames with antialiasing; differentiable.

    Args:
        images: [B, C, R, R], any R.
        box: where, in frame units.
        size: side of the result in pixels.

    Returns:
        [B, C, size, size], float32.
    """
    _check_square(images)
    side = images.shape[-1]
    across = _resampling(box.left, box.right, side, size, images.device)
    down = _resampling(box.top, box.bottom, side, size, images.device)
    top, bottom = down[0][0], max(end for _, end, _ in down)
    # Half precision would quantise the image.
    with torch.autocast(images.device.type, enabled=False):
        rows = images[..., top:bottom, :].float()
        rows = torch.cat([rows[..., first:end] @ weights.T for first, end, weights in across], -1)
        result = torch.cat(
            [weights @ rows[..., first - top : end - top, :] for first, end, weights in down], -2
        )
    # Convolutions of small networks run a quarter faster on a CPU in this layout.
    return result.contiguous(memory_format=torch.channels_last)


def warp(images: Tensor, transforms: Tensor, size: int) -> Tensor:
    """Cut a similarity-transformed square out of every frame with antialiasing; differentiable in the images.

    Args:
        images: [B, C, R, R].
        transforms: [B, 2, 3], from pixel coordinates of the crop to pixel coordinates of the frame.
        size: side of the result in pixels.

    Returns:
        [B, C, size, size], float32. Pixels beyond the frame repeat its border.
    """
    _check_square(images)
    side = images.shape[-1]
    scale = float(transforms[:, :, 0].detach().norm(dim=1).max())
    # Several samples per output pixel, averaged; bounded, so that absurd landmarks cost no more than others.
    samples = max(1, min(-int(-scale // 1), -(-2 * side // size)))
    with torch.autocast(images.device.type, enabled=False):
        transforms = transforms.to(images.device, torch.float32)
        ticks = (torch.arange(size * samples, device=images.device) + 0.5) / samples - 0.5
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], -1)  # [n, n, 3]
        grid = torch.einsum("bij,yxj->byxi", transforms, points)
        grid = (2 * grid + 1) / side - 1
        dense = F.grid_sample(
            images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        result = F.avg_pool2d(dense, samples) if samples > 1 else dense
    return result.contiguous(memory_format=torch.channels_last)


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """The least-squares rotation, scale and shift from source points to target points.

    Args:
        source: [..., K, 2].
        target: [..., K, 2].

    Returns:
        [..., 2, 3], applied to column vectors (x, y, 1); the squared error is measured at the target.
    """
    from_mean, to_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    p, q = source - from_mean, target - to_mean
    power = p.square().sum((-2, -1))
    cosine = (p * q).sum((-2, -1)) / power
    sine = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(-1) / power
    matrix = torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)
    shift = to_mean.squeeze(-2) - (matrix @ from_mean.squeeze(-2)[..., None]).squeeze(-1)
    return torch.cat([matrix, shift[..., None]], -1)


def inverse(transform: Tensor) -> Tensor:
    """The inverse of affine transforms [..., 2, 3]."""
    matrix = torch.linalg.inv(transform[..., :2])
    return torch.cat([matrix, -matrix @ transform[..., 2:]], -1)


@dataclass(frozen=True)
class Template:
    """The crop that a network was trained with.

    Args:
        size: side of the crop in pixels.
        box: where it lies in an aligned frame when no landmarks are given.
        place: landmarks [B, 68, 2] to transforms [B, 2, 3] from crop pixels to the landmarks' pixels; None
            for networks whose crop does not follow landmarks.
    """

    size: int
    box: Box
    place: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Cut out the crops.

        Args:
            images: [B, C, R, R] aligned frames.
            landmarks: [B, 68, 2] in pixels of these frames (pixel centres at integers), for the exact
                alignment of each face instead of the fixed box.

        Returns:
            [B, C, size, size].
        """
        if landmarks is None or self.place is None:
            return crop(images, self.box, self.size)
        if landmarks.shape != (images.shape[0], 68, 2):
            raise shape_error("landmarks", f"[{images.shape[0]}, 68, 2]", landmarks.shape)
        return warp(images, self.place(landmarks.to(images.device, torch.float64)), self.size)


def _check_square(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[-1] != images.shape[-2]:
        raise shape_error("images", "[B, C, R, R] (square aligned frames)", images.shape)


# The five points of the 112² crop that ArcFace (Deng et al., CVPR 2019) and its successors were trained with:
# eye centres, tip of the nose, corners of the mouth, in pixels.
_ARCFACE_POINTS = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=torch.float64,
)


def five_points(landmarks: Tensor) -> Tensor:
    """Eye centres, tip of the nose and corners of the mouth [..., 5, 2] of 68 landmarks [..., 68, 2]."""
    eyes = [landmarks[..., 36:42, :].mean(-2), landmarks[..., 42:48, :].mean(-2)]
    return torch.stack([*eyes, landmarks[..., 30, :], landmarks[..., 48, :], landmarks[..., 54, :]], -2)


def _place_arcface(landmarks: Tensor) -> Tensor:
    return inverse(similarity(five_points(landmarks), _ARCFACE_POINTS.to(landmarks)))


# The points that dlib aligns a 150² chip (padding 0.25) by, in pixels, pixel centres at integers. They are
# measured: the chip of dlib.get_face_chip_details depends linearly on the landmarks, and one landmark
# at a time gives them. dlib counts from the chip's edge; half a pixel is taken off here.
_CHIP_POINTS: dict[int, tuple[float, float]] = {
    27: (73.513, 44.835),
    28: (73.513, 55.201),
    29: (73.513, 65.481),
    30: (73.513, 76.063),
    31: (61.188, 83.233),
    32: (67.104, 85.435),
    33: (73.513, 87.311),
    34: (79.922, 85.435),
    35: (85.837, 83.233),
    36: (36.674, 46.142),
    37: (43.212, 42.376),
    38: (51.082, 42.485),
    39: (57.961, 47.673),
    40: (50.592, 49.010),
    41: (42.774, 48.908),
    42: (89.065, 47.673),
    43: (95.943, 42.485),
    44: (103.813, 42.376),
    45: (110.352, 46.142),
    46: (104.251, 48.908),
    47: (96.434, 49.010),
    48: (49.915, 102.523),
    49: (58.599, 99.041),
    50: (67.386, 97.239),
    51: (73.513, 98.758),
    52: (79.639, 97.239),
    53: (88.427, 99.041),
    54: (97.110, 102.523),
    60: (53.538, 102.979),
    61: (67.310, 102.375),
    62: (73.513, 103.034),
    63: (79.716, 102.375),
    64: (93.487, 102.979),
}


def _place_chip(landmarks: Tensor) -> Tensor:
    points = torch.tensor(list(_CHIP_POINTS.values()), dtype=torch.float64).to(landmarks)
    return similarity(points, landmarks[..., list(_CHIP_POINTS), :])


def _upright(place: Callable[[Tensor], Tensor], size: int) -> Box:
    """The box that a placement gives the mean face; its rotation, under half a degree, is left out."""
    # In a frame of side 1, pixel coordinate p lies at p + 0.5.
    transform = place(MEAN_LANDMARKS[None] - 0.5)[0]
    centre = (transform @ torch.tensor([(size - 1) / 2, (size - 1) / 2, 1.0], dtype=torch.float64)) + 0.5
    half = float(transform[:, 0].norm()) * size / 2
    x, y = centre.tolist()
    return Box(x - half, y - half, x + half, y + half)


ARCFACE = Template(112, _upright(_place_arcface, 112), _place_arcface)
DLIB_CHIP = Template(150, _upright(_place_chip, 150), _place_chip)

# MediaPipe cuts out a square of 1.5 times the longer side of the mesh's bounding box. Started from the middle
# of the frame and iterated over 160 of those images until it stood still, the mean square is this one; it
# reaches below the frame.
MESH = Template(256, Box(0.003, 0.102, 0.997, 1.096))

# No source states HopenetLite's crop. Of squares of 1.0, 1.2, 1.4 and 1.6 times the mean box of dlib's
# detector at three heights, this one (1.2) agrees best with the rotation of the mesh over 80 images of the
# generator: correlation .994 (yaw) and .93 (pitch) with slopes of 1.02 and 0.99.
HOPENET_LITE = Template(224, Box(0.136, 0.198, 0.864, 0.926))

# Hopenet's own script widens the detector's box to twice its size and clips it to the image: about all of an
# aligned frame.
HOPENET = Template(224, Box(0.0, 0.0, 1.0, 1.0))

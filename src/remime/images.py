"""Images as the networks see them, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from remime.errors import shape_error


def to_tensor(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], device: str | torch.device = "cpu"
) -> Tensor:
    """uint8 [..., H, W, 3], or a list of images of one size, to float32 [..., 3, H, W] in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return tensor.movedim(-1, -3).to(torch.float32, copy=True).div_(127.5).sub_(1)


def to_image(tensor: Tensor) -> NDArray[np.uint8]:
    """Float [..., 3, H, W] in [-1, 1] (clamped) to uint8 [..., H, W, 3]."""
    scaled = tensor.detach().float().clamp(-1, 1).add_(1).mul_(127.5).round_().byte()
    return np.ascontiguousarray(scaled.movedim(-3, -1).cpu().numpy())


def fit(images: Tensor, size: int) -> Tensor:
    """Square images [B, C, H, H] at size²: box-averaged when larger, bilinear when smaller."""
    if images.ndim != 4 or images.shape[2] != images.shape[3]:
        raise shape_error("images", "[B, C, H, H]", images.shape)
    if images.shape[2] == size:
        return images
    if images.shape[2] > size:
        return F.adaptive_avg_pool2d(images, size)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)

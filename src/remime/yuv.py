"""Frames as H.264 holds them: BT.709, studio range, colour at half the resolution (4:2:0).

Made where the frames are, a video needs neither interleaved RGB nor a converter in the encoder's process.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remime.errors import shape_error

# Rec. ITU-R BT.709-6, 3.2 and 3.5: luma from red, green and blue, and 8-bit levels.
RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
_LUMA, _CHROMA = 219.0, 224.0
_BLACK, _NEUTRAL = 16.0, 128.0


def from_tensor(images: Tensor) -> NDArray[np.uint8]:
    """The planes of frames, rounded to the nearest level.

    Colour samples lie in the middle of four pixels (Rec. ITU-T H.264, E.2.1, ``chroma_sample_loc_type`` 1),
    where ffmpeg's converter puts and looks for them, too.

    Args:
        images: RGB [B, 3, H, W] in [-1, 1] (clamped), H and W even.

    Returns:
        [B, 3 H / 2, W]: below luma both chroma planes [H / 2, W / 2], Cb first, as ``yuv420p`` has them.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 2 or images.shape[3] % 2:
        raise shape_error("images", "[B, 3, H, W] with even H and W", images.shape)
    rgb = images.detach().float().clamp(-1, 1)
    luma = _luma(rgb)
    small = _halved(rgb)
    grey = _luma(small)
    # Half of the luma's range, because the values span 2; the half level rounds.
    planes = [luma.mul_(_LUMA / 2).add_(_BLACK + _LUMA / 2 + 0.5)]
    for channel, weight in ((2, BLUE), (0, RED)):
        difference = small[:, channel].sub(grey).div_(2 * (1 - weight))
        planes.append(difference.mul_(_CHROMA / 2).add_(_NEUTRAL + 0.5))
    height, width = images.shape[2:]
    flat = torch.cat([plane.byte().flatten(1) for plane in planes], 1)
    return flat.reshape(-1, height * 3 // 2, width).cpu().numpy()


def _luma(rgb: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, H, W]."""
    return (rgb[:, 0] * RED).add_(rgb[:, 1], alpha=GREEN).add_(rgb[:, 2], alpha=BLUE)


def _halved(rgb: Tensor) -> Tensor:
    """[B, C, H, W] to [B, C, H / 2, W / 2]: the mean of 2 x 2 pixels."""
    # Rows first: they lie together in memory, and pooling of single columns is not vectorised.
    rows = rgb[:, :, 0::2] + rgb[:, :, 1::2]
    return rows[..., 0::2].add(rows[..., 1::2]).div_(4)

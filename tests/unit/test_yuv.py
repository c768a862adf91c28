"""Planes of a video's frames, beside ffmpeg's own conversion."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from hypothesis import given
from hypothesis import strategies as st

from remime import yuv
from remime.images import to_tensor


def planes(frame: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma [H, W] and both chroma planes [H / 2, W / 2] of [3 H / 2, W]."""
    width = frame.shape[1]
    chroma = frame[height:].reshape(2, height // 2, width // 2).astype(int)
    return frame[:height].astype(int), chroma[0], chroma[1]


def ffmpeg(image: np.ndarray) -> np.ndarray:
    """[3 H / 2, W] of uint8 RGB [H, W, 3], by swscale with its most exact settings."""
    frame = av.VideoFrame.from_ndarray(image, "rgb24")
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
    return frame.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=exact,
    ).to_ndarray()


@pytest.mark.parametrize(
    ("rgb", "levels"),
    [
        # Rec. ITU-R BT.709: black, white and the corners of the cube, by hand.
        ((0, 0, 0), (16, 128, 128)),
        ((255, 255, 255), (235, 128, 128)),
        ((255, 0, 0), (63, 102, 240)),
        ((0, 255, 0), (173, 42, 26)),
        ((0, 0, 255), (32, 240, 118)),
    ],
)
def test_levels_of_bt709(rgb, levels):
    made = yuv.from_tensor(to_tensor(np.full((1, 4, 6, 3), rgb, np.uint8)))
    assert made.shape == (1, 6, 6)
    assert [np.unique(plane).tolist() for plane in planes(made[0], 4)] == [[level] for level in levels]


def test_beside_swscale():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :96] / 10
    smooth = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1) * 100 + 127 + rng.normal(0, 2, (64, 96, 1))
    image = smooth.clip(0, 255).round().astype(np.uint8)
    ours, theirs = yuv.from_tensor(to_tensor(image[None]))[0], ffmpeg(image)
    for plane, other in zip(planes(ours, 64), planes(theirs, 64), strict=True):
        # Ours are rounded once; its fixed-point sums are off by about a level.
        assert np.abs(plane - other).max() <= 2
        assert np.abs(plane - other).mean() < 0.3


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**31))
def test_any_even_size(rows, columns, batch, seed):
    torch.manual_seed(seed)
    images = torch.randn(batch, 3, 2 * rows, 2 * columns) * 2
    made = yuv.from_tensor(images)
    assert made.shape == (batch, 3 * rows, 2 * columns)
    assert made.dtype == np.uint8
    for frame in made:
        luma, *chroma = planes(frame, 2 * rows)
        assert 16 <= luma.min() <= luma.max() <= 235
        assert all(16 <= plane.min() <= plane.max() <= 240 for plane in chroma)


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 3, 4, 5), (1, 1, 4, 4), (3, 4, 4)])
def test_odd_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"images: .*even H and W"):
        yuv.from_tensor(torch.zeros(shape))

"""dlib's identity network (King 2017): 29 convolutions, from a 150×150 face chip to 128 numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import shape_error

CHIP = 150
"""Side of the input in pixels; dlib cuts it around the face with a margin of a quarter."""

STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Channels, blocks, and whether the first block halves the size."""


class AffineConvolution(nn.Module):
    """A convolution and the frozen batch normalisation behind it.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel.
        stride: step of the kernel.
        padding: zeros around the input.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] → [B, outputs, H', W']."""
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        return y * self.scale[:, None, None] + self.shift[:, None, None]


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity, or beside an average pooling where the size is halved.

    Args:
        inputs: channels in.
        outputs: channels out; more than ``inputs`` are met by zeros on the identity's side.
        halve: whether width and height are halved.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        # dlib pads a convolution only where its stride is one, so the two sides differ in size when halved.
        self.first = AffineConvolution(inputs, outputs, 3, 2 if halve else 1, 0 if halve else 1)
        self.second = AffineConvolution(outputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] → [B, outputs, H', W']."""
        y = self.second(F.relu(self.first(x)))
        if self.halve:
            x = F.avg_pool2d(x, 2, 2)
        size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]
        return F.relu(_grow(x, size) + _grow(y, size))


def _grow(x: Tensor, size: list[int]) -> Tensor:
    """Zeros behind the channels, below and on the right, as dlib's ``add_prev`` sees missing values."""
    channels, height, width = (wanted - have for wanted, have in zip(size, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels)) if channels or height or width else x


class DlibResNet(nn.Module):
    """The network of dlib's ``face_recognition_model_v1``, differentiable.

    It is in evaluation mode and its parameters are frozen. Two chips show one person when their outputs are
    nearer than about 0.6 (Euclidean); the outputs' length is near one but not normalised.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.stem = AffineConvolution(3, STAGES[0][0], 7, 2, 0)
        blocks, channels = [], STAGES[0][0]
        for outputs, count, halve in STAGES:
            for i in range(count):
                blocks.append(ResidualBlock(channels, outputs, halve and i == 0))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Parameter(torch.zeros(128, channels))
        self.eval().requires_grad_(False)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The network with the converted weights ``dlib-resnet-id``."""
        network = cls()
        network.load_state_dict(dict(tensors))
        return network

    def forward(self, chips: Tensor) -> Tensor:
        """Describe face chips.

        Args:
            chips: [B, 3, 150, 150] RGB in [-1, 1].

        Returns:
            [B, 128].
        """
        if chips.ndim != 4 or chips.shape[1:] != (3, CHIP, CHIP):
            raise shape_error("chips", f"[B, 3, {CHIP}, {CHIP}]", chips.shape)
        x = ((chips + 1) * 127.5 - self.mean[:, None, None]) / 256
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        return self.blocks(x).mean((2, 3)) @ self.projection.T

"""The pSp encoders (Richardson et al. 2021) and the single-scale one of ReStyle (Alaluf et al. 2021).

Parameter names and shapes are those of the published checkpoints (there behind the prefix `encoder.`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.encoders import irse
from remime.generators.stylegan2 import LATENT, EqualLinear

COARSE, MIDDLE = 3, 7  # first rows of W+ that the middle and the fine pyramid level drive
SPATIAL = (16, 32, 64)  # feature sizes of the coarse, middle and fine level at 256² input


class Map2Style(nn.Module):
    """Stride-2 convolutions down to 1², then an equalised linear layer: [B, 512, s, s] → [B, 512]."""

    def __init__(self, spatial: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(spatial))):
            layers += [nn.Conv2d(LATENT, LATENT, 3, stride=2, padding=1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(LATENT, LATENT)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


def level_of(row: int) -> int:
    """Pyramid level that drives a row of W+: 0 coarse, 1 middle, 2 fine."""
    return 0 if row < COARSE else 1 if row < MIDDLE else 2


def pyramid_heads(rows: int) -> nn.ModuleList:
    """One map2style head for each row, as deep as its level needs."""
    return nn.ModuleList(Map2Style(SPATIAL[level_of(row)]) for row in range(rows))


def upsample_add(x: Tensor, y: Tensor) -> Tensor:
    """Resize x to y's size (bilinear, corners aligned) and add y."""
    return F.interpolate(x, size=y.shape[2:], mode="bilinear", align_corners=True) + y


class GradualStyleEncoder(nn.Module):
    """pSp's feature-pyramid encoder: [B, channels, 256, 256] in [-1, 1] → W+ offsets [B, rows, 512].

    The mean latent is added by the caller (`remime.encoders.restyle`).
    """

    def __init__(self, rows: int, channels: int = 3):
        super().__init__()
        self.rows, self.channels = rows, channels
        self.input_layer = irse.input_layer(channels)
        self.body = irse.body()
        self.styles = pyramid_heads(rows)
        self.latlayer1 = nn.Conv2d(256, 512, 1)
        self.latlayer2 = nn.Conv2d(128, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        c1, c2, c3 = irse.pyramid(self.input_layer(x), self.body)
        p2 = upsample_add(c3, self.latlayer1(c2))
        levels = (c3, p2, upsample_add(p2, self.latlayer2(c1)))
        return torch.stack([head(levels[level_of(row)]) for row, head in enumerate(self.styles)], 1)


class BackboneEncoder(nn.Module):
    """ReStyle's encoder: every head reads the last 16² features; [B, channels, 256, 256] → [B, rows, 512]."""

    def __init__(self, rows: int, channels: int = 6):
        super().__init__()
        self.rows, self.channels = rows, channels
        self.input_layer = irse.input_layer(channels)
        self.body = irse.body()
        self.styles = nn.ModuleList(Map2Style(SPATIAL[0]) for _ in range(rows))

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.input_layer(x))
        return torch.stack([head(x) for head in self.styles], 1)

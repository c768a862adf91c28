"""The e4e encoders (Tov et al. 2021), their progressive stages and their regularisation.

All rows of W+ are one w₀ plus an offset Δᵢ each. Stage 0 trains w₀ alone; stage i adds the heads up to Δᵢ.
Parameter names and shapes are those of the published checkpoints (there behind the prefix `encoder.`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from remime.encoders import irse
from remime.encoders.psp import SPATIAL, Map2Style, level_of, pyramid_heads, upsample_add


def stage_at(step: int, rows: int, start: int = 20_000, every: int = 2_000) -> int:
    """The progressive stage at a training step: 0 before `start`, then i from start + every·(i - 1)."""
    return 0 if step < start else min((step - start) // every + 1, rows - 1)


def delta_regularisation(w_plus: Tensor, stage: int) -> Tensor:
    """Σᵢ‖Δᵢ‖₂ over the active offsets of W+ [B, rows, 512], mean over the batch (Tov et al. 2021, Eq. 4).

    Δᵢ is the difference to row 0, so a mean latent with equal rows may be included.
    """
    deltas = w_plus[:, 1 : stage + 1] - w_plus[:, :1]
    return torch.linalg.vector_norm(deltas, dim=2).sum(1).mean()


class ProgressiveBackboneEncoder(nn.Module):
    """ReStyle's e4e encoder: heads on the last 16² features; [B, channels, 256, 256] → [B, rows, 512].

    Attributes:
        stage: heads 1 … stage are active; rows - 1 (all) unless training sets it from `stage_at`.
    """

    def __init__(self, rows: int, channels: int = 6):
        super().__init__()
        self.rows, self.channels, self.stage = rows, channels, rows - 1
        self.input_layer = irse.input_layer(channels)
        self.body = irse.body()
        self.styles = nn.ModuleList(Map2Style(SPATIAL[0]) for _ in range(rows))

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(self.input_layer(x))
        return _offsets(self.styles, self.stage, lambda row: features)


class Encoder4Editing(nn.Module):
    """The feature-pyramid e4e encoder: [B, channels, 256, 256] in [-1, 1] → W+ offsets [B, rows, 512].

    Attributes:
        stage: heads 1 … stage are active; rows - 1 (all) unless training sets it from `stage_at`.
    """

    def __init__(self, rows: int, channels: int = 3):
        super().__init__()
        self.rows, self.channels, self.stage = rows, channels, rows - 1
        self.input_layer = irse.input_layer(channels)
        self.body = irse.body()
        self.styles = pyramid_heads(rows)
        self.latlayer1 = nn.Conv2d(256, 512, 1)
        self.latlayer2 = nn.Conv2d(128, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        c1, c2, c3 = irse.pyramid(self.input_layer(x), self.body)
        levels = [c3]
        # The lateral convolutions must not take part before their heads do: no gradient, no decay.
        if level_of(self.stage) >= 1:
            levels.append(upsample_add(c3, self.latlayer1(c2)))
        if level_of(self.stage) >= 2:
            levels.append(upsample_add(levels[1], self.latlayer2(c1)))
        return _offsets(self.styles, self.stage, lambda row: levels[level_of(row)])


def _offsets(heads: nn.ModuleList, stage: int, features: Callable[[int], Tensor]) -> Tensor:
    """w₀ in every row plus Δᵢ of the active heads."""
    base = heads[0](features(0))
    inactive = torch.zeros_like(base)
    deltas = [heads[i](features(i)) if 0 < i <= stage else inactive for i in range(len(heads))]
    return base[:, None] + torch.stack(deltas, 1)

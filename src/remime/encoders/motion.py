"""P1's motion encoder E_m (Jahoda & Čech, Sec. 3.1): an IR-SE50 down to one vector, then all rows of W+.

Parameter names and shapes are those of the published checkpoint (there behind the prefix `encoder.`).
"""

from __future__ import annotations

from torch import Tensor, nn

from remime.encoders import irse
from remime.generators.stylegan2 import LATENT, EqualLinear
from remime.images import fit

SIZE = 256  # height and width of the input


class MotionEncoder(nn.Module):
    """IR-SE50 → BN → 7×7 average → linear 512 → EqualLinear(512 → rows·512).

    Args:
        rows: rows of W+.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.input_layer = irse.input_layer(3)
        self.body = irse.body()
        self.output_layer_2 = nn.Sequential(
            nn.BatchNorm2d(512), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 7 * 7, LATENT)
        )
        self.linear = EqualLinear(LATENT, rows * LATENT)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B, 3, R, R] in [-1, 1] to motion in W+ [B, rows, 512]."""
        x = self.output_layer_2(self.body(self.input_layer(fit(frames, SIZE))))
        return self.linear(x).unflatten(1, (self.rows, LATENT))

"""The ``small`` encoders: ReStyle's iteration at a cost that a laptop can train.

Where the published encoders start from an ArcFace IR-SE50, these start from LPIPS' ImageNet AlexNet, frozen.
Image and current reconstruction pass through it separately, so its features of the image are computed once
per inversion and can be cached for training; only the head learns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import InputError, shape_error
from remime.perceptual import LPIPS

GRID = 8  # height and width of the pooled features
HEAD = 256  # channels of the head's convolutions
TAPS = (1, 2, 4)  # AlexNet's convolutions that are read: 192, 384 and 256 channels
CHANNELS = 192 + 384 + 256
WIDTH = 512


class Trunk(nn.Module):
    """Frozen AlexNet features, pooled and stacked: images [B,3,H,W] in [-1,1] to [B,832,8,8]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = LPIPS("alex")
        self.net.heads = nn.ParameterList()  # only the trunk is used

    def forward(self, images: Tensor) -> Tensor:
        levels = self.net.taps(images)
        return torch.cat([F.adaptive_avg_pool2d(levels[i], GRID) for i in TAPS], 1)


class SmallEncoder(nn.Module):
    """Offsets of W+ from an image and its current reconstruction.

    Args:
        rows: rows of W+.
        width: channels of the head's convolutions.
        spread: typical size of an offset; scales the output so that learning starts at the latents' scale.
        rank: of the last layer, which then has two factors; 0 for a full one.
    """

    def __init__(self, rows: int, width: int = HEAD, spread: float = 0.5, rank: int = 0) -> None:
        super().__init__()
        self.rows, self.spread = rows, spread
        self.trunk = Trunk()
        self.reduce = nn.Conv2d(2 * CHANNELS, width, 1)
        self.local = nn.Conv2d(width, width, 3, padding=1)
        self.pool = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.summary = nn.Linear(width * (GRID // 2) ** 2, 2 * WIDTH)
        last = nn.Linear(rank or 2 * WIDTH, WIDTH * rows)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        self.heads = nn.Sequential(nn.Linear(2 * WIDTH, rank, bias=False), last) if rank else last

    def train(self, mode: bool = True) -> SmallEncoder:
        super().train(mode)
        self.trunk.eval()
        return self

    def head(self, image: Tensor, estimate: Tensor) -> Tensor:
        """Offsets [B,rows,512] from features [B,832,8,8] of an image and of its reconstruction."""
        x = torch.cat([image, image - estimate], 1)
        x = F.leaky_relu(self.reduce(x), 0.2)
        x = x + F.leaky_relu(self.local(x), 0.2)
        x = F.leaky_relu(self.pool(x), 0.2).flatten(1)
        x = F.leaky_relu(self.summary(x), 0.2)
        return self.spread * self.heads(x).unflatten(1, (self.rows, WIDTH))

    def prepare(self, images: Tensor) -> Tensor:
        """What the head needs of images [B,3,H,W], whatever their reconstructions: [B,832,8,8]."""
        return self.trunk(images)

    def refine(self, prepared: Tensor, estimate: Tensor) -> Tensor:
        """Offsets [B,rows,512] from ``prepare``'s result and reconstructions [B,3,H,W]."""
        return self.head(prepared, self.trunk(estimate))

    def forward(self, x: Tensor) -> Tensor:
        """Image ⊕ reconstruction [B,6,H,W] in [-1,1] to offsets [B,rows,512]."""
        if x.ndim != 4 or x.shape[1] != 6:
            raise shape_error("image and reconstruction", "[B, 6, H, W]", x.shape)
        features = self.trunk(x.unflatten(1, (2, 3)).transpose(0, 1).flatten(0, 1))
        return self.head(*features.chunk(2))


class SmallProgressiveEncoder(SmallEncoder):
    """e4e's form: one offset for all rows plus Δᵢ for rows 1 … ``stage`` (all, unless training sets it)."""

    def __init__(self, rows: int, width: int = HEAD, spread: float = 0.5, rank: int = 0) -> None:
        super().__init__(rows, width, spread, rank)
        self.stage = rows - 1

    def head(self, image: Tensor, estimate: Tensor) -> Tensor:
        offsets = super().head(image, estimate)
        active = (torch.arange(self.rows, device=offsets.device) <= self.stage)[:, None]
        deltas = torch.where(active, offsets, 0.0)
        return torch.cat([offsets[:, :1], offsets[:, :1] + deltas[:, 1:]], 1)


def factorise(tensors: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """A trained encoder's tensors with its last layer at a lower rank (truncated SVD), for a smaller file.

    Args:
        tensors: keys of ``SmallEncoder`` behind the prefix ``encoder.``, with a full last layer.
        rank: kept singular values.
    """
    out = dict(tensors)
    left, values, right = torch.linalg.svd(out.pop("encoder.heads.weight"), full_matrices=False)
    root = values[:rank].sqrt()
    out["encoder.heads.0.weight"] = root[:, None] * right[:rank]
    out["encoder.heads.1.weight"] = left[:, :rank] * root
    out["encoder.heads.1.bias"] = out.pop("encoder.heads.bias")
    return out


def build(kind: str, rows: int, **options: float) -> SmallEncoder:
    """The small encoder of a kind: ``restyle-psp`` or ``restyle-e4e``."""
    kinds = {"restyle-psp": SmallEncoder, "restyle-e4e": SmallProgressiveEncoder}
    if kind not in kinds:
        raise InputError("encoder kind", f"{kind!r} has no preset 'small'", f"allowed: {', '.join(kinds)}")
    return kinds[kind](rows, **options)  # type: ignore[arg-type]

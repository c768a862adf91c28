"""LPIPS: the perceptual distance between images (Zhang et al., CVPR 2018), version 0.1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import InputError, shape_error

# The z-score of the ImageNet trunks, expressed for images in [-1, 1].
_MEAN = (-0.030, -0.088, -0.188)
_STD = (0.458, 0.448, 0.450)


@dataclass(frozen=True)
class _Layer:
    """One convolution with ReLU, the pooling (kernel, stride) before it, and whether it is compared."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    pool: tuple[int, int] | None = None
    tap: bool = False

    @property
    def padding(self) -> int:
        # AlexNet's first convolution is padded by 2 instead of 5; all others keep the size.
        return 2 if self.kernel == 11 else self.kernel // 2


def _vgg() -> list[_Layer]:
    layers, inputs = [], 3
    for block, (outputs, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for i in range(count):
            pool = (2, 2) if block and i == 0 else None
            layers.append(_Layer(inputs, outputs, 3, pool=pool, tap=i == count - 1))
            inputs = outputs
    return layers


_NETS: dict[str, list[_Layer]] = {
    "alex": [
        _Layer(3, 64, 11, stride=4, tap=True),
        _Layer(64, 192, 5, pool=(3, 2), tap=True),
        _Layer(192, 384, 3, pool=(3, 2), tap=True),
        _Layer(384, 256, 3, tap=True),
        _Layer(256, 256, 3, tap=True),
    ],
    "vgg": _vgg(),
}


class LPIPS(nn.Module):
    """The distance of unit-length deep features, weighted by learned heads; frozen, differentiable.

    Args:
        net: the trunk, ``alex`` or ``vgg``.
    """

    def __init__(self, net: str = "alex") -> None:
        super().__init__()
        if net not in _NETS:
            raise InputError("lpips", f"unknown trunk {net!r}", f"allowed: {', '.join(_NETS)}")
        self.net = net
        self._layers = _NETS[net]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n.inputs, n.outputs, n.kernel, n.stride, n.padding) for n in self._layers
        )
        self.heads = nn.ParameterList(torch.zeros(1, n.outputs, 1, 1) for n in self._layers if n.tap)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit-length features of the five compared layers, each [B, C, h, w].

        Those of an image that is compared several times can be computed once.

        Args:
            images: [B, 3, H, W] in [-1, 1], H and W at least 32.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise shape_error("images", "[B, 3, H, W]", images.shape)
        unit = []
        for x in self.taps(images):
            # Half precision cannot hold the squares. The constant stands inside the root, where it also
            # keeps the gradient finite at a pixel at which no channel is active.
            wide = x.float()
            unit.append(wide * (wide.square().sum(1, keepdim=True) + 1e-20).rsqrt())
        return unit

    def taps(self, images: Tensor) -> list[Tensor]:
        """The activations [B, C, h, w] of the five compared layers, as the trunk gives them."""
        x = (images - self.mean) / self.std
        taps = []
        for layer, convolution in zip(self._layers, self.convolutions, strict=True):
            if layer.pool is not None:
                x = F.max_pool2d(x, *layer.pool)
            x = convolution(x).relu()
            if layer.tap:
                taps.append(x)
        return taps

    def distance(self, a: list[Tensor], b: list[Tensor], mask: Tensor | None = None) -> Tensor:
        """The distance [B] between two results of ``features``.

        Args:
            a, b: the features.
            mask: [B, H, W] what counts of the images, 0…1. Every layer's mean is then weighted by how much of
                the mask lies in each cell of its grid. Features still see what is beside the mask.
        """
        maps = [((p - q).square() * head).sum(1) for p, q, head in zip(a, b, self.heads, strict=True)]
        if mask is None:
            return torch.stack([each.mean((1, 2)) for each in maps]).sum(0)
        return torch.stack([_weighted_mean(each, mask) for each in maps]).sum(0)

    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """The distance [B] between two batches of images [B, 3, H, W] in [-1, 1], see ``distance``."""
        return self.distance(self.features(a), self.features(b), mask)


def _weighted_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean [B] of values [B, h, w] under a mask [B, H, W] that is averaged to their grid."""
    height, width = values.shape[-2:]
    weights = F.adaptive_avg_pool2d(mask[:, None].to(values), (height, width))[:, 0]
    return (values * weights).sum((1, 2)) / weights.sum((1, 2))


def load_lpips(net: str = "alex") -> LPIPS:
    """LPIPS with the converted weights ``lpips-alex`` or ``lpips-vgg``.

    Raises:
        InputError: there is no such trunk.
        WeightsError: the weights are not there.
    """
    from remime import weights

    module = LPIPS(net)
    module.load_state_dict(weights.load(f"lpips-{net}").tensors)
    return module.requires_grad_(False)

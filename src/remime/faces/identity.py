"""Face identity: unit-length embeddings of aligned frames, for the metric and for the loss.

A model is never scored by the network that it was trained against: ``dlib-resnet-id`` is the network of the
loss, ``sface`` (Zhong et al., 2021) or ``edgeface-s`` (George et al., 2023) that of the metric. The cosine
similarity of two embeddings is their dot product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import InputError, shape_error
from remime.faces.dlib_resnet import DlibResNet
from remime.faces.template import ARCFACE, DLIB_CHIP, Template
from remime.graph import GraphNetwork

if TYPE_CHECKING:
    from remime.weights import Weights


@dataclass(frozen=True)
class _Kind:
    """How a network is built, the crop that it wants, and the factor and offset from [-1, 1] to its range."""

    build: Callable[[Weights], nn.Module]
    template: Template
    factor: float = 1.0
    offset: float = 0.0


def _graph(weights: Weights) -> nn.Module:
    return GraphNetwork(weights.meta["graph"], weights.tensors)


_KINDS: dict[str, _Kind] = {
    "sface": _Kind(_graph, ARCFACE, 127.5, 127.5),
    "edgeface-s": _Kind(_graph, ARCFACE),
    "dlib-resnet-id": _Kind(lambda weights: DlibResNet.from_tensors(weights.tensors), DLIB_CHIP),
}
NETWORKS: tuple[str, ...] = tuple(_KINDS)


class IdentityNetwork(nn.Module):
    """A network that maps a face to a point on the unit sphere; frozen, differentiable in its images.

    Args:
        name: one of ``NETWORKS``.
        weights: its converted weights.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        super().__init__()
        self.name = name
        self._kind = _KINDS[name]
        self.network = self._kind.build(weights)
        self.eval().requires_grad_(False)

    def embed(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Embed faces.

        Args:
            images: [B, 3, R, R] FFHQ-aligned frames in [-1, 1], any R.
            landmarks: [B, 68, 2] in pixels of these frames, to align each face as the network was trained;
                without them the fixed crop of the FFHQ template is used.

        Returns:
            [B, D] of length one; D is 128 (sface, dlib-resnet-id) or 512 (edgeface-s).
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise shape_error("images", "[B, 3, R, R]", images.shape)
        crops = self._kind.template(images, landmarks)
        if (self._kind.factor, self._kind.offset) != (1.0, 0.0):
            crops = crops * self._kind.factor + self._kind.offset
        result = self.network(crops)
        vectors = result[0] if isinstance(result, tuple) else result
        return F.normalize(vectors.float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """``embed`` without landmarks."""
        return self.embed(images)


def load_identity(name: str) -> IdentityNetwork:
    """An identity network with its converted weights.

    Args:
        name: ``sface``, ``edgeface-s`` or ``dlib-resnet-id``.

    Raises:
        InputError: there is no such network.
        WeightsError: its weights are not there.
    """
    from remime import weights

    if name not in _KINDS:
        raise InputError("identity network", f"unknown name {name!r}", f"allowed: {', '.join(_KINDS)}")
    return IdentityNetwork(name, weights.load(name))

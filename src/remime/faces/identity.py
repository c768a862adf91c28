"""Face identity: unit-length embeddings of aligned frames, for the metric and for the loss.

A model is never scored by the network that it was trained against: ``dlib-resnet-id`` is the network of the
loss, ``sface`` (Zhong et al., 2021) or ``edgeface-s`` (George et al., 2023) that of the metric. Imported
networks serve as well: the papers' IR-SE50, InsightFace's ONNX files, dlib's. The cosine similarity of two
embeddings is their dot product.
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


def _papers_crop(images: Tensor, landmarks: Tensor | None = None) -> Tensor:
    """IR-SE50's crop in pSp, ReStyle and P1: rows 35:223, columns 32:220 of 256², averaged to 112²."""
    resized = images
    if images.shape[-1] > 256:
        resized = F.adaptive_avg_pool2d(images, 256)
    elif images.shape[-1] < 256:
        resized = F.interpolate(images, size=256, mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(resized[:, :, 35:223, 32:220], 112)


@dataclass(frozen=True)
class _Kind:
    """How a network is built, the crop that it wants, and the factor and offset from [-1, 1] to its range."""

    build: Callable[[Weights], nn.Module]
    template: Template | Callable[[Tensor, Tensor | None], Tensor]
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


def _arcface(weights: Weights) -> nn.Module:
    from remime.encoders.irse import ArcFace

    return ArcFace.from_tensors(weights.tensors)


def _kind(name: str, weights: Weights) -> _Kind:
    """How to use a network of the table, or an imported one by what its file is."""
    if name in _KINDS:
        return _KINDS[name]
    kind = weights.meta.get("kind")
    if kind == "ir-se50":
        return _Kind(_arcface, _papers_crop)
    if kind == "dlib-resnet":
        return _KINDS["dlib-resnet-id"]
    if kind == "arcface":
        low, high = weights.meta["input_range"]
        return _Kind(_graph, ARCFACE, (high - low) / 2, (high + low) / 2)
    raise InputError(
        "identity network",
        f"{name!r} is {kind or 'no identity network'}",
        f"allowed: {', '.join(NETWORKS)}, and imported ir-se50, arcface (.onnx), dlib-resnet",
    )


class IdentityNetwork(nn.Module):
    """A network that maps a face to a point on the unit sphere; frozen, differentiable in its images.

    Args:
        name: one of ``NETWORKS``, or what an imported one is called.
        weights: its converted weights.
    """

    def __init__(self, name: str, weights: Weights) -> None:
        super().__init__()
        self.name = name
        self._kind = _kind(name, weights)
        self.network = self._kind.build(weights)
        self.eval().requires_grad_(False)

    def embed(self, images: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Embed faces.

        Args:
            images: [B, 3, R, R] FFHQ-aligned frames in [-1, 1], any R.
            landmarks: [B, 68, 2] in pixels of these frames, to align each face as the network was trained;
                without them, and for IR-SE50 in any case, the fixed crop of the FFHQ template is used.

        Returns:
            [B, D] of length one; D is 128 (sface, dlib) or 512 (edgeface-s, IR-SE50, most of InsightFace's).
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
        name: ``sface``, ``edgeface-s``, ``dlib-resnet-id``, or the name of an imported network.

    Raises:
        InputError: it is another network.
        WeightsError: its weights are not there.
    """
    from remime import weights

    return IdentityNetwork(name, weights.load(name))

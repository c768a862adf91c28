"""Losses shared by inverters and methods, on 256² frames in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from remime.faces.identity import IdentityNetwork, load_identity
from remime.perceptual import LPIPS, load_lpips

CROP = 188  # of 256, the centre of the frame (P1, Sec. 3.2)


def centre_crop(images: Tensor) -> Tensor:
    """The central 188/256 of frames [B,3,R,R]."""
    side = images.shape[-1]
    keep = round(side * CROP / 256)
    start = (side - keep) // 2
    return images[..., start : start + keep, start : start + keep]


def cosface(positive: Tensor, negative: Tensor, scale: float = 5.0, margin: float = 0.2) -> Tensor:
    """P1's Eq. 4–5 on cosine similarities of motion codes.

    Args:
        positive: [P], similarities of pairs that should agree.
        negative: [N], similarities of pairs that should not.
        scale: a of Eq. 4.
        margin: b of Eq. 4; as printed it cancels in Eq. 5.

    Returns:
        The mean over the positive pairs of -log softmax.
    """
    d_positive, d_negative = scale * (positive - margin), scale * (negative - margin)
    denominator = torch.logaddexp(d_positive, torch.logsumexp(d_negative, 0))
    return (denominator - d_positive).mean()


class ImageLosses(nn.Module):
    """Reconstruction and identity losses with their frozen networks.

    Args:
        identity: name of the loss's identity network; the metric's is another one (spec: never the same).
    """

    def __init__(self, identity: str = "dlib-resnet-id") -> None:
        super().__init__()
        self.lpips: LPIPS = load_lpips("alex")
        self.identity: IdentityNetwork = load_identity(identity)

    def l2(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean squared difference of images [B,3,R,R]."""
        return (a - b).square().mean()

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean LPIPS of images [B,3,R,R]."""
        return self.lpips(a, b).mean()

    def same_person(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - mean cosine of the identity vectors of frames [B,3,R,R]; the gradient goes into ``a``."""
        with torch.no_grad():
            wanted = self.identity.embed(b)
        return 1 - (self.identity.embed(a) * wanted).sum(1).mean()

"""Losses shared by inverters and methods, on 256² frames in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from remime.faces.identity import IdentityNetwork, load_identity
from remime.perceptual import LPIPS, load_lpips

# Rows and columns of a 256² frame: the centre (P1, Sec. 3.2), and what P1's reference code cuts.
CROPS = {"paper": (34, 222, 34, 222), "reference": (55, 243, 32, 220)}


def face_crop(images: Tensor, crop: str = "paper") -> Tensor:
    """The 188² crop of 256² frames [B,3,R,R], in proportion for other R."""
    top, bottom, left, right = (round(v * images.shape[-1] / 256) for v in CROPS[crop])
    return images[..., top:bottom, left:right]


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

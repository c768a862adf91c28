"""P1's baseline: move the target's mean latent as the driving clip's latents move (P1, Sec. 4.1, Eq. 7)."""

from __future__ import annotations

from torch import Tensor

from remime.methods.base import Driving, Identity, Method


class Linear(Method):
    """z = z̄_B + α·(z_A − z̄_A), where z̄ is the mean latent over a clip's frames and their horizontal flips.

    Args:
        strength: α; P1 uses 1.
    """

    needs_latents = True

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def identify(self, latent: Tensor, image: Tensor) -> Identity:
        """A target from its clip's mean latent W+ [rows, 512]; ``image`` is not looked at."""
        return Identity(latent)

    def drive(
        self,
        identity: Identity,
        frames: Tensor,
        latents: Tensor | None = None,
        driving: Driving | None = None,
    ) -> Tensor:
        """W+ [B, rows, 512]; ``latents`` and ``driving.mean`` are needed, ``frames`` are not looked at."""
        if latents is None or driving is None or driving.mean is None:
            raise ValueError("the linear method needs the driving frames' latents and their clip's mean")
        return identity.latent + self.strength * (latents - driving.mean)

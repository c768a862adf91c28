"""The interface of all reenactment methods.

Driving is whose motion is used, target is whose face appears (P1's words; P2 and P4 say source and target the
other way round).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Identity:
    """What a method keeps of a target; made once, used for every frame.

    Attributes:
        latent: W+ [rows, 512], the inversion of the target (of its frame, or the mean of its clip).
        prepared: whatever the method computed from it ahead of time.
    """

    latent: Tensor
    prepared: Any = None


@dataclass(frozen=True)
class Driving:
    """What a method may know of a driving clip before its first frame.

    Attributes:
        mean: W+ [rows, 512], the mean latent of the clip's frames and of their horizontal flips; None unless
            the method ``needs_latents``.
        rest: [k], how the face rests, in the method's own terms; None unless the method ``needs_rest``, and
            of a single image, of which nobody knows whether it rests.
    """

    mean: Tensor | None = None
    rest: Tensor | None = None


class Method(nn.Module, ABC):
    """A reenactment method: latents of the target's identity with the driving frames' motion.

    Attributes:
        needs_latents: ``drive`` uses the driving frames' inversions, ``identify`` the mean over the target's
            clip.
        needs_rest: ``drive`` wants to be told how the driving face rests, see ``rest``.
    """

    needs_latents: bool
    needs_rest: bool = False

    @abstractmethod
    def identify(self, latent: Tensor, image: Tensor) -> Identity:
        """Prepare a target.

        Args:
            latent: W+ [rows, 512], of its frame, or the mean of its clip when ``needs_latents``.
            image: [3, R, R] in [-1, 1], what the generator shows of that latent.
        """

    @abstractmethod
    def drive(
        self,
        identity: Identity,
        frames: Tensor,
        latents: Tensor | None = None,
        driving: Driving | None = None,
    ) -> Tensor:
        """Latents W+ [B, rows, 512] of the target with the motion of driving frames.

        Args:
            identity: from ``identify``.
            frames: [B, 3, R, R] aligned driving frames in [-1, 1].
            latents: [B, rows, 512], their inversions, when ``needs_latents``.
            driving: what is known of the whole clip, when ``needs_latents`` or ``needs_rest``.
        """

    def observe(self, frames: Tensor) -> Tensor:
        """What ``rest`` is made of, [B, k], of aligned driving frames [B, 3, R, R] in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not ask how a face rests")

    def rest(self, observed: Tensor) -> Tensor:
        """How a face rests, [k], from what ``observe`` says of frames all over a clip, [n, k]."""
        raise NotImplementedError(f"{type(self).__name__} does not ask how a face rests")

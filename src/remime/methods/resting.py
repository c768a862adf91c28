"""At what a face rests, told from motion codes and exchanged (docs/methods.md, "Relative expressions")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rest:
    """How a parameter tells at what a face rests, by its variances over rendered heads (docs/experiments.md).

    Attributes:
        quantile: over a clip, at which the face rests: the median, or low for what opens and closes.
        own: how much of what a single image shows beyond the usual is the person's, 0 to 1; all else is the
            moment's.
        spread: standard deviation over people, in that over generated faces. What lies more than twice as far
            from the usual is no build: eyes that are closed throughout a clip do not rest.
    """

    quantile: float
    own: float
    spread: float


_BROWS, _GAZE = Rest(0.5, own=0.7, spread=0.8), Rest(0.5, own=0.5, spread=0.4)
_LIDS, _MOUTH = Rest(0.2, own=0.2, spread=0.6), Rest(0.2, own=0.3, spread=0.4)
# Parameters that differ more by how a face is built than by what somebody expresses throughout a clip.
RESTS = {
    "browDownLeft": _BROWS,
    "browDownRight": _BROWS,
    "browInnerUp": _BROWS,
    "browOuterUpLeft": _BROWS,
    "browOuterUpRight": _BROWS,
    "eyeLookDownLeft": _GAZE,
    "eyeLookDownRight": _GAZE,
    "eyeLookUpLeft": _GAZE,
    "eyeLookUpRight": _GAZE,
    "eyeBlinkLeft": _LIDS,
    "eyeBlinkRight": _LIDS,
    "jawOpen": _MOUTH,
    "mouthLowerDownLeft": _MOUTH,
    "mouthLowerDownRight": _MOUTH,
    "mouthUpperUpLeft": _MOUTH,
    "mouthUpperUpRight": _MOUTH,
}


class Resting(nn.Module):
    """Reads the parameters at which faces rest from motion codes, and moves W+ from one rest to another.

    Nothing of it is in the state dict: it follows from the directions.

    Args:
        readings: [components, k], from codes to parameters.
        shifts: [k, rows, 512], what one unit of a parameter adds to W+.
        rests: of each parameter.

    Attributes:
        usual: [k], what faces usually rest at; zero until it is set.
    """

    readings: Tensor
    shifts: Tensor
    own: Tensor
    bound: Tensor
    usual: Tensor

    def __init__(self, readings: Tensor, shifts: Tensor, rests: Sequence[Rest]) -> None:
        super().__init__()
        self.quantiles = [rest.quantile for rest in rests]
        own = torch.tensor([rest.own for rest in rests]).to(readings)
        bound = torch.tensor([2 * rest.spread for rest in rests]).to(readings)
        self.register_buffer("readings", readings, persistent=False)
        self.register_buffer("shifts", shifts, persistent=False)
        self.register_buffer("own", own, persistent=False)
        self.register_buffer("bound", bound, persistent=False)
        self.register_buffer("usual", torch.zeros_like(own), persistent=False)

    def read(self, codes: Tensor) -> Tensor:
        """The parameters [B, k] of codes [B, components]."""
        return codes @ self.readings

    def rest(self, read: Tensor) -> Tensor:
        """What a face rests at [k], from what is read of frames all over a clip [n, k]."""
        found = torch.stack([read[:, i].quantile(q) for i, q in enumerate(self.quantiles)])
        return self._within(found)

    def away(self, rest: Tensor, own: Tensor) -> Tensor:
        """What moves a target [1, rows, 512] of a code [1, components] from its own rest to another [k]."""
        rests = self._within(self.usual + self.own * (self.read(own) - self.usual))
        return torch.einsum("bk,krd->brd", rest[None] - rests, self.shifts)

    def _within(self, rest: Tensor) -> Tensor:
        """A rest [..., k] as near to the usual as people's are; what lies beyond is expression."""
        return self.usual + (rest - self.usual).clamp(-self.bound, self.bound)

"""P1 ``mapping``: g = G(M(E_m(s) ⊕ E_i(t))) (Jahoda & Čech, Sec. 3.1).

E_i is a frozen inverter whose latents are cached; E_m encodes the driving frame's motion in W+; M is linear.
M is kept as an identity half and a motion half, so that a target is mapped once, not once per frame.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.encoders.restyle import fit
from remime.errors import InputError, shape_error
from remime.faces.mesh import BLENDSHAPES, POINTS, MeshNetwork
from remime.methods.base import Driving, Identity, Method

SIZE = 256  # height and width of the encoders' input


class MeshMotionEncoder(nn.Module):
    """The ``small`` E_m: frozen face mesh and blendshapes, then a perceptron; frames to codes [B, rows, 512].

    Where the paper's E_m starts from an ArcFace IR-SE50, this one starts from MediaPipe's mesh network, which
    knows motion already and sees no colour. Pose and expression are measured by other networks in the
    metrics.

    Args:
        rows: rows of W+.
        width: hidden units.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, rows: int, width: int = 512) -> None:
        super().__init__()
        self.rows = rows
        inputs = POINTS * 3 + len(BLENDSHAPES)
        # Statistics of the inputs over the training data; set once, before the first step.
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.hidden = nn.Linear(inputs, width)
        self.code = nn.Linear(width, width)
        self.out = nn.Linear(width, rows * 512)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)
        self._mesh: list[MeshNetwork] = []

    def attach(self, mesh: MeshNetwork) -> None:
        """Use this mesh network; it is frozen, has its own file, and is not part of the state dict."""
        self._mesh = [mesh]

    def measure(self, frames: Tensor) -> Tensor:
        """What the perceptron sees of frames [B,3,R,R]: mesh, in frames, and blendshapes, [B, 1486]."""
        if not self._mesh:
            raise ValueError("attach a mesh network first")
        result = self._mesh[0](frames)
        points = (result.points / frames.shape[-1] - 0.5).flatten(1)
        return torch.cat([points, result.blendshapes], 1)

    def encode(self, measured: Tensor) -> Tensor:
        """Motion in W+ [B, rows, 512] from ``measure``'s result."""
        x = ((measured - self.mean) / self.spread).clamp(-5, 5)
        x = F.leaky_relu(self.hidden(x), 0.2)
        x = F.leaky_relu(self.code(x), 0.2)
        return self.out(x).unflatten(1, (self.rows, 512))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B,3,R,R] in [-1,1] to motion in W+ [B, rows, 512]."""
        return self.encode(self.measure(frames))

    def _apply(self, fn: Any, recurse: bool = True) -> MeshMotionEncoder:
        for mesh in self._mesh:
            mesh._apply(fn, recurse)
        return super()._apply(fn, recurse)


class PaperMotionEncoder(nn.Module):
    """The ``paper`` E_m: IR-SE50 → BN → 7×7 average → FC 512 → EqualLinear(512 → rows·512)."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        from remime.encoders import irse

        self.rows = rows
        self.input_layer = irse.input_layer(3)
        self.body = irse.body()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 7 * 7, 512)
        )
        # EqualLinear: unit normal weights, scaled by 1/√512 when used.
        self.weight = nn.Parameter(torch.randn(rows * 512, 512))
        self.bias = nn.Parameter(torch.zeros(rows * 512))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B,3,R,R] in [-1,1] to motion in W+ [B, rows, 512]."""
        x = self.output_layer(self.body(self.input_layer(fit(frames, SIZE))))
        return F.linear(x, self.weight * 512**-0.5, self.bias).unflatten(1, (self.rows, 512))


class FullMap(nn.Module):
    """The paper's M: one linear layer (2·rows·512 → rows·512) on [identity, motion]."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        size = rows * 512
        self.identity_half = nn.Parameter(torch.randn(size, size) * 1e-5)
        self.motion_half = nn.Parameter(torch.randn(size, size) * 1e-5)
        self.bias = nn.Parameter(torch.full((size,), 1e-3))

    def identity(self, latent: Tensor) -> Tensor:
        """The identity's part [B, rows, 512], bias included."""
        return F.linear(latent.flatten(1), self.identity_half, self.bias).view_as(latent)

    def motion(self, code: Tensor) -> Tensor:
        """The motion's part [B, rows, 512]."""
        return F.linear(code.flatten(1), self.motion_half).view_as(code)


class FactoredMap(nn.Module):
    """The ``small`` M, linear as well: the target's rows plus a low-rank term each, plus the motion.

    The low-rank term is what takes the target's own pose and expression out of its latent.

    Args:
        rows: rows of W+.
        rank: of the term, per row.
    """

    def __init__(self, rows: int, rank: int = 64) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rows, 512, rank) * 512**-0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank, 512))
        self.bias = nn.Parameter(torch.zeros(rows, 512))

    def identity(self, latent: Tensor) -> Tensor:
        """The identity's part [B, rows, 512], bias included."""
        term = torch.einsum("brc,rck,rkd->brd", latent, self.down, self.up)
        return latent + term + self.bias

    def motion(self, code: Tensor) -> Tensor:
        """The motion's part [B, rows, 512]."""
        return code


class Mapping(Method):
    """P1's method, presets ``paper`` and ``small``.

    Args:
        rows: rows of W+.
        preset: ``paper`` (IR-SE50, full M) or ``small`` (mesh, factored M).
        width: hidden units of the small E_m.
        rank: of the small M.
    """

    needs_latents = False

    def __init__(self, rows: int, preset: str = "paper", width: int = 512, rank: int = 64) -> None:
        super().__init__()
        self.rows = rows
        if preset == "paper":
            self.motion_encoder: nn.Module = PaperMotionEncoder(rows)
            self.map: nn.Module = FullMap(rows)
        elif preset == "small":
            self.motion_encoder = MeshMotionEncoder(rows, width)
            self.map = FactoredMap(rows, rank)
        else:
            raise InputError("preset", f"mapping has no preset {preset!r}", "allowed: paper, small")

    def forward(self, latents: Tensor, codes: Tensor) -> Tensor:
        """M: identity latents and motion codes, both [B, rows, 512], to W+ [B, rows, 512]."""
        if latents.shape != codes.shape:
            raise shape_error("motion codes", str(tuple(latents.shape)), codes.shape)
        return self.map.identity(latents) + self.map.motion(codes)  # type: ignore[operator]

    @torch.no_grad()
    def identify(self, latent: Tensor) -> Identity:
        """Map a target's latent W+ [rows, 512] through the identity half, once."""
        return Identity(latent, self.map.identity(latent[None]))  # type: ignore[operator]

    @torch.no_grad()
    def drive(
        self,
        identity: Identity,
        frames: Tensor,
        latents: Tensor | None = None,
        driving: Driving | None = None,
    ) -> Tensor:
        """W+ [B, rows, 512]; only ``frames`` are needed."""
        return identity.prepared + self.map.motion(self.motion_encoder(frames))  # type: ignore[operator]

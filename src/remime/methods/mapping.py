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

COMPONENTS = 48  # length of the small preset's motion code
EDITED = 8  # rows of W+ that motion directions start from: 4² to 64²
SIZE = 256  # height and width of the encoders' input


class MeshMotionEncoder(nn.Module):
    """The ``small`` E_m: frozen face mesh and blendshapes, then a perceptron; frames to [B, components].

    Where the paper's E_m starts from an ArcFace IR-SE50, this one starts from MediaPipe's mesh network, which
    knows motion already and sees no colour. Pose and expression are measured by other networks in the
    metrics.

    Args:
        components: length of the code.
        width: hidden units.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, components: int = COMPONENTS, width: int = 512) -> None:
        super().__init__()
        inputs = POINTS * 3 + len(BLENDSHAPES)
        # Statistics of the inputs over the training data; set once, before the first step.
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.hidden = nn.Linear(inputs, width)
        self.code = nn.Linear(width, width)
        self.out = nn.Linear(width, components)
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
        """Codes [B, components] from ``measure``'s result."""
        x = ((measured - self.mean) / self.spread).clamp(-5, 5)
        x = F.leaky_relu(self.hidden(x), 0.2)
        x = F.leaky_relu(self.code(x), 0.2)
        return self.out(x)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B,3,R,R] in [-1,1] to codes [B, components]."""
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
        self.code_shape = (rows, 512)
        self.identity_half = nn.Parameter(torch.randn(size, size) * 1e-5)
        self.motion_half = nn.Parameter(torch.randn(size, size) * 1e-5)
        self.bias = nn.Parameter(torch.full((size,), 1e-3))

    def identity(self, latent: Tensor) -> Tensor:
        """The identity's part [B, rows, 512], bias included."""
        return F.linear(latent.flatten(1), self.identity_half, self.bias).view_as(latent)

    def motion(self, code: Tensor) -> Tensor:
        """The motion's part [B, rows, 512]."""
        return F.linear(code.flatten(1), self.motion_half).view_as(code)


class DirectionMap(nn.Module):
    """The ``small`` M, linear as well: the target moves along a few directions of W+.

    ``z + (c_s - c_t) · D``: c_s is the code of the driving frame, c_t the target's, read linearly from its
    latent, and D the directions. Nothing but the code reaches the result from the driving frame, so that with
    few directions the driving person's looks cannot.
    """

    def __init__(self, rows: int, components: int = COMPONENTS) -> None:
        super().__init__()
        self.code_shape = (components,)
        self.read = nn.Linear(512, components)
        self.directions = nn.Parameter(torch.zeros(components, rows, 512))

    @torch.no_grad()
    def initialise(self, directions: Tensor, latents: Tensor) -> None:
        """Start from measured directions; components beyond their number start at zero.

        Args:
            directions: [k, 512], change of W per unit of each motion parameter.
            latents: [n, 512], samples of W, for the regression of the parameters on W.
        """
        directions = directions[: len(self.directions)]
        count = len(directions)
        self.directions[:count, :EDITED] = directions[:, None]
        centred = latents - latents.mean(0)
        covariance = centred.T @ centred / len(latents)
        covariance += 1e-2 * covariance.diagonal().mean() * torch.eye(512).to(covariance)
        # Of unit-variance parameters the directions are the covariance with W: this is least squares.
        self.read.weight.zero_()
        self.read.weight[:count] = torch.linalg.solve(covariance, directions.T).T
        self.read.bias.copy_(-self.read.weight @ latents.mean(0))

    def identity(self, latent: Tensor) -> Tensor:
        """The identity's part [B, rows, 512]: the target's latent without its motion."""
        return latent - self.motion(self.read(latent[:, :EDITED].mean(1)))

    def motion(self, code: Tensor) -> Tensor:
        """The motion's part [B, rows, 512] of codes [B, components]."""
        return torch.einsum("bk,krd->brd", code, self.directions)


class Mapping(Method):
    """P1's method, presets ``paper`` and ``small``.

    Args:
        rows: rows of W+.
        preset: ``paper`` (IR-SE50, full M) or ``small`` (mesh, M along directions).
        width: hidden units of the small E_m.
        components: length of the small E_m's code.
    """

    needs_latents = False

    def __init__(
        self, rows: int, preset: str = "paper", width: int = 512, components: int = COMPONENTS
    ) -> None:
        super().__init__()
        self.rows = rows
        if preset == "paper":
            self.motion_encoder: nn.Module = PaperMotionEncoder(rows)
            self.map: nn.Module = FullMap(rows)
        elif preset == "small":
            self.motion_encoder = MeshMotionEncoder(components, width)
            self.map = DirectionMap(rows, components)
        else:
            raise InputError("preset", f"mapping has no preset {preset!r}", "allowed: paper, small")

    def forward(self, latents: Tensor, codes: Tensor) -> Tensor:
        """M: identity latents [B, rows, 512] and E_m's codes to W+ [B, rows, 512]."""
        expected = (len(latents), *self.map.code_shape)  # type: ignore[misc]
        if codes.shape != expected:
            raise shape_error("motion codes", str(expected), codes.shape)
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

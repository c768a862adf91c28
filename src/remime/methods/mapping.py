"""P1 ``mapping``: g = G(M(E_m(s) ⊕ E_i(t))) (Jahoda & Čech, Sec. 3.1).

E_i is a frozen inverter whose latents are cached; E_m encodes the driving frame's motion in W+; M is linear.
M is kept as an identity half and a motion half, so that a target is mapped once, not once per frame.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.encoders.motion import MotionEncoder
from remime.errors import InputError, shape_error
from remime.faces.mesh import BLENDSHAPES, POINTS, MeshNetwork
from remime.methods.base import Driving, Identity, Method
from remime.methods.resting import Rest, Resting

COMPONENTS = 48  # length of the small preset's motion code
SEEN = 128  # principal axes of a target's latent that a correction sees
ROUNDING = 1e-6  # relative, of directions that are stored as float32
SIZE = 256  # height and width of the frames that encoders and losses see


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


class FullMap(nn.Module):
    """The paper's M: one linear layer (2·rows·512 → rows·512) on [identity, motion].

    The parameter's name is the published one (``mapping_net.linear_relu``); there is no activation. Its
    columns are used in two halves.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        size = rows * 512
        self.code_shape = (rows, 512)
        layer = nn.utils.skip_init(nn.Linear, 2 * size, size)
        nn.init.normal_(layer.weight, std=1e-5)
        nn.init.constant_(layer.bias, 1e-3)
        self.linear_relu = nn.Sequential(layer)

    def identity(self, latent: Tensor) -> Tensor:
        """The identity's part [B, rows, 512], bias included."""
        weight, bias = self._half(0), self.get_parameter("linear_relu.0.bias")
        return F.linear(latent.flatten(1), weight, bias).view_as(latent)

    def motion(self, code: Tensor) -> Tensor:
        """The motion's part [B, rows, 512]."""
        return F.linear(code.flatten(1), self._half(1)).view_as(code)

    def _half(self, number: int) -> Tensor:
        return self.get_parameter("linear_relu.0.weight").chunk(2, 1)[number]


class Correction(nn.Module):
    """What the same motion takes besides in this face: a perceptron on target and motion, added to M's.

    A linear M moves all targets alike, but what a step along a direction does to a face depends on the face:
    a beard goes with the smile. Without motion nothing is added, whatever was learned. Ours, not in P1.

    Args:
        rows: rows of W+.
        components: length of the motion code.
        rank: principal axes of the latents along which it may correct.
        width: hidden units.
    """

    mean: Tensor
    spread: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, rows: int, components: int, rank: int, width: int = 512) -> None:
        super().__init__()
        self.seen = min(rank, SEEN)
        # Statistics of latents; set once, before the first step.
        self.register_buffer("mean", torch.zeros(rows, 512))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("axes", torch.zeros(rank, rows * 512))
        self.register_buffer("scale", torch.ones(rank))
        self.hidden = nn.Linear(self.seen + components, width)
        self.more = nn.Linear(width, width)
        self.out = nn.Linear(width, rank)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @torch.no_grad()
    def initialise(self, latents: Tensor) -> None:
        """Take the statistics of latents [n, rows, 512]."""
        self.mean.copy_(latents.mean(0))
        self.spread.copy_(latents.std(0).mean().clamp_min(1e-6))
        flat = ((latents - self.mean) / self.spread).flatten(1)
        # Exact, so that a resumed training finds the same axes; a randomised method would not.
        axes = torch.linalg.svd(flat, full_matrices=False).Vh[: len(self.axes)]
        self.axes[: len(axes)] = axes
        self.scale[: len(axes)] = (flat @ axes.T).std(0).clamp_min(1e-6)

    def forward(self, latents: Tensor, differences: Tensor) -> Tensor:
        """What is added [B, rows, 512] to targets [B, rows, 512] that move by differences of codes [B, k]."""
        where = ((latents - self.mean) / self.spread).flatten(1) @ self.axes[: self.seen].T
        where = (where / self.scale[: self.seen]).clamp(-3, 3)
        added = self._weights(where, differences) - self._weights(where, torch.zeros_like(differences))
        return self.spread * ((added * self.scale) @ self.axes).view_as(latents)

    def _weights(self, where: Tensor, moved: Tensor) -> Tensor:
        x = F.leaky_relu(self.hidden(torch.cat([where, moved], 1)), 0.2)
        return self.out(x + F.leaky_relu(self.more(x), 0.2))


class DirectionMap(nn.Module):
    """The ``small`` M, linear as well: the target moves along a few directions of W+.

    ``z + (c_s - c_t) · D``: c_s and c_t are E_m's codes of the driving frame and of the target, D the
    directions. Nothing but the code reaches the result from the driving frame, so that with few directions
    the driving person's looks cannot; and a target driven by itself stays exactly as it is.

    Args:
        rows: rows of W+.
        components: length of the motion code.
        correction: rank of a ``Correction`` on top; 0 for none.

    Attributes:
        resting: at what faces rest; None until ``take_apart`` tells it.
    """

    def __init__(self, rows: int, components: int = COMPONENTS, correction: int = 0) -> None:
        super().__init__()
        self.code_shape = (components,)
        self.directions = nn.Parameter(torch.zeros(components, rows, 512))
        self.correction = Correction(rows, components, correction) if correction else None
        self.resting: Resting | None = None

    @torch.no_grad()
    def initialise(self, directions: Tensor) -> None:
        """Start from measured directions [k, r, 512] of the first r rows; what lies beyond starts at zero."""
        count, rows = min(len(directions), len(self.directions)), directions.shape[1]
        self.directions[:count, :rows] = directions[:count]

    @torch.no_grad()
    def take_apart(
        self, directions: Tensor, kept: list[int], factor: float, resting: dict[int, Rest] | None = None
    ) -> None:
        """Write M's directions as sums of measured ones, by least squares, to treat these differently.

        Args:
            directions: measured, [k, r, 512] of the first r rows.
            kept: which of them stay as they are.
            factor: what all else is multiplied by.
            resting: at which of them a face rests, and how that is told.
        """
        known = torch.zeros(len(directions), *self.directions.shape[1:], dtype=torch.float64)
        known[:, : directions.shape[1]] = directions
        known, own = known.flatten(1), self.directions.double().cpu().flatten(1)
        # Both lids move along one direction: what tells them apart is rounding, which must not get a weight.
        weights = torch.linalg.lstsq(known.T, own.T, rcond=ROUNDING, driver="gelsd").solution.T
        left = weights[:, kept] @ known[kept]
        self.directions.copy_((left + factor * (own - left)).view_as(self.directions))
        if resting:
            chosen = list(resting)
            scale = torch.tensor([1.0 if i in kept else factor for i in chosen], dtype=torch.float64)
            shifts = (scale[:, None] * known[chosen]).to(self.directions)
            readings = weights[:, chosen].to(self.directions)
            self.resting = Resting(
                readings, shifts.view(-1, *self.directions.shape[1:]), list(resting.values())
            )

    def motion(self, code: Tensor) -> Tensor:
        """The linear part [B, rows, 512] of codes [B, components], or of differences of such."""
        return torch.einsum("bk,krd->brd", code, self.directions)

    def forward(self, latents: Tensor, differences: Tensor) -> Tensor:
        """Targets [B, rows, 512], moved by differences of codes [B, components]."""
        moved = latents + self.motion(differences)
        return moved if self.correction is None else moved + self.correction(latents, differences)


class Mapping(Method):
    """P1's method, presets ``paper`` and ``small``.

    Args:
        rows: rows of W+.
        preset: ``paper`` (IR-SE50, full M) or ``small`` (mesh, M along directions).
        width: hidden units of the small E_m.
        components: length of the small E_m's code.
        strength: what the small M's motion is multiplied by when it drives; ours, P1's M has no such factor.
        expression_strength: what of that all but turns of the head and blinks is multiplied by; ours, too. It
            takes effect by ``DirectionMap.take_apart``, which needs to be told what turns a head.
        relative_expression: how much of what the driving face rests at gives way to the target's rest, 0 to
            1; ours, and as ``expression_strength`` (docs/methods.md).
        correction: rank of the small M's ``Correction``; 0 for none.

    Raises:
        InputError: there is no such preset, or ``paper`` has what only the small M can do.
    """

    needs_latents = False

    def __init__(
        self,
        rows: int,
        preset: str = "paper",
        width: int = 512,
        components: int = COMPONENTS,
        strength: float = 1.0,
        correction: int = 0,
        expression_strength: float = 1.0,
        relative_expression: float = 0.0,
    ) -> None:
        super().__init__()
        self.rows, self.strength, self.expression_strength = rows, strength, expression_strength
        self.relative_expression = relative_expression
        strengths = (("strength", strength, 1), ("expression_strength", expression_strength, 1))
        others = (("relative_expression", relative_expression, 0), ("correction", correction, 0))
        for key, value, usual in (*strengths, *others):
            if preset == "paper" and value != usual:
                raise InputError(
                    key,
                    f"{value:g} has no meaning for the preset paper, whose M does not tell motion from rest",
                    f"leave it at {usual}",
                )
        if preset == "paper":
            self.motion_encoder: nn.Module = MotionEncoder(rows)
            self.map: nn.Module = FullMap(rows)
        elif preset == "small":
            self.motion_encoder = MeshMotionEncoder(components, width)
            self.map = DirectionMap(rows, components, correction)
        else:
            raise InputError("preset", f"mapping has no preset {preset!r}", "allowed: paper, small")

    @property
    def subtracts(self) -> bool:
        """Whether the target's own motion code is needed: the ``small`` M takes its motion away."""
        return isinstance(self.map, DirectionMap)

    @property
    def needs_rest(self) -> bool:  # type: ignore[override]
        """Whether the motion is relative to the driving face at rest."""
        return self.relative_expression != 0

    def forward(self, latents: Tensor, codes: Tensor, own: Tensor | None = None) -> Tensor:
        """M.

        Args:
            latents: of the targets, [B, rows, 512].
            codes: E_m's, of the driving frames.
            own: E_m's, of the targets; where M ``subtracts``.

        Returns:
            W+ [B, rows, 512].
        """
        expected = (len(latents), *self.map.code_shape)  # type: ignore[misc]
        for given in (codes, own):
            if given is not None and given.shape != expected:
                raise shape_error("motion codes", str(expected), given.shape)
        if isinstance(self.map, FullMap):
            return self.map.identity(latents) + self.map.motion(codes)
        if own is None:
            raise ValueError("the small M needs the motion codes of the targets")
        return self.map(latents, codes - own)

    @torch.no_grad()
    def identify(self, latent: Tensor, image: Tensor) -> Identity:
        """What is the same for all frames: the paper's identity half of M, or the small M's c_t of the image.

        Args:
            latent: W+ [rows, 512].
            image: [3, R, R] in [-1, 1], what the generator shows of it.
        """
        if isinstance(self.map, FullMap):
            return Identity(latent, self.map.identity(latent[None]))
        return Identity(latent, self.motion_encoder(image[None]))

    @torch.no_grad()
    def drive(
        self,
        identity: Identity,
        frames: Tensor,
        latents: Tensor | None = None,
        driving: Driving | None = None,
    ) -> Tensor:
        """W+ [B, rows, 512]; ``frames`` are needed, and ``driving`` when ``needs_rest``."""
        codes = self.motion_encoder(frames)
        if isinstance(self.map, FullMap):
            return identity.prepared + self.map.motion(codes)
        targets = identity.latent.expand(len(codes), -1, -1)
        moved = self.map(targets, self.strength * (codes - identity.prepared))
        if not self.needs_rest:
            return moved
        if driving is None:
            raise ValueError("a relative expression needs to know how the driving face rests")
        if driving.rest is None:
            return moved
        away = self._resting().away(driving.rest, identity.prepared)
        return moved - self.strength * self.relative_expression * away

    @torch.no_grad()
    def observe(self, frames: Tensor) -> Tensor:
        """The parameters [B, k] at which a face can rest, of frames [B, 3, R, R]."""
        return self._resting().read(self.motion_encoder(frames))

    def rest(self, observed: Tensor) -> Tensor:
        """Of each parameter its own quantile over the clip, [k]."""
        return self._resting().rest(observed)

    def _resting(self) -> Resting:
        assert isinstance(self.map, DirectionMap)
        assert self.map.resting is not None  # whoever needs a rest took the map apart
        return self.map.resting

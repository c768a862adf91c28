"""What inversion takes from rendered frames, where somebody knows better.

A mapping that learns from inversions alone learns to move less than faces do: inversions hardly close lids,
and open jaws 0.4 times as far. Of generated people the true latents are known. Of rendered heads the face
units are, and the puppets' directions tell how the latent changes with these.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from remime.faces.mesh import BLENDSHAPES
from remime.sources.directions import Directions
from remime.training.data import FaceUnits, Frames

KINDS = ("latents", "lids", "mouth")
"""What may be known: the latents of generated people; lids and mouths of rendered heads."""

# What the mesh network sees of rendered mouths as it is: beginnings of names. Gaze, brows and other units of
# the mouth were tried, too, and followed no better (docs/experiments.md).
_MOUTH = ("jawOpen", "mouthLowerDown", "mouthSmile")
_FOLLOWING = 0.5  # of the eyes' opening, which rendered lids lose when the eyes look down (least squares)
_RIDGE = 1.0  # squared face units; a single moment of a unit at its most is as much


def lost_by_inversion(
    frames: Frames,
    latents: Tensor,
    seen: Tensor | None,
    directions: Directions | None,
    kinds: Collection[str],
) -> Tensor | None:
    """The true latents minus the inverted ones, up to one offset for each clip.

    Args:
        frames: N of them.
        latents: their inversions [N,rows,512].
        seen: their blendshapes [N,52] as the mesh network sees them; None where nobody looked, and nothing is
            known of mouths then.
        directions: of the latent space; None for one of which nobody has any, and nothing is known of
            rendered heads then.
        kinds: some of ``KINDS``.

    Returns:
        [N,rows,512] in half precision, zeros where nothing is known; None if that is everywhere.

    Raises:
        InputError: a shard's clips cannot be read, or do not fit the frames.
    """
    lost, known = torch.zeros_like(latents, dtype=torch.float16), 0
    for where, true in frames.true_latents() if "latents" in kinds else ():
        lost[where] = (true - latents[where].float()).half()
        known += len(where)
    units = list(frames.face_units()) if directions is not None and {"lids", "mouth"} & {*kinds} else []
    counts = dict.fromkeys(("lids", "mouth"), 0)
    if directions is not None and directions.lids is not None and "lids" in kinds:
        counts["lids"] = _add_lids(lost, latents, units, torch.from_numpy(directions.lids))
    if directions is not None and seen is not None and "mouth" in kinds:
        counts["mouth"] = _add_mouths(lost, latents, units, seen, directions)
    print(
        f"of {len(frames)} frames {known} have known latents, {counts['lids']} known lids,"
        f" {counts['mouth']} known mouths",
        file=sys.stderr,
    )
    return lost if known or any(counts.values()) else None


def closed_lids(units: FaceUnits) -> Tensor:
    """How far lids are closed, [n] from 0 (open) to 1 (closed), the mean of both eyes.

    That is eyeBlink, and half of eyeLookDown, since lids follow the eyes.
    """
    blink, down = (
        units.values[:, [name.startswith(unit) for name in units.names]].mean(1)
        for unit in ("eyeBlink", "eyeLookDown")
    )
    return (blink + _FOLLOWING * down).clamp(0, 1)


def _add_lids(lost: Tensor, latents: Tensor, known: Sequence[FaceUnits], lids: Tensor) -> int:
    """Add what is missing along what closes lids; returns of how many frames."""
    closing = torch.zeros(latents.shape[1:])
    closing[: len(lids)] = lids
    closing = closing.flatten()
    for units in known:
        inverted = latents[units.where].float().flatten(1) @ closing / (closing @ closing)
        _add(lost, units.where, torch.outer(closed_lids(units) - inverted, closing))
    return sum(len(units.where) for units in known)


def _add_mouths(
    lost: Tensor, latents: Tensor, known: Sequence[FaceUnits], seen: Tensor, directions: Directions
) -> int:
    """Add what is missing along the directions of mouths; returns of how many frames.

    Wanted is what the mesh network would see of the face units: their effect on it is a ridge regression over
    all clips. An inversion's own motion is read along all directions at once, which are not orthogonal.
    """
    columns = [i for i, name in enumerate(directions.names) if name.startswith(_MOUTH)]
    if not known or not columns:
        return 0
    basis = torch.zeros(len(directions.names), *latents.shape[1:])
    basis[:, : directions.steps.shape[1]] = torch.from_numpy(directions.steps)
    basis = basis.flatten(1)
    read = torch.linalg.pinv(basis)[:, columns]
    shapes = seen[:, [BLENDSHAPES.index(directions.names[i]) for i in columns]]
    moments = torch.cat([units.values - units.values.mean(0) for units in known])
    found = torch.cat([shapes[units.where] - shapes[units.where].mean(0) for units in known])
    ridge = _RIDGE * torch.eye(moments.shape[1])
    effect = torch.linalg.solve(moments.T @ moments + ridge, moments.T @ found)
    effect = effect / torch.from_numpy(directions.spread[columns])
    for units in known:
        inverted = latents[units.where].float().flatten(1)
        moved = (inverted - inverted.mean(0)) @ read
        wanted = (units.values - units.values.mean(0)) @ effect
        _add(lost, units.where, (wanted - moved) @ basis[columns])
    return sum(len(units.where) for units in known)


def _add(lost: Tensor, where: list[int], more: Tensor) -> None:
    lost[where] = (lost[where].float() + more.view(len(where), *lost.shape[1:])).half()

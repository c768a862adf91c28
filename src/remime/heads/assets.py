"""The kit that heads are built of: a base mesh with its targets, and what is fitted to it.

It comes from the converted packages ``head-anatomy`` and ``head-parts`` (``workflow/weights.tsv``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remime.faces.mesh import BLENDSHAPES
from remime.heads.raster import cover

WEIGHTS = ("head-anatomy", "head-parts")
"""The rows of ``workflow/weights.tsv`` that a kit needs."""

COEFFICIENTS: tuple[str, ...] = (*BLENDSHAPES[1:], "tongueOut")
"""The 52 face units of ARKit: those of MediaPipe without ``_neutral``, and the tongue."""

CANVAS = 1024
"""Width and height of a texture of skin."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class Part:
    """Something fitted to the base mesh: hair, brows, eyes, clothes.

    Args:
        anchors: [n, 3] vertices of the kit that carry each vertex.
        weights: [n, 3] their shares.
        offsets: [n, 3] from their weighted mean, for a head of ``size``.
        size: [3] width, height, depth of the head that it was made for.
        triangles: [F, 3] vertices.
        uv: [F, 3, 2] texture coordinates of the corners; v counts from the texture's lower edge.
        texture: [H, W, 4] uint8 sRGB and alpha, or None.
        hidden: vertices of the kit below it.
    """

    anchors: Ints
    weights: Floats
    offsets: Floats
    size: Floats
    triangles: Ints
    uv: Floats
    texture: NDArray[np.uint8] | None
    hidden: Ints


@dataclass(frozen=True)
class Kit:
    """All assets.

    Args:
        ids: [N] the vertices' numbers in hm08, ascending.
        vertices: [N, 3] the base mesh.
        triangles: [F, 3] its skin.
        uv: [F, 3, 2] texture coordinates of the skin's corners.
        expression: [52, N, 3] offsets of the face units, in the order of ``COEFFICIENTS``.
        macro: offsets [N, 3] by name: of age, sex, muscle, weight, ancestry.
        detail: negative and positive offsets [N, 3] of a signed parameter, by name.
        bones: [N, 5] how much a vertex follows torso, three neck bones, head.
        joints: the vertices in whose mean a bone begins.
        eyes: the vertices of the left and of the right eyeball, the person's own.
        head_size, teeth_size: [3, 2] vertices whose distances along x, y, z scale what is fitted.
        masks: [1024, 1024] uint8 regions in texture space, by name.
        parts: what can be fitted, by name.
        irises, skins: textures [512, 512, 3] uint8 sRGB by name.
    """

    ids: Ints
    vertices: Floats
    triangles: Ints
    uv: Floats
    expression: Floats
    macro: Mapping[str, NDArray[np.float16]]
    detail: Mapping[str, tuple[NDArray[np.float16], NDArray[np.float16]]]
    bones: Floats
    joints: Mapping[str, Ints]
    eyes: tuple[Ints, Ints]
    head_size: Ints
    teeth_size: Ints
    masks: Mapping[str, NDArray[np.uint8]]
    parts: Mapping[str, Part]
    irises: Mapping[str, NDArray[np.uint8]]
    skins: Mapping[str, NDArray[np.uint8]]

    def named(self, kind: str) -> list[str]:
        """The names of the parts of a kind: ``hair``, ``brows``, ``lashes``, ``clothes-male`` …"""
        return [name for name in self.parts if name.startswith(kind)]

    @cached_property
    def _canvas(self) -> tuple[NDArray[np.bool_], NDArray[np.int32], Floats]:
        """Where skin lies in texture space, the vertices [n, 3] there and their shares [n, 3]."""
        corners = self.uv.reshape(-1, 2) * CANVAS
        corners[:, 1] = CANVAS - corners[:, 1]
        flat = np.concatenate([corners, np.ones((len(corners), 1))], 1).astype(np.float32)
        triangles = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
        found = cover(flat, triangles, CANVAS)
        inside = found.triangle >= 0
        second, third = found.shares[inside].T
        shares = np.stack([1 - second - third, second, third], 1)
        return inside, self.triangles[found.triangle[inside]], shares

    def paint(self, values: NDArray[np.floating]) -> Floats:
        """Values [N] of the base mesh's vertices as a texture [1024, 1024], zero where no skin lies."""
        inside, vertices, shares = self._canvas
        texture = np.zeros(inside.shape, np.float32)
        texture[inside] = (values[vertices] * shares).sum(1)
        return texture


def assemble(anatomy: Mapping[str, Any], parts: Mapping[str, Any], names: Mapping[str, list[str]]) -> Kit:
    """A kit from the arrays of both packages.

    Args:
        anatomy: arrays of ``head-anatomy``, see ``remime.weights.convert.anny``.
        parts: arrays of ``head-parts``, see ``remime.weights.convert.makehuman``.
        names: the lists of both descriptions.
    """
    local = np.full(
        int(max(anatomy["ids"].max(), *(parts[f"{p}.anchors"].max() for p in names["parts"]))) + 1, -1
    )
    local[anatomy["ids"]] = np.arange(len(anatomy["ids"]))
    order = [names["expression"].index(name) for name in COEFFICIENTS]
    expression = anatomy["expression"][order].astype(np.float32)
    eyes = (anatomy["eye.left"], anatomy["eye.right"])
    # Eyeballs turn about their centres by the gaze's angles; a target would shear them.
    expression[:, np.concatenate(eyes)] = 0
    pairs = zip(anatomy["detail.negative"], anatomy["detail.positive"], strict=True)
    return Kit(
        ids=anatomy["ids"],
        vertices=anatomy["vertices"],
        triangles=anatomy["skin.triangles"],
        uv=anatomy["skin.uv"],
        expression=expression,
        macro=dict(zip(names["macro"], anatomy["macro"], strict=True)),
        detail=dict(zip(names["detail"], pairs, strict=True)),
        bones=anatomy["bones"],
        joints={bone: anatomy[f"joint.{bone}"] for bone in names["bones"][1:]},
        eyes=eyes,
        head_size=anatomy["size.head"],
        teeth_size=anatomy["size.teeth"],
        masks={key.removeprefix("mask."): value for key, value in anatomy.items() if key.startswith("mask.")},
        parts={name: _part(name, parts, local) for name in names["parts"]},
        irises={name: parts[f"iris.{name}"] for name in names["irises"]},
        skins={name: parts[f"skin.{name}"] for name in names["skins"]},
    )


def _part(name: str, arrays: Mapping[str, Any], local: NDArray[np.intp]) -> Part:
    """What of a part hangs on the head; the legs of a suit have no vertices there."""
    anchors, triangles = local[arrays[f"{name}.anchors"]], arrays[f"{name}.triangles"]
    held = (anchors >= 0).all(1)
    whole = held[triangles].all(1)
    used = np.unique(triangles[whole])
    renumbered = np.full(len(anchors), -1)
    renumbered[used] = np.arange(len(used))
    hidden = local[arrays.get(f"{name}.hidden", np.zeros(0, np.int32))]
    return Part(
        anchors=anchors[used].astype(np.int32),
        weights=arrays[f"{name}.weights"][used],
        offsets=arrays[f"{name}.offsets"][used],
        size=arrays[f"{name}.size"],
        triangles=renumbered[triangles[whole]].astype(np.int32),
        uv=arrays[f"{name}.uv"][whole],
        texture=arrays.get(f"{name}.texture"),
        hidden=hidden[hidden >= 0].astype(np.int32),
    )


@lru_cache(maxsize=1)
def load_kit() -> Kit:
    """The kit of the converted packages; the same object every time.

    Raises:
        WeightsError: they are not there.
    """
    from remime import weights

    anatomy, parts = (weights.load(name) for name in WEIGHTS)
    body, worn = ({key: value.numpy() for key, value in held.tensors.items()} for held in (anatomy, parts))
    return assemble(body, worn, anatomy.meta | parts.meta)

"""The surface of one person: built once, then moved by coefficients, gaze and pose.

Sign conventions are those of ``remime.faces.pose``: yaw is positive when the nose points to the left of the
picture, pitch when the person looks up, roll when the head turns clockwise on the screen; gaze likewise, in
the head's own axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from remime.heads.assets import COEFFICIENTS, Floats, Ints, Kit, Part
from remime.heads.identity import ANCESTRY, Identity

MATERIALS = ("skin", "eyes", "teeth", "tongue", "clothes", "brows", "lashes", "hair")
"""What triangles are made of; from ``brows`` on they are see-through."""

SKIN, EYES, TEETH, TONGUE, CLOTHES, BROWS, LASHES, HAIR = range(len(MATERIALS))

_AGES = {"child": 0.1875, "young": 0.5, "old": 1.0}
_BUILD = ("min", "average", "max")
# How much of the head's turn each bone has made, from the lowest of the neck up.
_TURN = {"neck01": 0.12, "neck02": 0.30, "neck03": 0.60, "head": 1.0}
# The base mesh looks stern: its face at rest is this much of some face units away from what looks neutral.
_RELAXED = {
    "browInnerUp": 0.40,
    "eyeWideLeft": 0.12,
    "eyeWideRight": 0.12,
    "mouthSmileLeft": 0.08,
    "mouthSmileRight": 0.08,
}
_LIDS = tuple(n for n in COEFFICIENTS if n.startswith(("eyeBlink", "eyeSquint", "eyeWide", "eyeLook")))


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """The rotation [3, 3] of a head, first rolled, then pitched, then turned; degrees."""
    a, b, c = -np.radians((yaw, pitch, roll))
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return turn @ nod @ tilt


def angles(turn: NDArray[np.floating]) -> NDArray[np.float64]:
    """Yaw, pitch and roll [3] in degrees of a rotation [3, 3], the inverse of :func:`rotation`."""
    yaw = np.arctan2(turn[0, 2], turn[2, 2])
    pitch = -np.arcsin(np.clip(turn[1, 2], -1, 1))
    return -np.degrees([yaw, pitch, np.arctan2(turn[1, 0], turn[1, 1])])


def rotated(vectors: Floats, turn: NDArray[np.floating]) -> Floats:
    """Vectors [n, 3] after a rotation [3, 3]; not by BLAS, whose sums depend on how many threads it has."""
    return np.einsum("nj,ij->ni", vectors, turn)


def _between(value: float, anchors: dict[str, float]) -> dict[str, float]:
    """Shares of named anchors that interpolate a value linearly; they sum to 1."""
    names, places = list(anchors), np.array(list(anchors.values()))
    shares = {name: float(np.interp(value, places, np.eye(len(names))[i])) for i, name in enumerate(names)}
    return {name: share for name, share in shares.items() if share}


def resting(kit: Kit, identity: Identity) -> Floats:
    """The base mesh [N, 3] of a person's face at rest, where the kit has it."""
    sexes = {"female": 1 - identity.gender, "male": identity.gender}
    ages = _between(identity.age, _AGES)
    muscles, weights = (
        _between(value, dict(zip(_BUILD, (0.0, 0.5, 1.0), strict=True)))
        for value in (identity.muscle, identity.weight)
    )
    shares: dict[str, float] = {}
    for sex, is_sex in sexes.items():
        for age, is_age in ages.items():
            for people, is_people in zip(ANCESTRY, identity.ancestry, strict=True):
                shares[f"{people}-{sex}-{age}"] = is_people * is_sex * is_age
            for muscle, is_muscle in muscles.items():
                for weight, is_weight in weights.items():
                    name = f"universal-{sex}-{age}-{muscle}muscle-{weight}weight"
                    shares[name] = is_sex * is_age * is_muscle * is_weight
    vertices = kit.vertices.copy()
    for name, share in shares.items():
        if share:
            vertices += np.float32(share) * kit.macro[name]
    for name, value in identity.detail.items():
        if value:
            vertices += np.float32(abs(value)) * kit.detail[name][int(value > 0)]
    for name, value in _RELAXED.items():
        vertices += np.float32(value) * kit.expression[COEFFICIENTS.index(name)]
    return vertices


class _Fitted(NamedTuple):
    """A part on this person: its first vertex, and what carries it."""

    name: str
    start: int
    anchors: Ints
    weights: Floats
    offsets: Floats

    def place(self, base: Floats) -> Floats:
        return (base[self.anchors] * self.weights[..., None]).sum(1) + self.offsets

    @property
    def end(self) -> int:
        return self.start + len(self.anchors)


@dataclass(frozen=True)
class Pose:
    """How somebody holds still in one frame.

    Args:
        coefficients: [52] in the order of ``COEFFICIENTS``, 0 at rest and 1 in full.
        gaze: yaw and pitch of both eyes in degrees, relative to the head.
        head: yaw, pitch and roll in degrees.
    """

    coefficients: NDArray[np.floating]
    gaze: tuple[float, float] = (0.0, 0.0)
    head: tuple[float, float, float] = (0.0, 0.0, 0.0)


STILL = Pose(np.zeros(len(COEFFICIENTS)))
"""A face at rest that looks ahead."""


def distances(vertices: Floats, pairs: Ints) -> Floats:
    """Distances [3] along x, y, z of three pairs [3, 2] of vertices."""
    return np.array([abs(vertices[a, axis] - vertices[b, axis]) for axis, (a, b) in enumerate(pairs)])


class Shape:
    """The mesh of one person.

    Args:
        kit: the assets.
        identity: the person.

    Attributes:
        triangles: [F, 3] vertices of skin and parts.
        uv: [F, 3, 2] texture coordinates of their corners.
        material: [F] numbers of ``MATERIALS``, in their order.
        closed: how many triangles come before the clothes, of which the inside can be seen.
        opaque: how many triangles come before the see-through ones.
        base: how many vertices are the base mesh's.
        neutral: [base, 3] the base mesh at rest, its origin between the eyes.
        eyes: [2, 3] centres of the left and the right eyeball at rest.
        joints: [3] where a bone begins, by its name.
        bones: [V, 5] how much a vertex follows torso, three neck bones, head.
        parts: where each part's vertices lie, by its material.
        scale: [3] distances on the head that parts are scaled by.
        blink: what ``eyeBlink`` of the left and right eye is multiplied with, see ``remime.heads.lids``.
    """

    def __init__(self, kit: Kit, identity: Identity) -> None:
        self.kit = kit
        vertices = resting(kit, identity)
        self.scale = distances(vertices, kit.head_size)
        teeth = distances(vertices, kit.teeth_size)
        vertices -= np.mean([vertices[eye].mean(0) for eye in kit.eyes], 0)
        self.neutral = vertices
        self.base = len(vertices)
        self.blink = np.ones(2)
        self.joints = {bone: vertices[kit.joints[bone]].mean(0) for bone in _TURN}
        self.eyes = np.stack([vertices[eye].mean(0) for eye in kit.eyes])  # left, right
        self._fit(identity, teeth)
        self._prepare_lids()

    def _fit(self, identity: Identity, teeth: Floats) -> None:
        kit = self.kit
        worn = {"eyes": EYES, "teeth": TEETH, "tongue": TONGUE, identity.clothes: CLOTHES}
        worn |= {identity.brows: BROWS, identity.lashes: LASHES}
        worn |= {identity.hair: HAIR} if identity.hair else {}
        shown = self._shown(kit.parts[identity.clothes])
        triangles, uv = [kit.triangles[shown]], [kit.uv[shown]]
        material, bones = [np.full(int(shown.sum()), SKIN)], [kit.bones]
        self.parts: dict[str, _Fitted] = {}
        start = self.base
        for name, kind in worn.items():
            part = kit.parts[name]
            offsets = part.offsets * (teeth if kind == TEETH else self.scale) / part.size
            self.parts[MATERIALS[kind]] = _Fitted(name, start, part.anchors, part.weights, offsets)
            triangles.append(part.triangles + start)
            uv.append(part.uv)
            material.append(np.full(len(part.triangles), kind))
            bones.append((kit.bones[part.anchors] * part.weights[..., None]).sum(1))
            start += len(part.anchors)
        self.triangles = np.ascontiguousarray(np.concatenate(triangles), np.int32)
        self.uv = np.ascontiguousarray(np.concatenate(uv), np.float32)
        self.material = np.concatenate(material).astype(np.int8)
        self.closed = int((self.material < CLOTHES).sum())
        self.opaque = int((self.material < BROWS).sum())
        self.bones = np.concatenate(bones).astype(np.float32)
        self._eyeballs = self.parts["eyes"].place(self.neutral)
        self._left = self._eyeballs[:, 0] > 0

    def _shown(self, clothes: Part) -> NDArray[np.bool_]:
        """Which triangles of the skin do not lie below clothes."""
        hidden = np.zeros(self.base, bool)
        hidden[clothes.hidden] = True
        return np.logical_not(hidden[self.kit.triangles].all(1))

    def _prepare_lids(self) -> None:
        """The vertices of each eye's lids, and how far they are from the middle of the eyeball."""
        rows = [COEFFICIENTS.index(name) for name in _LIDS]
        moved = np.abs(self.kit.expression[rows]).max((0, 2)) > 0.01
        self._lids = []
        for centre in self.eyes:
            distance = np.linalg.norm(self.neutral - centre, axis=1)
            near = np.flatnonzero(moved & (distance < 2.2 * self.radius) & (self.neutral[:, 2] > centre[2]))
            self._lids.append((near, centre, distance[near]))

    @property
    def radius(self) -> float:
        """Of an eyeball, in decimetres."""
        return float(np.linalg.norm(self._eyeballs[self._left] - self.eyes[0], axis=1).mean())

    def relaxed(self, pose: Pose) -> Floats:
        """The base mesh [N, 3] with its expression, the head held straight."""
        values = np.array(pose.coefficients, np.float32)
        for side, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
            values[COEFFICIENTS.index(name)] *= self.blink[side]
        used = np.flatnonzero(np.abs(values) > 1e-4)
        vertices = self.neutral + np.einsum("k,knc->nc", values[used], self.kit.expression[used])
        for near, centre, distance in self._lids:
            # Targets move along straight lines; a lid slides over the eyeball.
            from_centre = vertices[near] - centre
            now = np.linalg.norm(from_centre, axis=1)
            out = (np.minimum(distance, 1.25 * self.radius) / now).clip(1.0)
            vertices[near] = centre + from_centre * out[:, None]
        return vertices

    def posed(self, pose: Pose) -> Floats:
        """All vertices [V, 3] in one frame."""
        base = self.relaxed(pose)
        straight = np.empty((len(self.bones), 3), np.float32)
        straight[: self.base] = base
        for fitted in self.parts.values():
            straight[fitted.start : fitted.end] = fitted.place(base)
        eyes = self.parts["eyes"]
        straight[eyes.start : eyes.end] = self._looking(pose.gaze)
        moved = self.bones[:, :1] * straight
        for column, (turn, shift) in enumerate(self._bone_moves(pose.head), 1):
            moved += self.bones[:, column : column + 1] * (rotated(straight, turn) + shift)
        return moved

    def _looking(self, gaze: tuple[float, float]) -> Floats:
        turned = np.empty_like(self._eyeballs)
        turn = rotation(*gaze, 0).astype(np.float32)
        for side, centre in ((self._left, self.eyes[0]), (~self._left, self.eyes[1])):
            turned[side] = rotated(self._eyeballs[side] - centre, turn) + centre
        return turned

    def _bone_moves(self, head: tuple[float, float, float]) -> list[tuple[Floats, Floats]]:
        """Rotation and shift of each bone of the neck and the head, each hanging on the one below."""
        moves: list[tuple[Floats, Floats]] = []
        for bone, share in _TURN.items():
            joint = self.joints[bone]
            turn = rotation(*(share * angle for angle in head)).astype(np.float32)
            place = moves[-1][0] @ joint + moves[-1][1] if moves else joint
            moves.append((turn, place - turn @ joint))
        return moves

    def head_move(self, pose: Pose) -> tuple[Floats, Floats]:
        """Rotation [3, 3] and shift [3] of the head in a frame."""
        return self._bone_moves(pose.head)[-1]

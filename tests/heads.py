"""A head of a few hundred vertices, for tests that need no real one."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remime.heads.assets import COEFFICIENTS, Kit, assemble
from remime.heads.landmarks import _HM08

CENTRE = np.array([0.0, 7.0, 0.0])
EYE = np.array([0.35, 7.2, 0.75])
RADIUS = 0.18
HAIR = ("afro01", "long01", "ponytail01", "short01", "short02", "short04")


def ball(
    centre: NDArray[np.floating], radius: float, rows: int = 8, columns: int = 12
) -> tuple[Any, Any, Any]:
    """Vertices, triangles (counter-clockwise from outside) and their texture coordinates of a sphere."""
    down, around = np.meshgrid(
        np.linspace(0, np.pi, rows + 1), np.linspace(0, 2 * np.pi, columns + 1), indexing="ij"
    )
    vertices = np.stack([np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)], -1)
    places = np.stack([around / (2 * np.pi), 1 - down / np.pi], -1).reshape(-1, 2)
    number = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = (q.ravel() for q in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return vertices.reshape(-1, 3) * radius + centre, triangles, places[triangles]


def _part(
    anchors: NDArray[np.intp], vertices: NDArray[np.float32], triangles: Any, uv: Any
) -> dict[str, Any]:
    """Something held by one vertex each."""
    size = np.array([1.0, 1.0, 1.0], np.float32)
    offsets = np.zeros((len(anchors), 3), np.float32)
    weights = np.tile(np.array([1, 0, 0], np.float32), (len(anchors), 1))
    return {
        "anchors": np.repeat(anchors[:, None], 3, 1).astype(np.int32),
        "weights": weights,
        "offsets": offsets,
        "size": size,
        "triangles": triangles.astype(np.int32),
        "uv": uv.astype(np.float32),
        "texture": np.full((8, 8, 4), 200, np.uint8),
    }


def arrays() -> tuple[dict[str, Any], dict[str, Any], dict[str, list[str]]]:
    """What ``assemble`` makes the kit of: a ball for the skin, and balls for eyes, teeth and tongue in it."""
    mouth = np.array([0.0, 6.6, 0.55])
    balls = {
        "skin": ball(CENTRE, 1.0, 16, 24),
        "left": ball(EYE, RADIUS),
        "right": ball(EYE * [-1, 1, 1], RADIUS),
        "teeth": ball(mouth, 0.15),
        "tongue": ball(mouth - [0, 0.05, 0.05], 0.12),
    }
    starts = np.cumsum([0, *(len(v) for v, _, _ in balls.values())])
    at = {name: np.arange(a, b) for name, a, b in zip(balls, starts, starts[1:], strict=False)}
    vertices = np.concatenate([v for v, _, _ in balls.values()]).astype(np.float32)
    n = len(vertices)
    ids = np.unique([*_HM08, *range(15_000, 15_000 + n - len(set(_HM08)))]).astype(np.int32)
    assert len(ids) == n
    up, ahead = vertices[:, 1] - CENTRE[1], vertices[:, 2]
    expression = np.zeros((len(COEFFICIENTS), n, 3), np.float16)
    expression[COEFFICIENTS.index("jawOpen"), (up < -0.3) & (ahead > 0), 1] = -0.3
    for side, sign in (("Left", 1), ("Right", -1)):
        near = np.linalg.norm(vertices - EYE * [sign, 1, 1], axis=1) < 0.45
        expression[COEFFICIENTS.index(f"eyeBlink{side}"), near & (up > 0.2), 1] = -0.1
    bones = np.zeros((n, 5), np.float32)
    bones[:, 4] = 1
    low = up < -0.8
    bones[low] = [1, 0, 0, 0, 0]
    anatomy: dict[str, Any] = {
        "ids": ids,
        "vertices": vertices,
        "skin.triangles": balls["skin"][1].astype(np.int32),
        "skin.uv": balls["skin"][2].astype(np.float32),
        "expression": expression,
        "macro": np.zeros((0, n, 3), np.float16),
        "detail.negative": np.zeros((1, n, 3), np.float16),
        "detail.positive": np.zeros((1, n, 3), np.float16),
        "bones": bones,
        "eye.left": at["left"].astype(np.int32),
        "eye.right": at["right"].astype(np.int32),
    }
    anatomy["detail.positive"][0, at["skin"], 0] = 0.05 * np.sign(vertices[at["skin"], 0].round(6))
    macro = [
        f"{p}-{s}-{a}"
        for p in ("african", "asian", "caucasian")
        for s in ("female", "male")
        for a in ("child", "young", "old")
    ]
    macro += [
        f"universal-{s}-{a}-{m}muscle-{w}weight"
        for s in ("female", "male")
        for a in ("child", "young", "old")
        for m in ("min", "average", "max")
        for w in ("min", "average", "max")
    ]
    anatomy["macro"] = np.zeros((len(macro), n, 3), np.float16)
    anatomy["macro"][macro.index("caucasian-male-young"), at["skin"], 2] = 0.1
    # Distances of one decimetre along each axis, between vertices of the skin.
    skin = vertices[at["skin"]]
    far = (
        [int(skin[:, axis].argmax()) for axis in range(3)],
        [int(skin[:, axis].argmin()) for axis in range(3)],
    )
    anatomy["size.head"] = anatomy["size.teeth"] = np.stack(far, 1).astype(np.int32)
    for bone in ("neck01", "neck02", "neck03", "head"):
        anatomy[f"joint.{bone}"] = np.array([int(skin[:, 1].argmin())], np.int32)
    for mask in ("lips", "eyelids", "face", "ears", "inside-mouth"):
        anatomy[f"mask.{mask}"] = np.zeros((1024, 1024), np.uint8)
    anatomy["mask.lips"][600:640, 480:544] = 255
    parts: dict[str, Any] = {}

    def add(name: str, held: str | NDArray[np.intp], triangles: Any, uv: Any) -> None:
        anchors = at[held] if isinstance(held, str) else held
        parts.update(
            {f"{name}.{key}": value for key, value in _part(ids[anchors], vertices, triangles, uv).items()}
        )

    both = np.concatenate([at["left"], at["right"]])
    eyes, uv = balls["left"][1], balls["left"][2]
    add("eyes", both, np.concatenate([eyes, eyes + len(at["left"])]), np.concatenate([uv, uv]))
    del parts["eyes.texture"]
    for name in ("teeth", "tongue"):
        add(name, name, *balls[name][1:])
    crown = balls["skin"][1][(up[balls["skin"][1]] > 0.6).all(1)]
    places = balls["skin"][2][(up[balls["skin"][1]] > 0.6).all(1)]
    shirt = balls["skin"][1][(up[balls["skin"][1]] < -0.7).all(1)]
    names = ["eyes", "teeth", "tongue"]
    for name in ("brows01", "lashes01", "lashes02", *(f"hair-{style}" for style in HAIR)):
        add(name, "skin", crown, places)
        parts[f"{name}.texture"][::2, :, 3] = 90
        parts[f"{name}.offsets"][:] = (0.04 if name.startswith("hair") else 0.02) * (skin - CENTRE)
        names.append(name)
    for sex in ("male", "female"):
        name = f"clothes-{sex}-shirt"
        add(name, "skin", shirt, np.zeros((len(shirt), 3, 2)))
        parts[f"{name}.offsets"][:] = 0.1 * (skin - CENTRE)
        parts[f"{name}.hidden"] = ids[np.unique(shirt)]
        names.append(name)
    ages, peoples = ("young", "middleage", "old"), ("african", "asian", "caucasian")
    skins = [f"{age}-{people}-{sex}" for age in ages for people in peoples for sex in ("female", "male")]
    parts |= {f"skin.{name}": np.full((256, 256, 3), 150, np.uint8) for name in skins}
    parts |= {f"iris.{name}": np.full((8, 8, 3), 90, np.uint8) for name in ("blue", "brown")}
    lists = {"expression": list(COEFFICIENTS), "macro": macro, "detail": ["head-fat-decr-incr"]}
    lists |= {"bones": ["torso", "neck01", "neck02", "neck03", "head"], "parts": names}
    return anatomy, parts, lists | {"irises": ["blue", "brown"], "skins": skins}


@cache
def kit() -> Kit:
    """The small kit; nobody changes it."""
    return assemble(*arrays())

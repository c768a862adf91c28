"""The stage ``manifest``."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from remime.errors import InputError
from remime.sources import Clip, Problem
from remime.stages import manifest, status_of
from remime.tables import read_meta, read_table


def folder(tmp_path: Path, *names: str) -> dict[str, str]:
    for name in names:
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).write_bytes(b"x")
    return {"path": str(tmp_path / "clips")}


def test_it_lists_the_clips_sorted(tmp_path: Path) -> None:
    output = tmp_path / "manifest.parquet"
    options = folder(tmp_path, "b/2.mp4", "a/ü.mp4")
    manifest.run("folder", "mine", None, output, tmp_path / "problems.tsv", options)
    rows = read_table(output, "manifest").to_pylist()
    assert [row["clip"] for row in rows] == sorted(row["clip"] for row in rows)
    assert {row["identity"] for row in rows} == {"a", "b"}
    assert all(Path(row["path"]).is_file() and row["stamp"] for row in rows)
    assert read_meta(output)["source"] == "folder"
    assert (tmp_path / "problems.tsv").read_text() == "kind\twhere\twhat\n"


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    options = folder(tmp_path, "b/2.mp4", "a/1.mp4")
    for name in "xy":
        manifest.run("folder", "mine", None, tmp_path / name, tmp_path / "problems.tsv", options)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_what_could_not_be_used_is_counted_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"M2Ohb0FAaJU_{i}.mp4" for i in range(3)] + [f"other {i}.mp4" for i in range(9)]
    options = folder(tmp_path, *names, "a\tb.mp4")
    output, problems = tmp_path / "manifest.parquet", tmp_path / "manifest.problems.tsv"
    manifest.run("celebv_hq", "celebv", None, output, problems, options)
    assert len(read_table(output, "manifest")) == 3
    with problems.open(newline="") as handle:
        rows = list(csv.DictReader(handle, dialect="excel-tab"))
    assert {row["kind"] for row in rows} == {"unknown_name"}
    where = [str(tmp_path / "clips" / name) for name in ("a\tb.mp4", *names[3:])]
    assert sorted(row["where"] for row in rows) == sorted(where)
    assert f"celebv: 10 unknown_name; all of them in {problems}" in caplog.text
    assert caplog.text.count("is none of YOUTUBEID_N.mp4") == 3


def test_half_a_character_is_written_escaped(tmp_path: Path) -> None:
    manifest.write_problems(tmp_path / "p.tsv", [Problem("malformed", "\udcff \ud800", "ü")])
    assert (tmp_path / "p.tsv").read_text().splitlines()[1] == "malformed\t\\udcff \\ud800\tü"


def clip(name: str, **change: str) -> Clip:
    return Clip(
        **{
            "clip": name,
            "video": name,
            "identity": name,
            "split": "train",
            "kind": "video",
            "path": name,
            **change,
        }
    )


@pytest.mark.parametrize(
    ("clips", "problem"),
    [
        ([], "has no clip"),
        ([clip("a"), clip("a")], "clips of the same name: a"),
        ([clip("a", split="dev")], "has the split 'dev'"),
        ([clip("a", kind="sound")], "the kind 'sound'"),
        ([clip("a", identity="i"), clip("b", identity="i", split="test")], "identities in several splits: i"),
    ],
)
def test_what_later_stages_would_confuse_is_refused(clips: list[Clip], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        manifest.check("mine", clips)


def test_the_command_line_reports_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clips").mkdir()
    arguments = ["--source", "folder", "--dataset", "mine", "--output", str(tmp_path / "m.parquet")]
    arguments += ["--problems", str(tmp_path / "p.tsv")]
    options = f'{{"path": "{tmp_path / "clips"}"}}'
    assert status_of(lambda: manifest.main([*arguments, "--options", options])) == 2
    assert "no video or image is in it" in capsys.readouterr().err
    assert not (tmp_path / "m.parquet").exists()

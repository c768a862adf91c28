"""The stage ``collect``, with a source that renders text."""

from __future__ import annotations

import csv
import subprocess
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remime.errors import InputError
from remime.sources import Clip, member_of, write_clips
from remime.stages import collect

CLIPS = [Clip(f"clip-{i}", f"clip-{i}", "who", "train", "render", f"{i}") for i in range(3)]


class Renderer(types.ModuleType):
    """A source whose clip ``bad`` cannot be had; ``made`` lists what was rendered."""

    COLLECTED = True

    def __init__(self) -> None:
        super().__init__("renderer")
        self.made: list[str] = []
        self.bad = ""

    def collector(self, options: dict[str, Any]) -> Callable[[Clip, Path], list[Path]]:
        def make(clip: Clip, folder: Path) -> list[Path]:
            self.made.append(clip.clip)
            files = [folder / f"{clip.clip}.mp4", folder / f"{clip.clip}.npz"]
            for file in files:
                file.write_text(f"{clip.path} {options}")
            if clip.clip == self.bad:
                raise InputError(clip.clip, "cannot be rendered", "give it\nup")
            return files

        return make


@pytest.fixture
def renderer(monkeypatch: pytest.MonkeyPatch) -> Renderer:
    source = Renderer()
    monkeypatch.setattr(collect, "load_source", lambda name: source)
    return source


def run(tmp_path: Path, clips: list[Clip] = CLIPS, **options: Any) -> list[dict[str, str]]:
    write_clips(tmp_path / "clips.tsv", clips)
    paths = [tmp_path / name for name in ("clips.tsv", "x.tar", "x.status.tsv", "state")]
    return collect.run("renderer", *paths, options)


def test_all_files_of_all_clips_are_in_the_tar(tmp_path: Path, renderer: Renderer) -> None:
    assert {row["status"] for row in run(tmp_path)} == {"ok"}
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == [f"clip-{i}.{suffix}" for i in range(3) for suffix in ("mp4", "npz")]
        member = member_of(tar, "clip-1")
        assert member is not None
        handle = tar.extractfile(member)
        assert handle is not None
        assert handle.read() == b"1 {}"
    assert not (tmp_path / "state").exists()


def test_the_same_clips_give_the_same_bytes(tmp_path: Path, renderer: Renderer) -> None:
    run(tmp_path)
    first = (tmp_path / "x.tar").read_bytes()
    run(tmp_path)
    assert (tmp_path / "x.tar").read_bytes() == first


def test_a_clip_that_cannot_be_had_gets_a_status(tmp_path: Path, renderer: Renderer) -> None:
    renderer.bad = "clip-1"
    run(tmp_path)
    with (tmp_path / "x.status.tsv").open() as handle:
        rows = list(csv.DictReader(handle, dialect="excel-tab"))
    assert [row["status"] for row in rows] == ["ok", "unreadable", "ok"]
    assert rows[1]["detail"] == "clip-1: cannot be rendered give it up"
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert member_of(tar, "clip-1") is None
        assert member_of(tar, "clip-2") is not None


def test_a_lost_download_is_called_that(tmp_path: Path, renderer: Renderer) -> None:
    renderer.bad = "a"
    (row,) = run(tmp_path, [Clip("a", "a", "who", "train", "video", "https://example.org/a")])
    assert row["status"] == "download_failed"


def test_an_interrupted_job_goes_on_where_it_was(
    tmp_path: Path, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(collect, "write_tar", cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert not (tmp_path / "x.tar").exists()
    renderer.made.clear()
    run(tmp_path)
    assert renderer.made == []
    assert (tmp_path / "x.tar").exists()


def test_other_options_and_half_clips_are_not_taken_up(
    tmp_path: Path, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect.shutil, "rmtree", lambda *_, **__: None)
    run(tmp_path, CLIPS[:1], size=1)
    renderer.made.clear()
    run(tmp_path, CLIPS[:1], size=2)
    assert renderer.made == ["clip-0"]


def test_an_empty_shard_gives_an_empty_tar(tmp_path: Path, renderer: Renderer) -> None:
    assert run(tmp_path, []) == []
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == []


def test_files_that_are_read_in_place_are_refused(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips.tsv", CLIPS)
    flags = {
        "--source": "folder",
        "--clips": "clips.tsv",
        "--output": "x.tar",
        "--status": "s",
        "--state": "d",
    }
    command = [
        sys.executable,
        "-m",
        "remime.stages.collect",
        *(text for item in flags.items() for text in item),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is read in place" in done.stderr

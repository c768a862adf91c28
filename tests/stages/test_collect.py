"""The stage ``collect``, with a source that renders text, and with videos of a server on this machine."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remime.errors import InputError
from remime.sources import Clip, Single, member_of, write_clips
from remime.sources.cutting import Cut
from remime.stages import collect
from remime.video import read
from tests import clips as films
from tests.server import Handler, VideoServer, serving

CLIPS = [Clip(f"clip-{i}", f"clip-{i}", "who", "train", "render", f"{i}") for i in range(3)]


class Renderer(types.ModuleType):
    """A source whose clip ``bad`` cannot be had; ``made`` lists what was rendered."""

    def __init__(self) -> None:
        super().__init__("renderer")
        self.made: list[str] = []
        self.bad = ""

    def collector(self, options: dict[str, Any], transport: dict[str, Any]) -> Single:
        def make(clip: Clip, folder: Path) -> list[Path]:
            self.made.append(clip.clip)
            files = [folder / f"{clip.clip}.mp4", folder / f"{clip.clip}.npz"]
            for file in files:
                file.write_text(f"{clip.path} {options}")
            if clip.clip == self.bad:
                raise InputError(clip.clip, "cannot be rendered", "give it\nup")
            return files

        return Single(options, make)


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


VIDEOS = [f"VIDEO-{i:05d}" for i in range(7)]
CUTS = {"a": (1.0, 2.0), "b": (4.2, 5.0)}
OPTIONS = {"mode": "download", "download": {"height": 720, "min_height": 0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of which each frame tells its number."""
    root = tmp_path_factory.mktemp("served")
    codec = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 4, "-g", 50)
    for name in VIDEOS:
        films.encode(root / f"{name}.mp4", films.numbered(150), 25, codec)
    return root


@pytest.fixture
def server(folder: Path) -> Iterator[VideoServer]:
    pytest.importorskip("yt_dlp")
    with serving(folder) as running:
        yield running


def write_downloads(path: Path, videos: list[str]) -> None:
    """Two clips of each video."""
    clips = [
        Clip(f"{video}_{name}", video, video, "train", "download", Cut(video, *times).text())
        for video in videos
        for name, times in CUTS.items()
    ]
    write_clips(path, clips)


def program(server: VideoServer, folder: Path, videos: list[str], **transport: Any) -> subprocess.Popen[str]:
    """The stage as a process of its own, in a folder."""
    write_downloads(folder / "clips.tsv", videos)
    told = {"url": server.url, "pause": 0.05, "retries": 1, "timeout": 60, **transport}
    flags = {"--source": "celebv_hq", "--clips": "clips.tsv", "--output": "x.tar", "--status": "x.status.tsv"}
    flags |= {"--state": "state", "--options": json.dumps(OPTIONS), "--transport": json.dumps(told)}
    command = [
        sys.executable,
        "-m",
        "remime.stages.collect",
        *(text for item in flags.items() for text in item),
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
        # Tests that a shell runs in the background have been told to ignore it, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    said = process.communicate(timeout=300)[1]
    assert process.returncode == code, said
    return said


def statuses(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "x.status.tsv").open() as handle:
        return {row["clip"]: row for row in csv.DictReader(handle, dialect="excel-tab")}


def test_one_download_serves_all_clips_of_a_video(server: VideoServer, tmp_path: Path) -> None:
    finish(program(server, tmp_path, VIDEOS[:2]))
    rows = statuses(tmp_path)
    assert [(row["status"], row["lines"], row["seconds"]) for row in rows.values()] == [
        ("ok", "64", "1.0"),
        ("ok", "64", "0.8"),
    ] * 2
    # The page, the size, and the pieces: a small video is a single one.
    assert server.asked == dict.fromkeys(VIDEOS[:2], 3)
    assert not (tmp_path / "state").exists()
    with tarfile.open(tmp_path / "x.tar") as tar:
        # Without a filter, which Python has since 3.11.4 only; the archive is our own.
        for member in tar:
            (tmp_path / Path(member.name).name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
    for name, (start, end) in CUTS.items():
        found = [films.read_number(f.image) for f in read(tmp_path / f"{VIDEOS[0]}_{name}.mp4")]
        assert found == list(range(round(start * 25), round(end * 25)))


def test_what_is_lost_has_its_reason(server: VideoServer, tmp_path: Path) -> None:
    server.manners[VIDEOS[0]] = lambda handler, _: handler.fail(451)
    server.manners[VIDEOS[1]] = lambda handler, _: handler.fail(429, Retry_After="0")
    finish(program(server, tmp_path, VIDEOS[:3]))
    rows = statuses(tmp_path)
    found = {video: {rows[f"{video}_{name}"]["status"] for name in CUTS} for video in VIDEOS[:3]}
    assert found == {VIDEOS[0]: {"geo_blocked"}, VIDEOS[1]: {"rate_limited"}, VIDEOS[2]: {"ok"}}
    assert "HTTP Error 451" in rows[f"{VIDEOS[0]}_a"]["detail"]
    assert (server.asked[VIDEOS[0]], server.asked[VIDEOS[1]]) == (1, 2)


def wait_for(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many clips are finished."""
    deadline = time.monotonic() + 200
    while sum(path.suffix == "" and path.is_dir() and "video" not in path.name
              for path in folder.glob("state/*")) < count:  # fmt: skip
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_job_fetches_no_finished_video_again(server: VideoServer, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    finish(program(server, tmp_path / "whole", VIDEOS[:4]))
    server.asked.clear()
    server.manners[VIDEOS[1]] = lambda handler, _: handler.fail(404)
    server.manners[VIDEOS[3]] = lambda handler, name: handler.serve(name, delay=3.0)
    (tmp_path / "killed").mkdir()
    process = program(server, tmp_path / "killed", VIDEOS[:4])
    wait_for(tmp_path / "killed", 4, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "x.tar").exists()
    before = dict(server.asked)
    server.manners.pop(VIDEOS[3])
    finish(program(server, tmp_path / "killed", VIDEOS[:4]))
    after = dict(server.asked)
    # Neither what was finished nor what is known to be gone.
    assert {video: after[video] - before[video] for video in VIDEOS[:3]} == dict.fromkeys(VIDEOS[:3], 0)
    rows = statuses(tmp_path / "killed")
    assert {rows[f"{VIDEOS[1]}_{name}"]["status"] for name in CUTS} == {"removed"}
    assert members(tmp_path / "killed") == {
        name: data for name, data in members(tmp_path / "whole").items() if VIDEOS[1] not in name
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_a_download(server: VideoServer, tmp_path: Path, number: int, code: int) -> None:
    started = threading.Event()

    def slow(handler: Handler, name: str) -> bool:
        if handler.headers.get("Range", "bytes=0-0") == "bytes=0-0":
            return False
        started.set()
        return handler.serve(name, delay=2.0)

    server.manners[VIDEOS[0]] = slow
    process = program(server, tmp_path, VIDEOS[:1])
    assert started.wait(200)
    process.send_signal(number)
    finish(process, code)
    assert not (tmp_path / "x.tar").exists()


def members(folder: Path) -> dict[str, bytes]:
    with tarfile.open(folder / "x.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_a_network_that_is_gone_stops_the_job_and_loses_nothing(server: VideoServer, tmp_path: Path) -> None:
    for video in VIDEOS[1:]:
        server.manners[video] = lambda handler, _: handler.fail(503)
    said = finish(program(server, tmp_path, VIDEOS, retries=0), code=1)
    assert "5 videos one after the other could not be had (5 network)" in said
    assert "run again later; what is finished is kept" in said
    assert server.asked[VIDEOS[6]] == 0
    before = dict(server.asked)
    server.manners.clear()
    finish(program(server, tmp_path, VIDEOS))
    assert {row["status"] for row in statuses(tmp_path).values()} == {"ok"}
    assert server.asked[VIDEOS[0]] == before[VIDEOS[0]]


def test_how_downloads_are_done_changes_nothing(server: VideoServer, tmp_path: Path) -> None:
    for name, rate in (("fast", 0), ("slow", 1)):
        (tmp_path / name).mkdir()
        finish(program(server, tmp_path / name, VIDEOS[:1], rate=rate, at_once=1))
    assert members(tmp_path / "fast") == members(tmp_path / "slow")


def test_without_yt_dlp_the_job_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    write_downloads(tmp_path / "clips.tsv", VIDEOS[:1])
    paths = [tmp_path / name for name in ("clips.tsv", "x.tar", "x.status.tsv", "state")]
    with pytest.raises(InputError, match=r"pip install 'remime\[download\]'"):
        collect.run("celebv_hq", *paths, OPTIONS)

"""The whole workflow with the real networks on tiny clips, and the same after kill -9 in every stage."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from remime import video
from remime.shards import shard_names
from tests.workflow.real import FRAMES, MESH, NETWORKS, make_project, render_all
from tests.workflow.runs import LOG, scores, start, unlock, watch

# Every stage that a run starts; each is killed once.
STAGES = (
    "collect", "manifest", "split", "align", "measure", "select", "invert", "index", "train", "plan",
    "reenact", "score", "summarize", "figures", "sheet", "report",
)  # fmt: skip


def _snakemake(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return start(folder, "--quiet", "rules", *arguments)


def _watch(
    folder: Path, seen: Callable[[str, psutil.Process], bool], *arguments: str
) -> tuple[bool, list[tuple[str, int]]]:
    return watch(_snakemake(folder, *arguments), folder, seen)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """``small_disk("size=40m")`` makes the project's results folder a disk of its own, or changes it."""
    folder = tmp_path / "run" / "results"

    def mount(options: str) -> None:
        folder.mkdir(exist_ok=True)
        known = ("-o", f"remount,{options}") if folder.is_mount() else ("-t", "tmpfs", "-o", options, "tmpfs")
        done = subprocess.run(["mount", *known, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Any]) -> Path:
    for name in (*NETWORKS, *MESH):
        weights(name)
    folder = tmp_path_factory.mktemp("clips")
    render_all(folder)
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A finished run, and for how long the shortest job of each stage ran."""
    folder = make_project(tmp_path_factory.mktemp("whole") / "run", clips)
    jobs: dict[tuple[str, int], float] = {}

    def clock(stage: str, process: psutil.Process) -> bool:
        jobs[stage, process.pid] = time.time() - process.create_time()
        return False

    _watch(folder, clock, "--", "shards")
    _watch(folder, clock)
    seconds: dict[str, float] = {}
    for (stage, _), duration in jobs.items():
        seconds[stage] = min(duration, seconds.get(stage, duration))
    return folder, seconds


def test_everything_comes_out(whole: tuple[Path, dict[str, float]]) -> None:
    folder, seconds = whole
    assert set(seconds) == set(STAGES)
    page = (folder / "results/report/index.html").read_text()
    for expected in ("mapping", "linear-psp", "anna", "Pose (MAE)", "unreadable"):
        assert expected in page
    rows = scores(folder)
    clip_rows = {(r["benchmark"], r["model"], r["metric"]): r for r in rows if r["frame"] is None}
    assert {key[:2] for key in clip_rows} == {
        ("cross", "mapping"), ("cross", "linear-psp"), ("self", "mapping"),
    }  # fmt: skip
    coverage = [row["value"] for key, row in clip_rows.items() if key[2] == "coverage"]
    assert all(value > 0.9 for value in coverage)
    # The same person, only moved, stays more alike than half.
    assert clip_rows["self", "mapping", "csim_inversion"]["value"] > 0.5
    assert clip_rows["self", "mapping", "lpips"]["value"] < 0.5
    tables = (folder / "results/own/aligned").glob("*.status.parquet")
    status = [row["status"] for table in tables for row in pq.read_table(table).to_pylist()]
    assert sorted(status) == ["ok", "ok", "ok", "ok", "unreadable"]


def test_videos_follow_the_driving_clip(whole: tuple[Path, dict[str, float]]) -> None:
    folder, _ = whole
    videos = sorted((folder / "results/benchmarks").rglob("videos/*/*.mp4"))
    assert len(videos) == 5
    for path in videos:
        info = video.probe(path)
        assert sum(1 for _ in video.read(path)) == FRAMES
        assert info.fps == pytest.approx(25)


def test_nothing_is_done_twice(whole: tuple[Path, dict[str, float]]) -> None:
    folder, _ = whole
    done, jobs = _watch(folder, lambda stage, process: False)
    assert done
    assert not jobs


def test_kill_in_every_stage(whole: tuple[Path, dict[str, float]], clips: Path, tmp_path: Path) -> None:
    """Killed once inside each stage, the workflow comes to the same scores, and repeats no finished job."""
    reference, seconds = whole
    folder = make_project(tmp_path / "run", clips)
    choose = random.Random(20)
    pending = {stage: choose.uniform(0.3, 0.7) * seconds[stage] for stage in STAGES}

    def when_due(stage: str, process: psutil.Process) -> bool:
        if stage in pending and time.time() - process.create_time() >= pending[stage]:
            del pending[stage]
            return True
        return False

    def run() -> None:
        for arguments in (("--", "shards"), ()):
            for _ in range(2 * len(STAGES)):
                if _watch(folder, when_due, *arguments)[0]:
                    break
                unlock(folder)

    run()
    if pending:
        # Where the machine has become faster meanwhile these ended before their time: once more, earlier.
        for stage in pending:
            pending[stage] /= 4
        shutil.rmtree(folder / "results")
        run()
    assert not pending
    assert scores(folder) == scores(reference)
    assert not [path for path in (folder / "results").rglob("*") if ".tmp" in path.name]


def test_a_read_only_disk(clips: Path, tmp_path: Path, small_disk: Callable[[str], None]) -> None:
    folder = make_project(tmp_path / "run", clips)
    small_disk("size=40m,ro")
    assert _snakemake(folder, "--", "shards").wait() == 1
    assert re.search(r"Read-only file system: 'results/\w+'", (folder / LOG).read_text())


def test_a_disk_that_fills_up_in_every_stage(
    whole: tuple[Path, dict[str, float]], clips: Path, tmp_path: Path, small_disk: Callable[[str], None]
) -> None:
    """It is told with the path; with room again, the workflow goes on from what was finished."""
    folder = make_project(tmp_path / "run", clips)
    log, results = folder / LOG, folder / "results"
    before: dict[str, tuple[str, ...]] = {
        "collect": ("--", "shards"),
        "align": ("--until", "collect"),
        "invert": ("--", "results/models/psp/model.safetensors", *_selected(("own", 2), ("puppets", 1))),
        "train": ("--until", "index"),
    }
    finished: dict[Path, int] = {}
    for stage, arguments in before.items():
        small_disk("size=500m")
        assert _snakemake(folder, *arguments).wait() == 0, log.read_text()[-4000:]
        assert {path: path.stat().st_mtime_ns for path in finished} == finished, stage
        finished = {path: path.stat().st_mtime_ns for path in results.rglob("*.[ht][5a]*") if path.is_file()}
        small_disk(f"size={_used(results) + 8192}")
        start = log.stat().st_size
        assert _snakemake(folder, "--retries", "0").wait() == 1
        said = log.read_bytes()[start:].decode()
        assert f"-m remime.stages.{stage} " in said
        assert re.search(r"error: results/\S+: .*No space left on device", said), stage
        assert "error: No space" not in said
        assert "free" in said
        assert "Traceback" not in said
    small_disk("size=500m")
    assert _snakemake(folder).wait() == 0, log.read_text()[-4000:]
    assert scores(folder) == scores(whole[0])


def _selected(*datasets: tuple[str, int]) -> list[str]:
    return [f"results/{name}/selected/{shard}.parquet" for name, n in datasets for shard in shard_names(n)]


def _used(folder: Path) -> int:
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def test_shard_cut_in_half(whole: tuple[Path, dict[str, float]]) -> None:
    """It is named with what to do; done so, the same scores come out. This changes the run, so it is last."""
    folder, _ = whole
    before = scores(folder)
    shard = folder / "results/puppets/aligned/0000-of-0001.h5"
    os.truncate(shard, shard.stat().st_size // 2)
    log = folder / LOG
    start = log.stat().st_size
    assert _snakemake(folder).wait() == 1
    said = log.read_text()[start:]
    assert re.search(r"error: results/puppets/aligned/0000-of-0001\.h5: .*\n.*delete", said)
    assert "Traceback" not in said
    shard.unlink()
    assert _snakemake(folder).wait() == 0, log.read_text()[-4000:]
    assert scores(folder) == before

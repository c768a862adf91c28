"""The whole workflow with the real networks on tiny clips, and the same after kill -9 in every stage."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from remime import video
from tests.workflow.project import ROOT, render

FRAMES = 8
PEOPLE = ("anna", "berta", "carla", "dora")
NETWORKS = ("mobile-ffhq", "dlib-landmarks-68", "dlib-resnet-id", "sface", "hopenet-lite", "lpips-alex")
MESH = ("face-mesh", "blendshapes")
# Every stage that a run starts; each is killed once.
STAGES = (
    "collect", "manifest", "split", "align", "measure", "select", "invert", "index", "train", "plan",
    "reenact", "score", "summarize", "figures", "sheet", "report",
)  # fmt: skip
CONFIG = {
    "datasets": {
        "own": {
            "source": "folder",
            "path": "clips",
            "shards": 2,
            "select": {"min_frames": 2, "sample_interval": 0.1},
        },
        "puppets": {
            "source": "puppets",
            "identities": 3,
            "frames": 6,
            "size": 256,
            "shards": 1,
            "select": {"min_frames": 2, "sample_interval": 0.04},
        },
    },
    "inverters": {
        "psp": {
            "method": "restyle-psp",
            "preset": "small",
            "refinements": 1,
            "init": "models/restyle-psp-small.safetensors",
        },
    },
    "models": {
        "linear-psp": {"method": "linear", "inverter": "psp"},
        "mapping": {
            "method": "mapping",
            "preset": "small",
            "inverter": "psp",
            "init": "models/mapping-small.safetensors",
            "train": {
                "datasets": ["own", "puppets"],
                "steps": 4,
                "batch": 1,
                "validate_every": 2,
                "checkpoint_every": 1,
            },
        },
    },
    "protocols": {
        "cross": {"kind": "cross", "datasets": ["own"], "inverter": "psp", "split": "all", "pairs": 2},
        "self": {
            "kind": "self",
            "datasets": ["own"],
            "inverter": "psp",
            "split": "all",
            "pairs": 1,
            "models": ["mapping"],
        },
    },
    "summarize": {"bootstrap": 100},
}


def _project(folder: Path, clips: Path) -> Path:
    folder.mkdir()
    for name in ("Snakefile", "workflow", "src", "envs", "profiles", "models", "resources"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "clips").symlink_to(clips)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


def _snakemake(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "rules", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=(folder / "snakemake.log").open("a"),
        stderr=subprocess.STDOUT,
        # A group of its own, so that one signal ends the workflow and all of its jobs.
        start_new_session=True,
    )


def _job(workflow: subprocess.Popen[str]) -> tuple[str, psutil.Process] | None:
    """The stage that runs now, and its process."""
    try:
        for process in psutil.Process(workflow.pid).children(recursive=True):
            found = re.search(r"^\S*python\S* -m remime\.stages\.(\w+)", " ".join(process.cmdline()))
            if found:
                return found[1], process
    except psutil.Error:
        pass  # it ended while it was looked at
    return None


def _watch(
    folder: Path, seen: Callable[[str, psutil.Process], bool], *arguments: str
) -> tuple[bool, list[tuple[str, int]]]:
    """Run until the end or until ``seen`` kills; whether it ended, and which jobs there were."""
    workflow = _snakemake(folder, *arguments)
    jobs: list[tuple[str, int]] = []
    while workflow.poll() is None:
        job = _job(workflow)
        if job is not None:
            if (job[0], job[1].pid) not in jobs:
                jobs.append((job[0], job[1].pid))
            if seen(*job):
                os.killpg(workflow.pid, signal.SIGKILL)
                workflow.wait()
                return False, jobs
        time.sleep(0.03)
    assert workflow.returncode == 0, (folder / "snakemake.log").read_text()[-6000:]
    return True, jobs


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


def _scores(folder: Path) -> list[dict[str, Any]]:
    tables = sorted((folder / "results/benchmarks").rglob("scores/*.parquet"))
    return [row for table in tables for row in pq.read_table(table).to_pylist()]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, weights: Callable[[str], Any]) -> Path:
    for name in (*NETWORKS, *MESH):
        weights(name)
    folder = tmp_path_factory.mktemp("clips")
    render(folder, PEOPLE, FRAMES)
    (folder / "anna" / "broken.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A finished run, and for how long the shortest job of each stage ran."""
    folder = _project(tmp_path_factory.mktemp("whole") / "run", clips)
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
    rows = _scores(folder)
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
    folder = _project(tmp_path / "run", clips)
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
                # What `make unlock` does.
                assert _snakemake(folder, "--unlock").wait() == 0

    run()
    if pending:
        # Where the machine has become faster meanwhile these ended before their time: once more, earlier.
        for stage in pending:
            pending[stage] /= 4
        shutil.rmtree(folder / "results")
        run()
    assert not pending
    assert _scores(folder) == _scores(reference)
    assert not [path for path in (folder / "results").rglob("*") if ".tmp" in path.name]


def test_full_and_read_only_disks(
    whole: tuple[Path, dict[str, float]], clips: Path, tmp_path: Path, small_disk: Callable[[str], None]
) -> None:
    """Both are told with the path; with room again, the workflow goes on from what was finished."""
    folder = _project(tmp_path / "run", clips)
    log, results = folder / "snakemake.log", folder / "results"
    small_disk("size=40m,ro")
    assert _snakemake(folder, "--", "shards").wait() == 1
    assert re.search(r"Read-only file system: 'results/\w+'", log.read_text())
    small_disk("size=40m,rw")
    assert _snakemake(folder).wait() == 1
    said = log.read_text()
    assert re.search(r"error: results/\S+: .*No space left on device", said)
    assert "free" in said
    assert "Traceback" not in said
    finished = {path: path.stat().st_mtime_ns for path in results.glob("*/clips/*.tar")}
    assert finished
    small_disk("size=500m,rw")
    assert _snakemake(folder).wait() == 0, log.read_text()[-4000:]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert _scores(folder) == _scores(whole[0])


def test_shard_cut_in_half(whole: tuple[Path, dict[str, float]]) -> None:
    """It is named with what to do; done so, the same scores come out. This changes the run, so it is last."""
    folder, _ = whole
    before = _scores(folder)
    shard = folder / "results/puppets/aligned/0000-of-0001.h5"
    os.truncate(shard, shard.stat().st_size // 2)
    log = folder / "snakemake.log"
    start = log.stat().st_size
    assert _snakemake(folder).wait() == 1
    said = log.read_text()[start:]
    assert re.search(r"error: results/puppets/aligned/0000-of-0001\.h5: .*\n.*delete", said)
    assert "Traceback" not in said
    shard.unlink()
    assert _snakemake(folder).wait() == 0, log.read_text()[-4000:]
    assert _scores(folder) == before

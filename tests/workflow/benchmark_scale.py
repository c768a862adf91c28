"""What listing, dividing and planning datasets of 10,000 to 1,000,000 clips take.

``python -m tests.workflow.benchmark_scale [CLIPS ...]`` makes a tree of that many empty files as VoxCeleb 2
circulates, runs the stages that read the list of clips, plans the whole workflow over 1,024 shards, and
prints a Markdown table. A million files need a million inodes in the temporary folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from remime.layout import tree_digest
from tests.workflow.project import Project

CONFIG: dict[str, Any] = {
    "inverters": {"psp": {"method": "restyle-psp", "preset": "small", "init": "models/psp.safetensors"}},
    "models": {
        "mapping": {"method": "mapping", "inverter": "psp", "train": {"datasets": ["big"], "steps": 1}}
    },
    "protocols": {"cross": {"kind": "cross", "datasets": ["big"], "inverter": "psp", "batches": 32}},
}
COUNTS = (10_000, 100_000, 1_000_000)
SHARDS = 1024
_VIDEOS, _UTTERANCES = 20, 10  # of a person, of a video


def tree(root: Path, count: int) -> None:
    """Empty files ``idNNNNN/YOUTUBEID/NNNNN.mp4``."""
    for index in range(count):
        video, utterance = divmod(index, _UTTERANCES)
        folder = root / f"id{video // _VIDEOS:05d}" / f"{video:011d}"
        if utterance == 0:
            folder.mkdir(parents=True)
        (folder / f"{utterance:05d}.mp4").touch()


def measured(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Seconds, peak memory in MB and output of a program."""
    begin = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{said[-2000:]}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024, said


def row(count: int, folder: Path) -> str:
    """The line of the table for so many clips."""
    clips = folder / "clips"
    tree(clips, count)
    entry: dict[str, Any] = {"source": "voxceleb2", "path": str(clips), "shards": SHARDS}
    project = Project(folder, {**CONFIG, "datasets": {"big": entry}})
    results = folder / "results" / "big"
    stage = [sys.executable, "-m", "remime.stages.manifest", "--source", "voxceleb2", "--dataset", "big"]
    files = ["--output", f"{results}/manifest.parquet", "--problems", f"{results}/manifest.problems.tsv"]
    manifest = measured([*stage, *files, "--options", f'{{"path": "{clips}", "mode": "local"}}'], folder)
    stage = [sys.executable, "-m", "remime.stages.split", "--manifest", f"{results}/manifest.parquet"]
    split = measured([*stage, "--shards", str(SHARDS), "--output", f"{results}/shards"], folder)
    begin = time.perf_counter()
    tree_digest(clips)
    listing = time.perf_counter() - begin
    # Planned as on a first run: all jobs.
    for path in (results / "shards", results):
        for file in path.glob("**/*.*"):
            file.unlink()
    plan = measured([sys.executable, "-m", "snakemake", "--dag", "dot", "--", "all"], folder)
    jobs = sum(project.plan().values())
    figures = [
        f"{count:,}",
        *(
            f"{seconds:.1f} s ({seconds / count * 1e6:.0f} µs, {mb:.0f} MB)"
            for seconds, mb, _ in (manifest, split)
        ),
        f"{listing:.1f} s",
        f"{plan[0]:.1f} s ({plan[1]:.0f} MB)",
        f"{jobs:,}",
    ]
    return f"| {' | '.join(figures)} |"


def main() -> None:
    print("| clips | `manifest` | `split` | listing | DAG, with listing | jobs |\n|---|---|---|---|---|---|")
    for count in [int(text) for text in sys.argv[1:]] or COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            print(row(count, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

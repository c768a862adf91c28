"""Real runs of the workflow as processes that are watched, killed, and read afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

_STEP = 0.03  # s from one look at a run to the next
LOG = "snakemake.log"


def start(folder: Path, *arguments: str, cores: int = 1) -> subprocess.Popen[str]:
    """Start Snakemake in a folder; what it says is appended to ``snakemake.log`` there."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / LOG).open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments],
            cwd=folder,
            env=environment,
            text=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A group of its own, so that one signal ends the workflow and all of its jobs.
            start_new_session=True,
        )


def job(workflow: subprocess.Popen[str]) -> tuple[str, psutil.Process] | None:
    """The stage that runs now, and its process."""
    try:
        for process in psutil.Process(workflow.pid).children(recursive=True):
            found = re.search(r"^\S*python\S* -m remime\.stages\.(\w+)", " ".join(process.cmdline()))
            if found:
                return found[1], process
    except psutil.Error:
        pass  # it ended while it was looked at
    return None


def watch(
    workflow: subprocess.Popen[str], folder: Path, due: Callable[[str, psutil.Process], bool]
) -> tuple[bool, list[tuple[str, int]]]:
    """Wait until the end, or until ``due`` says of a stage and its process that all is to be killed.

    Returns:
        Whether it came to its end, and which jobs there were.
    """
    jobs: list[tuple[str, int]] = []
    while workflow.poll() is None:
        found = job(workflow)
        if found is not None:
            if (found[0], found[1].pid) not in jobs:
                jobs.append((found[0], found[1].pid))
            if due(*found):
                kill(workflow)
                return False, jobs
        time.sleep(_STEP)
    assert workflow.returncode == 0, (folder / LOG).read_text()[-6000:]
    return True, jobs


def kill(workflow: subprocess.Popen[str]) -> None:
    """``kill -9`` for the workflow and all of its jobs."""
    os.killpg(workflow.pid, signal.SIGKILL)
    workflow.wait()


def unlock(folder: Path) -> None:
    """What ``make unlock`` does."""
    assert start(folder, "--unlock").wait() == 0, (folder / LOG).read_text()[-2000:]


def scores(folder: Path) -> list[dict[str, Any]]:
    """All rows of all tables of scores of a run."""
    tables = sorted((folder / "results/benchmarks").rglob("scores/*.parquet"))
    return [row for table in tables for row in pq.read_table(table).to_pylist()]


def repeated(logs: Iterable[str]) -> list[str]:
    """Outputs whose jobs Snakemake had finished, and started once more, over the logs of successive runs.

    Args:
        logs: what Snakemake said, one text for each run (without ``--quiet``).
    """
    finished, again = set[str](), list[str]()
    for log in logs:
        running: dict[str, str] = {}
        output = ""
        for line in log.splitlines():
            if found := re.match(r" {4}output: (.*)", line):
                output = found[1]
            elif found := re.match(r" {4}jobid: (\d+)", line):
                running[found[1]] = output
                again += [output] if output in finished else []
                output = ""
            elif found := re.match(r"Finished jobid: (\d+)", line):
                finished.add(running.get(found[1], ""))
        finished.discard("")
    return again

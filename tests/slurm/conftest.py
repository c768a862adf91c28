"""A cluster for all tests of a module, and a project whose stages are small scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, missing
from tests.workflow.project import Project, small_config

# The profile asks seldom, as it should where thousands of jobs run; a test would wait for minutes.
HASTE = (
    "--slurm-init-seconds-before-status-checks", "2", "--max-status-checks-per-second", "2",
    "--latency-wait", "10",
)  # fmt: skip

PROFILE = ROOT / "workflow" / "profiles" / "slurm"

# Takes 1.5 GB for as long as SLURM needs to look twice.
HUNGRY = f"exec {sys.executable} -c 'import time; held = bytearray(1_500_000_000); time.sleep(6)'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running cluster of three nodes, two of them with two GPUs each."""
    if reason := missing():
        pytest.skip(reason)
    with Cluster() as running:
        yield running


def submit(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the workflow of a folder on the cluster, through the profile; it tells ``snakemake.log``."""
    # The cluster has no accounting.
    first = (folder / "bin", PROFILE / "without-accounting", Path(sys.executable).parent)
    path = ":".join(map(str, [*first, os.environ["PATH"]]))
    profile = ("--workflow-profile", "workflow/profiles/slurm", *HASTE)
    with (folder / "snakemake.log").open("a") as log:
        return cluster.popen(
            [sys.executable, "-m", "snakemake", "--nolock", *profile, *arguments],
            cwd=folder,
            env=os.environ | {"PATH": path, "REAL_PYTHON": sys.executable},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(folder: Path, workflow: subprocess.Popen[str], timeout: float = 600) -> None:
    """Wait for the workflow and expect that all went well."""
    try:
        code = workflow.wait(timeout)
    except subprocess.TimeoutExpired:
        workflow.kill()
        code = -1
    assert code == 0, (folder / "snakemake.log").read_text()[-6000:]


def until(ready: Callable[[], object], timeout: float = 120) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def last_job(cluster: Cluster) -> int:
    """The number of the last job that was submitted; 0 where there was none."""
    return max((int(job["JobId"]) for job in cluster.jobs()), default=0)


def by_rule(cluster: Cluster, since: int = 0) -> dict[str, list[dict[str, str]]]:
    """The jobs of every rule, those submitted after job number ``since``."""
    jobs: dict[str, list[dict[str, str]]] = {}
    for job in cluster.jobs():
        if int(job["JobId"]) > since:
            jobs.setdefault(job["Comment"].split("_")[1], []).append(job)
    return jobs


class ScriptedProject(Project):
    """The workflow with stages that only write files, before which scripts of a test run."""

    def __init__(self, folder: Path) -> None:
        (folder / "clips" / "anna").mkdir(parents=True)
        (folder / "clips" / "anna" / "talk.mp4").write_text("film")
        config = small_config(own={"source": "folder", "path": "clips", "shards": 1})
        # One inverter, model and protocol: every job of a cluster costs seconds.
        del config["inverters"]["e4e"], config["models"]["linear-psp"], config["models"]["linear-e4e"]
        del config["protocols"]["self"]
        super().__init__(folder, config)
        stub = folder / "bin" / "python"
        stub.rename(folder / "bin" / "stub")
        before = 'script="scripts/${2#remime.stages.}"; [ ! -e "$script" ] || sh "$script" || exit'
        stub.write_text(f'#!/bin/sh\n{before}\nexec {folder}/bin/stub "$@"\n')
        stub.chmod(0o755)

    def shards(self, count: int) -> None:
        """Give the dataset so many shards, with more than enough clips for all."""
        for i in range(8 * count):
            (self.folder / "clips" / "anna" / f"{i}.mp4").write_text("film")
        config = yaml.safe_load((self.folder / "config.yaml").read_text())
        config["datasets"]["own"]["shards"] = count
        self.configure(config)

    def before(self, stage: str, script: str) -> None:
        """Let every job of a stage begin with a script."""
        (self.folder / "scripts").mkdir(exist_ok=True)
        (self.folder / "scripts" / stage).write_text(script)


@pytest.fixture
def project(tmp_path: Path) -> ScriptedProject:
    """A project of its own for a test."""
    return ScriptedProject(tmp_path)

"""The whole workflow with the real networks on a real SLURM, and what goes wrong on clusters."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import HUNGRY, ScriptedProject, by_rule, finish, last_job, submit, until
from tests.workflow.real import MESH, NETWORKS, make_project, render_all
from tests.workflow.runs import scores

pytestmark = pytest.mark.cluster
STAGES = {"collect", "align", "measure", "select", "invert", "train", "reenact", "score"}
ALIGNED = "results/own/aligned/0000-of-0001.h5"


@pytest.fixture(scope="module")
def whole(cluster: Cluster, weights: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, every job of which was SLURM's."""
    # The cluster has no network, as the nodes of many have none.
    for name in (*NETWORKS, *MESH):
        weights(name)
    folder = tmp_path_factory.mktemp("whole")
    render_all(folder / "clips")
    make_project(folder / "run", folder / "clips")
    finish(folder / "run", submit(cluster, folder / "run", "--", "shards"))
    finish(folder / "run", submit(cluster, folder / "run"), 1800)
    return folder / "run"


def test_to_the_end(cluster: Cluster, whole: Path) -> None:
    """Every job got along with the memory and time of its rule, and nothing is done twice."""
    assert "linear-psp" in (whole / "results/report/index.html").read_text()
    jobs = by_rule(cluster)
    assert set(jobs) == STAGES
    assert {job["JobState"] for group in jobs.values() for job in group} == {"COMPLETED"}
    before = len(cluster.jobs())
    finish(whole, submit(cluster, whole))
    assert len(cluster.jobs()) == before


def test_node_dies(cluster: Cluster, whole: Path, tmp_path: Path) -> None:
    """What ran on it is submitted again, goes on from what was finished, and the same scores come out."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder, symlinks=True)
    for name in ("latents", "selected"):
        shutil.rmtree(folder / "results/own" / name)
    for name in ("benchmarks", "models/mapping", "report"):
        shutil.rmtree(folder / "results" / name)
    last = last_job(cluster)
    workflow = submit(cluster, folder)

    def running() -> list[dict[str, str]]:
        return [job for job in by_rule(cluster, last).get("train", []) if job["JobState"] == "RUNNING"]

    until((folder / "results/state/train/mapping/checkpoint.pt").exists, 300)
    (job,) = running()
    cluster.kill(job["NodeList"])
    finish(folder, workflow, 1800)
    first, second = by_rule(cluster, last)["train"]
    assert (first["JobState"], second["JobState"]) == ("NODE_FAIL", "COMPLETED")
    assert second["NodeList"] != first["NodeList"]
    assert scores(folder) == scores(whole)
    assert not [path for path in (folder / "results").rglob("*") if ".tmp" in path.name]
    cluster.start_node(first["NodeList"])


def test_cancelled_by_somebody(cluster: Cluster, project: ScriptedProject) -> None:
    """A job that an administrator cancelled is submitted again."""
    last = last_job(cluster)
    project.before("align", "[ -e again ] || { touch again; sleep 600; }")
    workflow = submit(cluster, project.folder, "--", ALIGNED)
    until((project.folder / "again").exists)
    cluster.ask("scancel", *cluster.queue())
    finish(project.folder, workflow)
    assert [job["JobState"] for job in by_rule(cluster, last)["align"]] == ["CANCELLED", "COMPLETED"]


def test_controller_away(cluster: Cluster, project: ScriptedProject) -> None:
    """Jobs run on while slurmctld is away, and the workflow waits for it."""
    last = last_job(cluster)
    project.before("align", "echo run >> runs; sleep 30")
    workflow = submit(cluster, project.folder, "--", ALIGNED)
    until((project.folder / "runs").exists)
    # slurmctld writes its state down every five seconds.
    time.sleep(6)
    cluster.kill("slurmctld")
    time.sleep(20)
    cluster.start_controller()
    finish(project.folder, workflow)
    assert (project.folder / "runs").read_text() == "run\n"
    assert [job["JobState"] for job in by_rule(cluster, last)["align"]] == ["COMPLETED"]


def test_interrupt_of_many(cluster: Cluster, whole: Path, tmp_path: Path) -> None:
    """Ctrl-C during a real run leaves neither jobs nor half-written files."""
    make_project(tmp_path / "run", (whole / "clips").resolve())
    last = last_job(cluster)
    workflow = submit(cluster, tmp_path / "run")
    # Three that are done in a moment would leave nothing to cancel.
    until(lambda: len(cluster.queue("PENDING", "RUNNING")) >= 3)
    workflow.send_signal(signal.SIGINT)
    assert workflow.wait(60) == 1
    until(lambda: not cluster.queue(), 10)
    states = {job["JobState"] for group in by_rule(cluster, last).values() for job in group}
    assert "CANCELLED" in states
    assert states <= {"CANCELLED", "COMPLETED"}
    assert not list((tmp_path / "run/results").rglob("*.h5"))


def test_array_jobs(cluster: Cluster, project: ScriptedProject) -> None:
    """All shards of a stage in one submission; each that runs out of memory is tried again with more."""
    last = last_job(cluster)
    project.shards(3)
    project.before("align", HUNGRY)
    options = ("--slurm-array-jobs", "align", "--set-resources", "align:mem_mb=1000 * attempt")
    target = [f"results/own/aligned/{i:04d}-of-0003.h5" for i in range(3)]
    finish(project.folder, submit(cluster, project.folder, *options, "--", *target))
    jobs = by_rule(cluster, last)["align"]
    failed = [job for job in jobs if job["JobState"] == "FAILED"]
    assert len(failed) == 3
    assert len({job["ArrayJobId"] for job in failed}) == 1
    # The plugin adds 1 MB to tasks of an array.
    completed = [job for job in jobs if job["JobState"] == "COMPLETED"]
    assert [job["TRES"].split("mem=")[1][:3] for job in completed] == ["200"] * 3

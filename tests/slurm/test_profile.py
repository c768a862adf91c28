"""The workflow through its profile on a real SLURM, with stages that only write files; CI runs this."""

from __future__ import annotations

import signal

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import HUNGRY, ScriptedProject, by_rule, finish, submit, until

LATENTS = "results/own/latents/psp/0000-of-0001.h5"


def test_memory_and_gpus(cluster: Cluster, project: ScriptedProject) -> None:
    """A job that needs more than its rule says gets it when tried again; GPU jobs alone have a GPU."""
    project.before("select", HUNGRY)
    for stage in ("align", "invert"):
        project.before(stage, f'echo "$CUDA_VISIBLE_DEVICES" > {stage}.gpus')
    finish(project.folder, submit(cluster, project.folder, "--", LATENTS))
    assert (project.folder / LATENTS).exists()
    jobs = by_rule(cluster)
    assert set(jobs) == {"align", "measure", "select", "invert", "train"}
    memory = [(job["JobState"], job["TRES"].split("mem=")[1].split(",")[0]) for job in jobs.pop("select")]
    assert memory == [("FAILED", "1000M"), ("COMPLETED", "2000M")]
    assert {job["JobState"] for group in jobs.values() for job in group} == {"COMPLETED"}
    assert (project.folder / "invert.gpus").read_text() in ("0\n", "1\n")
    assert (project.folder / "align.gpus").read_text() == "\n"
    assert {job["NodeList"] for job in jobs["invert"]} <= set(cluster.gpu_nodes)


def test_interrupt(cluster: Cluster, project: ScriptedProject) -> None:
    """Ctrl-C takes everything out of the queue; the jobs end, and a new start goes on."""
    project.before("align", "touch started; sleep 600 && touch survived")
    workflow = submit(cluster, project.folder)
    until((project.folder / "started").exists)
    assert cluster.queue()
    workflow.send_signal(signal.SIGINT)
    assert workflow.wait(60) == 1
    until(lambda: not cluster.queue(), 10)
    assert not (project.folder / "results/own/aligned").exists()
    project.before("align", "test ! -e survived")
    finish(project.folder, submit(cluster, project.folder, "--", "results/own/aligned/0000-of-0001.h5"))

"""Leases on GPUs, with real processes and real locks on a machine whose nvidia-smi is a script."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from remime import devices
from remime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
UUIDS = ["GPU-aaaa", "GPU-bbbb", "GPU-cccc"]
PATIENCE = 60
JOB = """
import os, sys
from remime.devices import lease
lease(int(sys.argv[1]), sys.argv[2])
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


class Job:
    """A process that takes GPUs and keeps them until it is ended."""

    def __init__(self, count: int = 1, busy: str = "wait") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(count), busy],
            cwd=ROOT / "src",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watch = threading.Timer(PATIENCE, self.process.kill)
        self._watch.start()

    def gpus(self) -> list[str]:
        """What it got, once it has got it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip().split(",")

    def says(self) -> str:
        """The next line of what it says."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().strip()

    def kill(self) -> None:
        self._watch.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def job():
    jobs = []

    def start(*arguments):
        jobs.append(Job(*arguments))
        return jobs[-1]

    yield start
    for one in jobs:
        one.kill()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(count, ...)``: a machine with that many GPUs."""
    for name in ("CUDA_VISIBLE_DEVICES", *devices._SCHEDULERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REMIME_GPU_LEASES", str(tmp_path / "leases"))
    monkeypatch.setattr(devices, "_held", {})
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def make(count, used=("10", "10", "10"), mig="Disabled"):
        lines = [f"{i}, {UUIDS[i]}, Fake GPU, {used[i]}, {mig}" for i in range(count)]
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
        program.chmod(0o755)

    make(2)
    yield make
    for lock in devices._held.values():
        os.close(lock)


def test_two_processes_never_get_the_same(machine, job):
    assert sorted([*job().gpus(), *job().gpus()]) == UUIDS[:2]


def test_a_killed_process_makes_room_for_the_one_that_waits(machine, job):
    first, second = job(), job()
    had = first.gpus()
    second.gpus()
    third = job()
    said = third.says()
    assert said.startswith("waits for a GPU: ")
    for holder in (first, second):
        assert f"is used by process {holder.process.pid}" in said
    first.kill()
    assert third.gpus() == had
    assert third.says() == f"goes on with GPU {UUIDS.index(had[0])}"


def test_a_process_that_ends_makes_room(machine, job):
    machine(1)
    first = job()
    first.gpus()
    first.process.communicate("", timeout=PATIENCE)
    assert job().gpus() == UUIDS[:1]


def test_who_need_several_do_not_wait_for_each_other(machine, job):
    holder = job()
    holder.gpus()
    first = job(2)
    assert f"process {holder.process.pid}" in first.says()
    second = job(2)
    assert second.says() == f"waits for 2 GPUs, behind process {first.process.pid} (-c), which waits as well"
    holder.kill()
    assert sorted(first.gpus()) == UUIDS[:2]
    first.kill()
    assert sorted(second.gpus()) == UUIDS[:2]


def test_who_needs_several_is_not_overtaken(machine, job):
    holder = job()
    holder.gpus()
    many = job(2)
    many.says()
    one = job()
    assert f"behind process {many.process.pid}" in one.says()
    holder.kill()
    assert sorted(many.gpus()) == UUIDS[:2]


def test_killed_while_it_waits_it_gives_back_what_it_had(machine, job):
    holder = job()
    held = holder.gpus()
    many = job(2)
    many.says()
    many.kill()
    assert sorted([*held, *job().gpus()]) == UUIDS[:2]


def test_sharing_is_said(machine, job):
    machine(1)
    holder = job()
    holder.gpus()
    guest = job(1, "share")
    assert guest.says() == (
        f"no GPU is free (GPU 0 is used by process {holder.process.pid} (-c)): shares GPU 0"
    )
    assert guest.gpus() == UUIDS[:1]
    machine(2)
    assert job(1, "share").gpus() == UUIDS[1:2]


def test_the_guest_holds_nothing(machine, job):
    machine(1)
    holder = job()
    holder.gpus()
    guest = job(1, "share")
    guest.gpus()
    holder.kill()
    assert job().gpus() == UUIDS[:1]


def test_the_one_that_nobody_uses_comes_first(machine, job):
    machine(3, used=("4000", "[N/A]", "20"))
    assert [job().gpus() for _ in UUIDS] == [["GPU-bbbb"], ["GPU-cccc"], ["GPU-aaaa"]]


@pytest.mark.parametrize(("chosen", "got"), [("1", 1), ("GPU-bb", 1), ("1,0", 1), (" 0 ", 0)])
def test_a_choice_by_hand_is_leased_too(machine, job, monkeypatch, chosen, got):
    machine(2, used=("20", "10"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert job().gpus() == [UUIDS[got]]
    if "," not in chosen:
        assert job().says().startswith("waits for a GPU: ")


@pytest.mark.parametrize("case", ["scheduler", "MIG", "MIG instance", "off", "no GPU", "hidden"])
def test_where_there_is_nothing_to_choose_there_is_no_lease(machine, monkeypatch, tmp_path, case):
    before = {"scheduler": "0", "MIG instance": "MIG-1234", "hidden": ""}.get(case)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    if case == "scheduler":
        monkeypatch.setenv("SLURM_JOB_ID", "7")
    if case == "MIG":
        machine(2, mig="Enabled")
    if case == "off":
        monkeypatch.setenv("REMIME_GPU_LEASES", "off")
    if case == "no GPU":
        machine(0)
    devices.lease()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
    assert not (tmp_path / "leases").exists()


def test_jobs_in_one_allocation_of_several_share_none_of_them(machine, job, monkeypatch):
    """As when somebody runs the workflow within `salloc --gpus=2`."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert devices.granted() == 2
    assert sorted([*job().gpus(), *job().gpus()]) == UUIDS[:2]


def test_granted_by_hand_is_not_granted_by_a_scheduler(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert devices.granted() == 0


def test_processes_that_it_starts_use_what_it_has(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # to be restored
    devices.lease()
    mine = os.environ["CUDA_VISIBLE_DEVICES"]
    devices.lease()
    child = subprocess.run(
        [sys.executable, "-c", JOB, "1", "wait"],
        cwd=ROOT / "src",
        input="",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert child.stdout.strip() == mine == os.environ["CUDA_VISIBLE_DEVICES"]
    assert child.stderr == ""


def test_more_than_there_are(machine):
    with pytest.raises(InputError, match="3 were asked for, 2 can be used here"):
        devices.lease(3)


def test_folder_that_cannot_be_used(machine, tmp_path):
    (tmp_path / "leases").write_text("a file")
    with pytest.raises(InputError, match=r"leases: .*cannot be kept here.*\n.*REMIME_GPU_LEASES"):
        devices.lease()


def test_all_users_of_the_machine_may_lock(machine, job, tmp_path):
    old = os.umask(0o077)
    try:
        job().gpus()
    finally:
        os.umask(old)
    folder = tmp_path / "leases"
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert {f.stat().st_mode & 0o777 for f in folder.iterdir()} == {0o666}


def test_broken_nvidia_smi_lists_nothing(machine, tmp_path):
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    assert devices.list_gpus() == []


class TestComputeDevice:
    @pytest.fixture(autouse=True)
    def cuda(self, machine, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")  # to be restored
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def test_cuda_is_one_leased_gpu(self):
        assert devices.compute_device() == "cuda"
        assert list(devices._held) == [os.environ["CUDA_VISIBLE_DEVICES"]]

    def test_cuda_that_was_started_too_early_is_noticed(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(RuntimeError, match="before this process took its GPU"):
            devices.compute_device()

    def test_a_pytorch_without_cuda_takes_no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.version, "cuda", None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert devices.compute_device() == "cpu"
        assert not devices._held

"""Several processes on a CPU against one: the same losses, resumed with another number, and every bad end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from remime.training.launch import _root
from remime.training.loop import train
from remime.training.processes import Processes
from tests import tiny
from tests.unit.training.team import BAD, LATE, OPTIONS, Team
from tests.unit.training.team_tasks import train_all

ROOT = Path(__file__).resolve().parents[3]
# In float64 sums in another order differ by about 1e-16 of their terms, and 20 steps do not blow that up.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def saved(path: Path) -> Any:
    """What a process left."""
    return torch.load(path, weights_only=True)


def start(folder, *arguments, threads=4):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "10"}
    command = [sys.executable, "-m", "tests.unit.training.team", str(folder), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def run(folder, *arguments):
    """Exit code and what was said."""
    process = start(folder, *arguments)
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def assert_close(history, other):
    assert [h[:3] for h in history] == [h[:3] for h in other]
    values = [torch.tensor([h[3] for h in rows], dtype=torch.float64) for rows in (history, other)]
    assert torch.allclose(*values, equal_nan=True, **CLOSE)


def rows_of(result):
    return [(r["step"], r["split"], r["name"], r["value"]) for r in result.history]


def assert_ended(folder):
    """Within the time that a system under load needs for it."""
    pids = [int(f.read_text()) for f in (folder / "pids").iterdir()]
    for _ in range(300):
        left = [pid for pid in pids if runs(pid)]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"{left} still run")


def runs(pid):
    try:
        # A process that nobody has waited for is a zombie, and has ended.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, uninterrupted."""
    return train(Team(Processes()), OPTIONS, tmp_path_factory.mktemp("alone"), "team")


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two processes, uninterrupted: their folder."""
    folder = tmp_path_factory.mktemp("together")
    code, said = run(folder, "--processes", 2)
    assert code == 0, said
    return folder


def test_two_processes_have_the_losses_of_one(alone, together):
    result = saved(together / "result-0.pt")
    assert_close(result["history"], rows_of(alone))
    assert result["step"] == alone.step
    assert result["tensors"].keys() == alone.tensors.keys()
    for name, value in alone.tensors.items():
        assert torch.allclose(result["tensors"][name], value, **CLOSE), name


def test_the_toy_would_notice(alone):
    """It has a skipped step, clipped gradients and a head that joins late."""
    norms = {h[0]: h[3] for h in rows_of(alone) if h[2] == "norm"}
    assert [step for step, norm in norms.items() if norm != norm] == [BAD + 1]
    assert max(norm for norm in norms.values() if norm == norm) > OPTIONS.clip
    assert BAD > LATE
    assert alone.step > 0


def test_all_processes_have_the_same_model(together):
    first, second = (saved(together / f"result-{rank}.pt")["module"] for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_only_the_first_process_writes_and_reports(together):
    assert [f.name for f in (together / "state").iterdir()] == ["checkpoint.pt"]
    second = saved(together / "result-1.pt")
    assert not [h for h in second["history"] if h[1] == "val"]


def test_threads_are_divided(together):
    assert [saved(together / f"threads-{rank}.pt")["threads"] for rank in (0, 1)] == [2, 2]


def test_killed_and_resumed_with_another_number_of_processes(tmp_path, alone):
    class Cut(Team):
        def batch(self, step):
            if step == 6:
                raise KeyboardInterrupt
            return super().batch(step)

    with pytest.raises(KeyboardInterrupt):
        train(Cut(Processes()), OPTIONS, tmp_path / "state", "team")
    code, said = run(tmp_path, "--processes", 2, "--harm", "kill", 1, 13)
    assert code == 1
    assert "error: process 2 of 2 of this training was ended by SIGKILL" in said
    assert "run again: training goes on from the last checkpoint" in said
    assert "Traceback" not in said
    assert_ended(tmp_path)
    result = train(Team(Processes()), OPTIONS, tmp_path / "state", "team")
    assert result.resumed_from == 12
    assert_close(rows_of(result), rows_of(alone))


@pytest.mark.parametrize("harm", ["input", "slow end"])
def test_error_of_one_process_ends_all(tmp_path, harm):
    code, said = run(tmp_path, "--processes", 2, "--harm", harm, 1, 3)
    assert code == 2
    assert said.endswith(
        "error: process 2 of 2 of this training failed\n  clip.mp4: is empty\n    fetch it again\n"
    )
    assert said.count("error:") == 1
    assert "Traceback" not in said
    assert_ended(tmp_path)


def test_what_the_first_process_cannot_do_is_said_once(tmp_path):
    code, said = run(tmp_path, "--processes", 2, "--rows", 11)
    assert code == 2
    assert said.count("batch: 11 rows of a batch cannot be shared evenly by 2 processes") == 1


def test_bug_in_one_process_is_shown_with_its_traceback(tmp_path):
    code, said = run(tmp_path, "--processes", 2, "--harm", "bug", 1, 3)
    assert code == 1
    assert "error: process 2 of 2 of this training failed\n" in said
    assert said.rstrip().endswith("ZeroDivisionError: of the toy")
    assert said.count("Traceback") == 1


def test_no_process_outlives_its_launcher(tmp_path):
    code, _ = run(tmp_path, "--processes", 2, "--harm", "orphan", 1, 3)
    assert code == -signal.SIGKILL
    assert_ended(tmp_path)


@pytest.mark.parametrize(
    ("codes", "first"),
    [([143, -9], 1), ([-6, 1], 1), ([3, 2], 1), ([-15, 1], 1), ([2, 2], 0), ([1, 3, 143], 0), ([3, 3], 0)],
)
def test_the_cause_is_told_from_its_consequences(codes, first):
    """Which process is blamed, by the exit codes of those that have ended before anybody looks."""
    failures = {rank: SimpleNamespace(exitcode=code) for rank, code in enumerate(codes)}
    assert _root(failures) == (first, failures[first])


def test_termination_ends_all(tmp_path):
    process = start(tmp_path, "--processes", 2, "--harm", "wait", 1, 3)
    while not (tmp_path / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert_ended(tmp_path)


@pytest.mark.weights
def test_tasks_have_the_losses_of_one_process(tmp_path, weights):
    """In float32, where sums in another order differ by 1e-7 of their terms, of which some nearly cancel."""
    weights("lpips-alex")
    tiny.make_dataset(tmp_path / "faces")
    alone = train_all(tmp_path, Processes())
    command = [sys.executable, "-m", "tests.unit.training.team_tasks", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    together = saved(tmp_path / "histories.pt")
    for name, history in alone.items():
        assert [h[:3] for h in history] == [h[:3] for h in together[name]]
        for (step, split, figure, value), (*_, other) in zip(history, together[name], strict=True):
            # A course of four nearly equal blendshapes: their mean is taken away first.
            rel = 1e-4 if figure in ("expression", "score") else 1e-5
            assert other == pytest.approx(value, rel=rel, abs=1e-6), (name, step, split, figure)
    (log,) = (tmp_path / "logs").glob("*/attempt_0/1/stderr.log")
    assert "generator samples" in done.stderr
    assert "generator samples" not in log.read_text(), "the pool is made once"


def test_processes_whose_time_is_over_end_at_the_same_step_and_go_on(tmp_path):
    code, said = run(tmp_path, "--processes", 2, "--late")
    assert code == 75, said
    assert f"the time is over at step 1 of {OPTIONS.steps}" in said
    assert "error" not in said
    assert saved(tmp_path / "state" / "checkpoint.pt")["step"] == 1
    assert run(tmp_path, "--processes", 2)[0] == 0
    assert saved(tmp_path / "result-0.pt")["resumed_from"] == 1

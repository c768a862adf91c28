"""The training loop: exact resume, guards, averages and checkpoints, on toys."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from remime.errors import InputError, RemimeError, UnfinishedError
from remime.training import loop, state
from remime.training.loop import LoopOptions, Task, train
from tests.unit.training.toy import OPTIONS, Toy

ROOT = Path(__file__).resolve().parents[3]


def figures(result):
    """All that the history says but the clock."""
    return [(r["step"], r["split"], r["name"], r["value"]) for r in result.history]


def assert_same(a, b):
    assert figures(a) == figures(b)
    assert (a.step, a.metrics) == (b.step, b.metrics)
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return train(Toy(), OPTIONS, tmp_path_factory.mktemp("whole"), "toy")


class Scalar(Task):
    """One parameter under plain gradient descent; scores and gradients follow a script."""

    def __init__(self, gradients=(), scores=(), lr=1.0):
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.optimizers = {"main": torch.optim.SGD(self.module.parameters(), lr)}
        self.gradients, self.scores, self.modes = gradients, iter(scores), []

    def batch(self, step):
        return self.gradients[step] if step < len(self.gradients) else 1.0

    def training_step(self, batch, step, updater):
        self.modes.append(("train", self.module.training))
        updater.backward(self.module.weight.sum() * batch)
        return {"loss": 0.0, "norm": updater.step()}

    def validate(self):
        self.modes.append(("val", self.module.training))
        return {"score": next(self.scores, 0.0), "value": float(self.module.weight)}


def run(task, folder, **options):
    return train(task, LoopOptions(**{"clip": 0.0, "validate_every": 1, **options}), folder, "scalar")


def test_killed_run_continues_to_the_last_bit(tmp_path, whole):
    command = [sys.executable, "-m", "tests.unit.training.toy", tmp_path, "17"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = train(Toy(), OPTIONS, tmp_path, "toy")
    assert resumed.resumed_from == 15
    assert_same(resumed, whole)


def slices(folder, whole, deadline, **options):
    """Train in slices that end at a deadline; the steps at which they ended."""
    ends = []
    while True:
        try:
            result = train(Toy(), replace(OPTIONS, **options), folder, "toy", deadline=deadline())
        except UnfinishedError:
            ends.append(torch.load(folder / "checkpoint.pt", weights_only=True)["step"])
        else:
            assert_same(result, whole)
            return ends


def test_slices_end_with_the_same_bits(tmp_path, whole):
    # A deadline that has passed still lets one step happen, so that no slice is in vain.
    assert slices(tmp_path, whole, lambda: 0.0) == list(range(1, OPTIONS.steps))


def test_a_slice_ends_at_its_deadline_only(tmp_path, whole, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    ends = slices(tmp_path, whole, lambda: next(clock) + 25)
    assert 2 < len(ends) < OPTIONS.steps / 2
    assert slices(tmp_path / "other", whole, lambda: 10**9) == []


def test_a_slice_that_is_killed_goes_on_from_the_one_before(tmp_path, whole):
    for deadline in (0.0, 0.0):
        with pytest.raises(UnfinishedError):
            train(Toy(), replace(OPTIONS, checkpoint_every=100), tmp_path, "toy", deadline=deadline)
    command = [sys.executable, "-m", "tests.unit.training.toy", tmp_path, "4"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = train(Toy(), OPTIONS, tmp_path, "toy")
    assert resumed.resumed_from == 2
    assert_same(resumed, whole)


def test_the_seconds_of_all_slices_count_and_those_between_do_not(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    class Slow(Scalar):
        def batch(self, step):
            now[0] += 10
            return 1.0

    for where in ("gpu", "cpu", "gpu"):
        options = LoopOptions(steps=3, clip=0.0)
        with contextlib.suppress(UnfinishedError):
            result = train(Slow(), options, tmp_path, "slow", deadline=0.0, hardware=where)
        now[0] += 1000
    assert result.history[-1]["seconds"] == 30
    assert result.hardware == {"gpu": 2, "cpu": 1}


def test_a_state_that_does_not_tell_its_hardware_is_of_this_one(tmp_path):
    with pytest.raises(UnfinishedError):
        train(Toy(), OPTIONS, tmp_path, "toy", deadline=0.0)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del saved["hardware"]
    torch.save(saved, tmp_path / "checkpoint.pt")
    assert train(Toy(), OPTIONS, tmp_path, "toy", hardware="cpu").hardware == {"cpu": OPTIONS.steps}


def test_training_ends_when_it_no_longer_gains(tmp_path):
    scores = [5.0, 3.0, 4.0, 3.0, 3.5, 3.2, 1.0]
    result = run(Scalar(scores=scores), tmp_path, steps=6, patience=2)
    assert result.step == 3  # the last of equal ones
    assert result.history[-1]["step"] == 5
    assert sum(result.hardware.values()) == 5
    again = run(Scalar(scores=[0.0]), tmp_path, steps=6, patience=2)
    assert (again.step, again.resumed_from) == (3, 5)
    assert run(Scalar(scores=scores), tmp_path / "other", steps=6).history[-1]["step"] == 6


def test_toy_would_notice_other_random_numbers(tmp_path, whole):
    other = train(Toy(), replace(OPTIONS, seed=4), tmp_path, "toy")
    assert figures(other) != figures(whole)


def test_finished_run_is_only_read_again(tmp_path, whole):
    train(Toy(), OPTIONS, tmp_path, "toy")
    again = train(Toy(kill_at=0), OPTIONS, tmp_path, "toy")
    assert again.resumed_from == OPTIONS.steps
    assert_same(again, whole)


@pytest.mark.parametrize("harm", ["other digest", "damage"])
def test_state_that_does_not_fit_is_not_used(tmp_path, whole, harm):
    train(Toy(), replace(OPTIONS, steps=10), tmp_path, "other" if harm == "other digest" else "toy")
    if harm == "damage":
        (checkpoint,) = tmp_path.iterdir()
        checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    again = train(Toy(), OPTIONS, tmp_path, "toy")
    assert again.resumed_from == 0
    assert_same(again, whole)


def test_failed_write_keeps_the_checkpoint_before(tmp_path, whole, monkeypatch):
    save, calls = torch.save, []

    def fail_third(value, file):
        calls.append(file)
        if len(calls) == 3:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        save(value, file)

    monkeypatch.setattr(state.torch, "save", fail_third)
    with pytest.raises(OSError, match="No space"):
        train(Toy(), OPTIONS, tmp_path, "toy")
    assert len(list(tmp_path.iterdir())) == 1
    resumed = train(Toy(), OPTIONS, tmp_path, "toy")
    assert resumed.resumed_from == 10
    assert_same(resumed, whole)


def test_validation_changes_nothing_in_training(tmp_path, whole):
    often = train(Toy(), replace(OPTIONS, validate_every=1), tmp_path, "toy")
    losses = [f for f in figures(often) if f[1] == "train"]
    assert losses == [f for f in figures(whole) if f[1] == "train"]


def test_batches_made_ahead_change_nothing(tmp_path, whole, capsys):
    class Ahead(Toy):
        ahead = True

        def training_step(self, batch, step, updater):
            # The next batch is made meanwhile: this would wait for ever if it came after.
            if step + 1 < OPTIONS.steps:
                assert made[step + 1].wait(10)
            return super().training_step(batch, step, updater)

    made = [threading.Event() for _ in range(OPTIONS.steps)]
    task, threads = Ahead(), set()
    original = task.batch

    def batch(step):
        threads.add(threading.get_ident())
        result = original(step)
        if step < len(made):
            made[step].set()
        return result

    task.batch = batch
    assert_same(train(task, OPTIONS, tmp_path, "toy"), whole)
    assert len(threads) == 2  # one of them validates
    assert "of the steps' time went into batches" in capsys.readouterr().err


def test_what_a_batch_made_ahead_raises_is_raised(tmp_path):
    class Broken(Scalar):
        ahead = True

        def batch(self, step):
            if step == 3:
                raise InputError("shard", "is damaged", "delete it")
            return 1.0

    with pytest.raises(InputError, match="is damaged"):
        run(Broken(), tmp_path, steps=5, checkpoint_every=1)
    resumed = run(Scalar(), tmp_path, steps=5)
    assert resumed.resumed_from == 3


def test_module_is_in_the_right_mode(tmp_path):
    task = Scalar()
    run(task, tmp_path, steps=2)
    assert task.modes == [("val", False), ("train", True), ("val", False), ("train", True), ("val", False)]


def test_gradient_is_clipped(tmp_path):
    result = run(Scalar([100.0, -0.25]), tmp_path, steps=2, clip=0.5)
    values = [v for _, split, name, v in figures(result) if name == "value"]
    assert values == pytest.approx([0.0, -0.5, -0.25], rel=1e-4)
    norms = [v for _, split, name, v in figures(result) if name == "norm"]
    assert norms == [100.0, 0.25]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_step_with_bad_gradient_is_skipped(tmp_path, bad):
    result = run(Scalar([1.0, bad, 1.0]), tmp_path, steps=3)
    assert [v for *_, name, v in figures(result) if name == "value"] == [0.0, -1.0, -1.0, -2.0]


def test_divergence_ends_training(tmp_path):
    with pytest.raises(RemimeError, match="diverged"):
        run(Scalar([math.nan] * loop.MAX_SKIPPED), tmp_path, steps=loop.MAX_SKIPPED)
    lasting = [math.nan] * (loop.MAX_SKIPPED - 1) + [1.0]
    run(Scalar(lasting * 2), tmp_path / "b", steps=2 * loop.MAX_SKIPPED)


def test_each_optimiser_has_its_own_count_of_bad_steps(tmp_path):
    class Two(Scalar):
        def __init__(self):
            super().__init__()
            self.second = nn.Parameter(torch.zeros(1))
            self.optimizers["second"] = torch.optim.SGD([self.second], 1.0)

        def training_step(self, batch, step, updater):
            updater.backward(self.module.weight.sum() * math.nan)
            updater.step()
            updater.backward(self.second.sum())
            return {"loss": 0.0, "norm": updater.step("second")}

    with pytest.raises(RemimeError, match="diverged"):
        run(Two(), tmp_path, steps=2 * loop.MAX_SKIPPED)


def test_skipped_steps_survive_a_resume(tmp_path):
    half = loop.MAX_SKIPPED // 2
    first = Scalar()
    first.batch = lambda step: math.nan if step < half else 1 // 0
    with pytest.raises(ZeroDivisionError):
        run(first, tmp_path, steps=loop.MAX_SKIPPED, checkpoint_every=half)
    with pytest.raises(RemimeError, match="diverged"):
        run(Scalar([math.nan] * loop.MAX_SKIPPED), tmp_path, steps=loop.MAX_SKIPPED)


def test_moving_average_by_hand(tmp_path):
    result = run(Scalar([1.0, 2.0, 4.0]), tmp_path, steps=3, ema=0.75)
    weight, average, expected = 0.0, 0.0, [0.0]
    for gradient in (1.0, 2.0, 4.0):
        weight -= gradient
        average = 0.75 * average + 0.25 * weight
        expected.append(average)
    assert [v for *_, name, v in figures(result) if name == "value"] == pytest.approx(expected)
    assert float(result.tensors["weight"]) == pytest.approx(average)


def test_best_validation_is_kept(tmp_path):
    result = run(Scalar(scores=[5.0, 3.0, 4.0, math.nan]), tmp_path, steps=3)
    assert (result.step, float(result.tensors["weight"])) == (1, -1.0)
    assert result.metrics == {"score": 3.0, "value": -1.0}


def test_last_validation_is_kept_where_asked_for(tmp_path):
    result = run(Scalar(scores=[5.0, 3.0, 4.0, 6.0]), tmp_path, steps=3, keep="last")
    assert (result.step, float(result.tensors["weight"])) == (3, -3.0)
    assert result.metrics["score"] == 6.0


@pytest.mark.parametrize("scores", [[1.0] * 4, [math.nan] * 4], ids=["constant", "never a number"])
def test_without_a_better_one_the_last_is_kept(tmp_path, scores):
    assert run(Scalar(scores=scores), tmp_path, steps=3).step == 3


def test_last_step_is_always_validated(tmp_path):
    result = run(Scalar(), tmp_path, steps=5, validate_every=3)
    assert [step for step, split, name, _ in figures(result) if name == "score"] == [0, 3, 5]

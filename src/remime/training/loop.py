"""The one training loop: everything that is trained here goes through ``train``.

What is learned, from what data and with which losses is a ``Task``; the loop owns the rest: precision,
gradient clipping, the guard against non-finite values, the moving average, validation and the best
checkpoint, the history, and resuming. Batches and random numbers depend on (seed, step) alone, so a run that
was killed continues with the very losses of an uninterrupted one. Several processes share each batch; how
many is no property of a run, so it may be continued with another number of them.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from remime.errors import RemimeError, UnfinishedError
from remime.progress import Progress
from remime.shards import stable_hash
from remime.training.processes import Processes
from remime.training.state import load_state, save_state

MAX_SKIPPED = 20  # consecutive non-finite steps after which training has diverged for good


@dataclass(frozen=True)
class LoopOptions:
    """How to train, apart from what.

    Attributes:
        steps: optimiser steps in all, also when resumed.
        seed: of batches, noise and augmentation.
        clip: maximal gradient norm; 0 switches clipping off.
        ema: decay of the moving average of the parameters; 0 switches it off.
        validate_every: steps between validations; the last step is always validated.
        checkpoint_every: steps between checkpoints.
        patience: validations in a row that may be worse than the best one before training ends; 0 for all
            ``steps``.
        keep: the checkpoint that becomes the model, that of the ``best`` validation or of the ``last`` one.
    """

    steps: int
    seed: int = 0
    clip: float = 1.0
    ema: float = 0.0
    validate_every: int = 500
    checkpoint_every: int = 100
    patience: int = 0
    keep: str = "best"


class Task(ABC):
    """What is trained.

    Attributes:
        module: holds every tensor that is trained and saved, and no other.
        optimizers: by name; each has its own parameters of ``module``.
        processes: those that train together. A task draws random numbers for the whole batch, in every
            process the same, and computes on the process's own rows; the average over the processes of what
            it gives to ``updater.backward``, and of its figures, is that of the whole batch.
    """

    module: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    processes: Processes = Processes()
    ahead = False
    """Whether a thread may make the next batch while a step runs: without numbers of torch's own source."""

    def prepare(self) -> None:  # noqa: B027 (most tasks are ready)
        """Make what the batches need; called once, when there are steps to take."""

    @abstractmethod
    def batch(self, step: int) -> Any:
        """This process's share of the data of a step; depends on the step (and the task's seed) alone."""

    @abstractmethod
    def training_step(self, batch: Any, step: int, updater: Updater) -> dict[str, Tensor | float]:
        """Compute losses, call ``updater.backward`` and ``updater.step``; return figures for the history."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Figures on the validation data; ``score`` (lower is better) chooses the best checkpoint.

        The main process does it alone. Of equal ones the last is kept, so a constant keeps the last of all.
        """

    def tensors(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the model file holds of the module's state dict."""
        return state

    def structure(self, step: int) -> dict[str, Any]:
        """What else a model kept at ``step`` must be told to be built again."""
        return {}

    def restore(self, step: int) -> None:  # noqa: B027 (most tasks have nothing to restore)
        """Compute as the model kept at ``step`` did, beside its tensors."""


class Updater:
    """What a task may do to its parameters: accumulate gradients, then take a guarded step."""

    def __init__(self, task: Task, options: LoopOptions, backward: Callable[[Tensor], None]) -> None:
        self._task, self._options, self._backward = task, options, backward
        self.skipped = 0
        self.consecutive = dict.fromkeys(task.optimizers, 0)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a scalar loss."""
        self._backward(loss)

    def step(self, name: str = "main") -> float:
        """Clip, step and clear one optimiser; returns the gradient norm before clipping.

        All processes take the same step, with the mean of their gradients. A step with a non-finite gradient
        is skipped and counted.

        Raises:
            RemimeError: too many consecutive steps were skipped.
        """
        optimizer = self._task.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._task.processes.average_gradients(parameters)
        parameters = [p for p in parameters if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, self._options.clip or math.inf))
        if math.isfinite(norm):
            optimizer.step()
            self.consecutive[name] = 0
        else:
            self.skipped += 1
            self.consecutive[name] += 1
            if self.consecutive[name] >= MAX_SKIPPED:
                raise RemimeError(
                    f"training diverged: {MAX_SKIPPED} steps in a row had non-finite gradients\n"
                    "  lower learning_rate or the loss weights; the last checkpoint was kept"
                )
        for parameter in parameters:
            parameter.grad = None
        return norm


@dataclass
class _Best:
    score: float = math.inf
    step: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Result:
    """What came out of training.

    Attributes:
        tensors: the module's state dict at its best validation (its moving average where there is one).
        step: the step of that validation.
        metrics: its figures.
        history: rows (step, split, name, value, seconds) since step 0.
        resumed_from: the step at which this process started.
        hardware: steps that were trained on each.

    Of several processes, the main one has all of this.
    """

    tensors: dict[str, Tensor]
    step: int
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    resumed_from: int
    hardware: dict[str, int] = field(default_factory=dict)


def late(deadline: float | None) -> bool:
    """Whether a moment of ``time.monotonic`` has passed; None never does."""
    return deadline is not None and time.monotonic() >= deadline


def stopped(history: Sequence[Mapping[str, Any]], best_step: int, patience: int) -> bool:
    """Whether ``patience`` validations in a row were worse than the best one; never with a patience of 0."""
    worse = {row["step"] for row in history if row["split"] == "val" and row["step"] > best_step}
    return 0 < patience <= len(worse)


def evaluate(task: Task, seed: int) -> dict[str, float]:
    """The task's figures on its validation data, as the module is now; random numbers depend on the seed."""
    torch.manual_seed(seed)
    task.module.eval()
    with torch.no_grad():
        figures = task.validate()
    task.module.train()
    return figures


class _Batches:
    """A task's batches in turn; the next one is made while a step runs, where the task allows it."""

    def __init__(self, task: Task, first: int, end: int) -> None:
        self._task, self._end = task, end
        self._pool = ThreadPoolExecutor(1) if task.ahead else None
        self._next: Future[Any] | None = None
        self._first = first
        self.waited = 0.0

    def __enter__(self) -> _Batches:
        self._begin(self._first)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _begin(self, step: int) -> None:
        if self._pool is not None and step < self._end:
            self._next = self._pool.submit(self._task.batch, step)

    def take(self, step: int) -> Any:
        """The batch of a step; steps must follow each other."""
        began = time.monotonic()
        batch = self._task.batch(step) if self._next is None else self._next.result()
        self.waited += time.monotonic() - began
        self._begin(step + 1)
        return batch


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def train(
    task: Task,
    options: LoopOptions,
    state: Path,
    digest: str,
    label: str = "train",
    fabric: Any = None,
    deadline: float | None = None,
    hardware: str = "",
) -> Result:
    """Train a task to ``options.steps``, resuming from ``state`` when it holds a run of the same ``digest``.

    Args:
        task: what to train; its tensors are already on their device.
        options: how.
        state: directory for checkpoints; survives a kill at any moment.
        digest: identifies data, task and options; a state with another one is from another run and not used.
        label: shown with the progress.
        fabric: a launched Lightning Fabric, for its precision; None for plain float32.
        deadline: moment of ``time.monotonic`` after which no further step begins; one is taken in any case.
        hardware: what it runs on, for the record of the run.

    Raises:
        UnfinishedError: the deadline has passed; the state holds all steps so far.
        RemimeError: training diverged, or another process of it ended.
    """
    updater = Updater(task, options, fabric.backward if fabric is not None else torch.Tensor.backward)
    autocast = fabric.autocast if fabric is not None else contextlib.nullcontext
    saved = load_state(state, digest)
    best, history, elapsed, start = _Best(), [], 0.0, 0
    trained: dict[str, int] = {}
    processes = task.processes
    processes.agree("the step to continue from", saved["step"] if saved is not None else 0)
    processes.begin(task.module)
    average = _copy(task.module) if options.ema else None
    if saved is not None:
        start, elapsed, history = saved["step"], saved["seconds"], saved["history"]
        task.module.load_state_dict(saved["module"])
        for name, optimizer in task.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        if average is not None:
            for name, value in average.items():
                value.copy_(saved["average"][name])
        best = _Best(saved["best"]["score"], saved["best"]["step"], saved["best"]["tensors"])
        updater.skipped, updater.consecutive = saved["skipped"], saved["consecutive"]
        # States of version 0.1 do not tell.
        trained = dict(saved.get("hardware") or {hardware: start})
    began = time.monotonic() - elapsed

    def record(step: int, split: str, figures: dict[str, Any]) -> None:
        seconds = time.monotonic() - began
        history.extend(
            {"step": step, "split": split, "name": k, "value": float(v), "seconds": seconds}
            for k, v in figures.items()
        )

    def checkpoint(step: int) -> None:
        if not processes.main:
            return
        save_state(
            state,
            digest,
            {
                "step": step,
                "seconds": time.monotonic() - began,
                "module": task.module.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in task.optimizers.items()},
                "average": average,
                "best": {"score": best.score, "step": best.step, "tensors": best.tensors},
                "history": history,
                "skipped": updater.skipped,
                "consecutive": updater.consecutive,
                "hardware": trained,
            },
        )

    def validate(step: int) -> None:
        nonlocal best
        if not processes.main:
            return
        current = _copy(task.module)
        if average is not None:
            task.module.load_state_dict(average)
        figures = evaluate(task, options.seed)
        record(step, "val", figures)
        score = math.inf if math.isnan(figures["score"]) else figures["score"]
        if score <= best.score or options.keep == "last":
            best = _Best(score, step, _copy(task.module))
        task.module.load_state_dict(current)

    def any_process(answer: bool) -> bool:
        return processes.average({"answer": float(answer)})["answer"] > 0

    def ended(step: int) -> bool:
        # Only the main process knows the validations.
        return step == options.steps or (
            options.patience > 0 and any_process(stopped(history, best.step, options.patience))
        )

    task.module.train()
    if start == 0 and not history:
        validate(0)
    end = start if ended(start) else options.steps
    stepping = 0.0
    if end > start:
        task.prepare()
    with _Batches(task, start, end) as batches, Progress(end, label, "steps", done=start) as progress:
        for step in range(start, end):
            torch.manual_seed(stable_hash(f"{options.seed}:{step}") % 2**63)
            step_began = time.monotonic()
            batch = batches.take(step)
            with autocast():
                figures = task.training_step(batch, step, updater)
            stepping += time.monotonic() - step_began
            figures = processes.average(figures)
            record(step + 1, "train", figures)
            if average is not None:
                with torch.no_grad():
                    for name, value in task.module.state_dict().items():
                        if value.is_floating_point():
                            average[name].lerp_(value, 1 - options.ema)
                        else:
                            average[name].copy_(value)
            done = step + 1
            trained[hardware] = trained.get(hardware, 0) + 1
            over = done == options.steps
            if done % options.validate_every == 0 or over:
                validate(done)
                over = ended(done)
            out_of_time = not over and deadline is not None and any_process(late(deadline))
            if done % options.checkpoint_every == 0 or over or out_of_time:
                checkpoint(done)
            progress.update(note=f"loss {float(figures['loss']):.4f}")
            if out_of_time:
                # Where one process ends the launcher ends all, which must not cut off the checkpoint.
                processes.wait()
                raise UnfinishedError(
                    f"{label}: the time is over at step {done} of {options.steps}\n"
                    "  the state is kept; the same call goes on from there"
                )
            if over:
                break
        if end > start:
            share = batches.waited / stepping
            print(f"{label}: {share:.1%} of the steps' time went into batches", file=sys.stderr)
    metrics = {r["name"]: r["value"] for r in history if r["split"] == "val" and r["step"] == best.step}
    return Result(best.tensors, best.step, metrics, history, start, trained)

"""A toy that several processes train together; run as a program it trains, and may come to grief on the way.

It has what makes sharing a batch hard: batch normalisation, noise, rows of two kinds, a head that joins late,
two backward passes per step, and a row whose gradient is not finite.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from remime.errors import InputError
from remime.stages import entry
from remime.training.launch import launch, run_launched
from remime.training.loop import LoopOptions, Task, train
from remime.training.optimizers import Ranger
from remime.training.processes import Processes, join, launched

STEPS, ROWS, KNOWN, LATE, BAD = 20, 12, 5, 6, 9
OPTIONS = LoopOptions(steps=STEPS, seed=3, clip=0.5, ema=0.9, validate_every=7, checkpoint_every=4)


class Team(Task):
    """Rows from ``ROWS - KNOWN`` on have a second target; the second head learns from step ``LATE`` on."""

    def __init__(self, processes: Processes, rows: int = ROWS) -> None:
        processes.check("batch", rows)
        self.processes, self.rows = processes, rows
        # Every process begins differently; the first one's start counts.
        torch.manual_seed(processes.rank)
        body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.module = nn.ModuleDict({"body": body, "first": nn.Linear(16, 4), "second": nn.Linear(16, 4)})
        self.module.double()
        self.optimizers = {"main": Ranger(self.module.parameters(), lr=1e-1)}

    def batch(self, step):
        source = torch.Generator().manual_seed(step)
        x = torch.randn(self.rows, 8, generator=source, dtype=torch.float64)
        y = x[:, :4].square()
        if step == BAD:
            y[1] = torch.nan
        rows = self.processes.rows()
        return x[rows], y[rows]

    def training_step(self, batch, step, updater):
        x, y = batch
        noise = torch.randn(self.rows, 8, dtype=torch.float64)[self.processes.rows()]
        first = self.rows - KNOWN
        known = len(range(self.rows)[self.processes.rows()]) - len(range(first)[self.processes.rows()])
        codes = self.module["body"](x + 0.05 * noise)
        loss = (self.module["first"](codes) - y).square().mean()
        updater.backward(loss)
        codes = self.module["body"](x)[len(x) - known :]
        if step >= LATE:
            error = self.module["second"](codes) - x[len(x) - known :, 4:]
            extra = self.processes.mean(error.square(), KNOWN)
            updater.backward(extra)
            loss = loss.detach() + extra.detach()
        return {"loss": loss.detach(), "norm": updater.step()}

    def validate(self):
        x = torch.randn(64, 8, generator=torch.Generator().manual_seed(10**6), dtype=torch.float64)
        error = self.module["first"](self.module["body"](x)) - x[:, :4].square()
        return {"score": float(error.square().mean())}


class Harmed(Team):
    """One of the processes fails at a step."""

    def __init__(
        self, processes: Processes, rows: int, folder: Path, harm: str, rank: int, step: int
    ) -> None:
        super().__init__(processes, rows)
        self.folder, self.harm, self.rank, self.step = folder, harm, rank, step

    def training_step(self, batch, step, updater):
        if (step, self.processes.rank) == (self.step, self.rank):
            if self.harm == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.harm == "orphan":
                os.kill(os.getppid(), signal.SIGKILL)
            if self.harm == "wait":
                (self.folder / "waiting").touch()
                time.sleep(600)
            if self.harm == "slow end":
                torch.distributed.destroy_process_group()
                time.sleep(2)
            if self.harm in ("input", "slow end"):
                raise InputError("clip.mp4", "is empty", "fetch it again")
            raise ZeroDivisionError("of the toy")
        return super().training_step(batch, step, updater)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--harm", nargs=3, default=("nothing", "0", "-1"), metavar=("HOW", "RANK", "STEP"))
    parser.add_argument("--late", action="store_true", help="the time is over from the beginning")
    a = parser.parse_args()
    if a.processes > 1 and not launched():
        launch(a.processes, "tests.unit.training.team", sys.argv[1:], a.folder / "logs")
        return
    run_launched(lambda: work(a))


def work(a: argparse.Namespace) -> None:
    _, processes = join("32-true")
    (a.folder / "pids").mkdir(parents=True, exist_ok=True)
    (a.folder / "pids" / str(processes.rank)).write_text(str(os.getpid()))
    torch.save({"threads": torch.get_num_threads()}, a.folder / f"threads-{processes.rank}.pt")
    harm, rank, step = a.harm
    task = Harmed(processes, a.rows, a.folder, harm, int(rank), int(step))
    result = train(task, OPTIONS, a.folder / "state", "team", deadline=0.0 if a.late else None)
    processes.end()
    torch.save(
        {
            "tensors": result.tensors,
            "step": result.step,
            "history": [(r["step"], r["split"], r["name"], r["value"]) for r in result.history],
            "resumed_from": result.resumed_from,
            "module": task.module.state_dict(),
        },
        a.folder / f"result-{processes.rank}.pt",
    )


if __name__ == "__main__":
    entry(main)

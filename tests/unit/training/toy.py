"""A toy task for the training loop; run as a program it trains and may kill itself on the way."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from remime.training.loop import LoopOptions, Task, train
from remime.training.optimizers import Ranger

OPTIONS = LoopOptions(steps=30, seed=3, clip=1.0, ema=0.9, validate_every=7, checkpoint_every=5)


class Toy(Task):
    """A perceptron with dropout, batch normalisation and noise, on data that follow from the step."""

    def __init__(self, kill_at: int = -1) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = nn.Sequential(
                nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4)
            )
        self.optimizers = {"main": Ranger(self.module.parameters(), lr=1e-2)}
        self.kill_at = kill_at

    def batch(self, step):
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(step))
        return x, x[:, :4].square()

    def loss(self, x, y):
        return (self.module(x + 0.05 * torch.randn_like(x)) - y).square().mean()

    def training_step(self, batch, step, updater):
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = self.loss(*batch)
        updater.backward(loss)
        return {"loss": loss.detach(), "norm": updater.step()}

    def validate(self):
        return {"score": float(self.loss(*self.batch(10**6)))}


if __name__ == "__main__":
    train(Toy(int(sys.argv[2])), OPTIONS, Path(sys.argv[1]), "toy")

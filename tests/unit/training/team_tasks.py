"""The real tasks with tiny networks, trained by the processes that this program finds itself among."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch

from remime.encoders.discriminator import LatentAdversary
from remime.methods.mapping import Mapping
from remime.stages import Dataset, entry
from remime.training import inverters, mapping
from remime.training.data import indexed_frames, selected_frames
from remime.training.inverters import InverterTask
from remime.training.launch import launch, run_launched
from remime.training.loop import LoopOptions, Task, train
from remime.training.mapping import MappingTask
from remime.training.processes import Processes, join, launched
from tests import tiny

CPU = torch.device("cpu")
STEPS = 3
# One face with another camera, one with a latent, two real frames: two processes get different kinds.
INVERTER = {
    "method": "restyle-psp", "preset": "small", "generator": "tiny", "seed": 0, "size": 64, "width": 8,
    "refinements": 2, "batch": 4, "real": 0.5, "varied": 0.5, "pool": 21, "pool_batch": 6,
    "validate_batches": 1, "learning_rate": 1e-3, "losses": {"latent": 1.0},
}  # fmt: skip
E4E = {
    **INVERTER, "method": "restyle-e4e", "progressive_start": 1, "progressive_every": 1, "varied": 0.0,
    "pool": 0, "losses": {"latent": 0.0, "adversarial": 0.1},
}  # fmt: skip
MAPPING = {
    "method": "mapping", "preset": "small", "variant": "cos", "seed": 0, "batch": 2, "latent_batch": 6,
    "truth": [], "varied": 0.5, "validate_batches": 1, "learning_rate": 1e-3,
    "losses": {"latent": 1.0, "cos": 0.1},
}  # fmt: skip
TASKS = {"inverter": INVERTER, "e4e": E4E, "mapping": MAPPING}


class Adversary(LatentAdversary):
    """Its pools are full soon, so that their draws count."""

    def __init__(self) -> None:
        super().__init__(pool=3, r1_every=2)


def _mapping(_options, generator):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = Mapping(generator.rows, "small", width=32, components=4)
    method.motion_encoder.attach(tiny.Mesh())
    return method


def build(name: str, folder: Path, processes: Processes) -> Task:
    options, dataset = TASKS[name], Dataset(folder / "faces", 2)
    torch.manual_seed(0)
    if name == "mapping":
        sets = [indexed_frames([dataset], "psp", split) for split in ("train", "val")]
        return MappingTask(options, tiny.generator(), *sets, CPU, processes)
    frames = [selected_frames([dataset], split) for split in ("train", "val")]
    state = folder / f"of-{processes.count}" / name
    return InverterTask(options, tiny.generator(), *frames, state, CPU, processes)


def train_all(folder: Path, processes: Processes) -> dict[str, list[tuple]]:
    """The history of every task, without its times."""
    loop = LoopOptions(STEPS, ema=0.5, validate_every=2, checkpoint_every=100)
    histories = {}
    with (
        mock.patch.object(inverters, "ImageLosses", tiny.Losses),
        mock.patch.object(inverters, "LatentAdversary", Adversary),
        mock.patch.object(mapping, "ImageLosses", tiny.Losses),
        mock.patch.object(mapping, "build_method", _mapping),
        mock.patch.object(mapping, "SIZE", 32),
        mock.patch("remime.faces.mesh.load_mesh", tiny.Mesh),
    ):
        for name in TASKS:
            state = folder / f"of-{processes.count}" / name / "state"
            result = train(build(name, folder, processes), loop, state, name)
            histories[name] = [(r["step"], r["split"], r["name"], r["value"]) for r in result.history]
    return histories


def main() -> None:
    folder = Path(sys.argv[1])
    if not launched():
        launch(2, "tests.unit.training.team_tasks", sys.argv[1:], folder / "logs")
        return
    run_launched(lambda: work(folder))


def work(folder: Path) -> None:
    _, processes = join("32-true")
    histories = train_all(folder, processes)
    processes.end()
    if processes.main:
        torch.save(histories, folder / "histories.pt")


if __name__ == "__main__":
    entry(main)

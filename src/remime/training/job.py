"""A training as a whole: what it needs, apart from the machine that it runs on, and how it is carried out."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from remime.errors import InputError
from remime.files import sha256
from remime.models import Model
from remime.training.data import Frames, indexed_frames, selected_frames
from remime.training.loop import LoopOptions, Result, Task, train
from remime.training.processes import Processes, join
from remime.training.state import digest_of
from remime.versions import STAGES, __version__

if TYPE_CHECKING:
    from remime.layout import Dataset

OPTIONS: dict[str, Any] = {
    "generator": "mobile-ffhq",
    "preset": "small",
    "variant": "ours",
    "seed": 0,
    "steps": 0,
    "gradient_clip": 1.0,
    "ema": 0.0,
    "precision": "32",
    "validate_every": 500,
    "checkpoint_every": 100,
}
# Names of the configuration to those of Lightning Fabric.
_PRECISION: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed"}
_LOOP = ("steps", "seed", "ema", "validate_every", "checkpoint_every", "patience")
# What a model must be told to be built again; the rest of the options is about training it.
STRUCTURE = (
    "method",
    "preset",
    "variant",
    "inverter",
    "refinements",
    "size",
    "width",
    "rank",
    "components",
    "spread",
)


@dataclass(frozen=True)
class Job:
    """What a training needs beside the networks that it loads by name.

    Attributes:
        name: of the model.
        options: the flat options of stage ``train``, complete with ``OPTIONS``.
        digest: of options, data and start; a state belongs to it.
        datasets: names of the datasets that it learns from.
        train: frames, or None.
        validation: frames of other identities, or None.
        start: the model that it starts from, or None.
    """

    name: str
    options: dict[str, Any]
    digest: str
    datasets: list[str]
    train: Frames | None
    validation: Frames | None
    start: Model | None


def read_job(
    name: str,
    options: Mapping[str, Any],
    datasets: Sequence[Dataset] = (),
    start: Model | None = None,
    inverter: Path | None = None,
) -> Job:
    """The job that options and files describe.

    Args:
        name: of the model.
        options: flat, see ``OPTIONS`` and the defaults of the tasks.
        datasets: training and validation data.
        start: a model to start from.
        inverter: the model whose latents the index tables hold (methods).

    Raises:
        InputError: a table is missing or damaged.
    """
    o = {**OPTIONS, **options}
    digest = digest_of(
        o,
        STAGES["train"],
        sha256(inverter) if inverter is not None else "",
        sorted(start.meta.items()) if start is not None else "",
        [(d.argument(), _tables(d, o)) for d in datasets],
    )
    frames: list[Frames | None] = [None, None]
    splits = ("train", "val")
    if o["kind"] == "inverter" and datasets:
        frames = [selected_frames(datasets, split) for split in splits]
    elif o["kind"] == "method":
        frames = [indexed_frames(datasets, o["inverter"], split, sampled=True) for split in splits]
    return Job(name, o, digest, [d.name for d in datasets], frames[0], frames[1], start)


def _tables(dataset: Dataset, o: Mapping[str, Any]) -> list[str]:
    """What a resumed run must find unchanged: which frames it learns from, and what is known of them."""
    if o["kind"] == "inverter":
        tables = [dataset.manifest, *map(dataset.selected, dataset.shard_names)]
    else:
        tables = [dataset.index(o["inverter"])]
        if o.get("latent_batch") and o.get("truth", True):
            tables += [tar for tar in map(dataset.tar, dataset.shard_names) if tar.is_file()]
    return [sha256(table) for table in tables]


def make_task(job: Job, state: Path, device: torch.device, processes: Processes | None = None) -> Task:
    """The task of a job, with the weights that it starts from.

    Args:
        job: what to train.
        state: the training's own directory.
        device: where to train.
        processes: those that train together.

    Raises:
        InputError: there is no such task, or the start does not fit it.
    """
    options = dict(job.options)
    # A model to start from replaces what a task would compute as its start.
    options["init"] = job.start is not None
    if job.start is not None and "stage" in job.start.meta["options"]:
        options["stage"] = job.start.meta["options"]["stage"]
    task = _task(options, job, state, device, processes or Processes())
    if job.start is not None:
        initialise(task.module, job.start)
    return task


def _task(options: dict[str, Any], job: Job, state: Path, device: torch.device, processes: Processes) -> Task:
    from remime.generators import load_generator

    if options["kind"] == "preview":
        from remime.generators.mobile import MobileGenerator
        from remime.training.preview import PreviewTask

        plain = load_generator(options["generator"], previews=False).to(device)
        assert isinstance(plain, MobileGenerator)
        return PreviewTask(
            plain,
            options["resolutions"],
            options["batch"],
            options["learning_rate"],
            options["seed"],
            processes,
        )
    generator = load_generator(options["generator"]).to(device)
    if options["kind"] == "inverter":
        from remime.training.inverters import InverterTask

        return InverterTask(options, generator, job.train, job.validation, state, device, processes)
    if options["kind"] == "method" and options["method"] == "mapping":
        from remime.training.mapping import MappingTask

        assert job.train is not None
        return MappingTask(options, generator, job.train, job.validation, device, processes)
    raise InputError(
        "train", f"cannot train {options.get('method')!r}", "method: restyle-psp, restyle-e4e, mapping"
    )


def initialise(module: torch.nn.Module, start: Model) -> None:
    """Copy what a model file has into a module to be trained; what it lacks keeps its own start.

    Raises:
        InputError: it has what the module has not, or in another shape.
    """
    own = module.state_dict()
    unknown = [k for k in start.tensors if k not in own and k != "latent_avg"]
    wrong = [k for k, v in start.tensors.items() if k in own and own[k].shape != v.shape]
    if unknown or wrong:
        raise InputError(
            "init",
            f"does not fit this network: {', '.join([*unknown, *wrong][:5])}",
            "use the preset it was trained with",
        )
    module.load_state_dict({**own, **{k: v for k, v in start.tensors.items() if k in own}})


def carry_out(job: Job, state: Path, deadline: float | None = None) -> tuple[Result, dict[str, Any]] | None:
    """Train to the end, or to a deadline; resumes from ``state``.

    Args:
        job: what to train.
        state: directory of the state.
        deadline: moment of ``time.monotonic`` after which no further step begins.

    Returns:
        what came out, with the tensors of a model file, and what its card says of it; None in all processes
        but the first.

    Raises:
        UnfinishedError: the deadline has passed.
        InputError: job and processes do not fit.
    """
    from remime.runtime import keep_freed_memory

    keep_freed_memory()
    o = job.options
    fabric, processes = join(_PRECISION[o["precision"]])
    torch.manual_seed(o["seed"])
    task = make_task(job, state, fabric.device, processes)
    loop = LoopOptions(clip=o["gradient_clip"], **{k: o[k] for k in _LOOP if k in o})
    where = _hardware(fabric.device, processes.count)
    result = train(task, loop, state, job.digest, f"train {job.name}", fabric, deadline, where)
    processes.end()
    if not processes.main:
        return None
    note = {
        "datasets": job.datasets,
        "steps": sum(result.hardware.values()),
        "best_step": result.step,
        "seed": o["seed"],
        "hardware": _listed(result.hardware),
        "options": {k: v for k, v in o.items() if k not in STRUCTURE},
        "metrics": {k: round(v, 5) for k, v in result.metrics.items()},
        "structure": task.structure(result.step),
        "remime": __version__,
    }
    result.tensors = task.tensors(result.tensors)
    return result, note


def _hardware(device: torch.device, processes: int) -> str:
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})"
    return f"{processes} × {name}" if processes > 1 else name


def _listed(hardware: Mapping[str, int]) -> str:
    if len(hardware) == 1:
        return next(iter(hardware))
    return ", ".join(f"{name} ({steps} steps)" for name, steps in hardware.items())

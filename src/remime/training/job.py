"""A training as a whole: what it needs, apart from the machine that it runs on, and how it is carried out."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from remime.devices import compute_device
from remime.encoders.small import HEAD
from remime.errors import InputError
from remime.files import sha256
from remime.layout import follows_directions
from remime.methods.mapping import COMPONENTS
from remime.models import Model, load_model, shipped
from remime.runtime import cores
from remime.training.data import Frames, SameMotion, indexed_frames, selected_frames
from remime.training.loop import LoopOptions, Result, Task, evaluate, train
from remime.training.processes import Processes, join, launched
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
_LOOP = ("steps", "seed", "ema", "validate_every", "checkpoint_every", "patience", "keep")
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
    "correction",
    "spread",
)


# What a model file has that does not tell.
_USUAL = {"width": HEAD, "components": COMPONENTS, "correction": 0}


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
        same_motion: people who share motions, or None.
        driving: frames of others of these, to drive the validation's people with, or None.
        leaking: those of these others who share motions, or None.
    """

    name: str
    options: dict[str, Any]
    digest: str
    datasets: list[str]
    train: Frames | None
    validation: Frames | None
    start: Model | None
    same_motion: SameMotion | None = None
    driving: Frames | None = None
    leaking: SameMotion | None = None


def read_job(
    name: str,
    options: Mapping[str, Any],
    datasets: Sequence[Dataset] = (),
    start: Model | None = None,
    inverter: Path | None = None,
    same_motion: Sequence[Dataset] = (),
) -> Job:
    """The job that options and files describe.

    Args:
        name: of the model.
        options: flat, see ``OPTIONS`` and the defaults of the tasks.
        datasets: training and validation data.
        start: a model to start from.
        inverter: the model whose latents the index tables hold (methods).
        same_motion: rendered heads who share motions (methods): for the loss of that name, where it has a
            weight, and to drive the validation's people.

    Raises:
        InputError: a table is missing or damaged, or nobody shares a motion.
    """
    o = {**OPTIONS, **options}
    digest = digest_of(
        o,
        STAGES["train"],
        sha256(inverter) if inverter is not None else "",
        directions_of(o, start is not None),
        sorted(start.meta.items()) if start is not None else "",
        [(d.argument(), _tables(d, o)) for d in datasets],
        [(d.argument(), _offered(d)) for d in same_motion],
    )
    frames: list[Frames | None] = [None, None]
    splits = ("train", "val")
    if o["kind"] == "inverter" and datasets:
        frames = [selected_frames(datasets, split) for split in splits]
    elif o["kind"] == "method":
        frames = [indexed_frames(datasets, o["inverter"], split, sampled=True) for split in splits]
    weighted = bool(o.get("losses", {}).get("same_motion"))
    use = "same motion" if weighted else "validation"
    names = [*(d.name for d in datasets), *(f"{d.name} ({use})" for d in same_motion)]
    shared = SameMotion.read(same_motion, "train", o["seed"]) if same_motion and weighted else None
    driving = selected_frames(same_motion, "val", sampled=False) if same_motion else None
    leaking = _sharing(same_motion, o["seed"])
    return Job(name, o, digest, names, frames[0], frames[1], start, shared, driving, leaking)


def directions_of(options: Mapping[str, Any], starts: bool) -> str:
    """The sha256 of the shipped directions, where a training reads them."""
    return sha256(shipped("puppet-directions")) if follows_directions(options, starts) else ""


def _sharing(datasets: Sequence[Dataset], seed: int) -> SameMotion | None:
    """Rendered people of the validation split who share motions, if there are such."""
    try:
        return SameMotion.read(datasets, "val", seed) if datasets else None
    except InputError as error:
        print(f"no figure of leakage: {error}", file=sys.stderr)
        return None


def _tables(dataset: Dataset, o: Mapping[str, Any]) -> list[str]:
    """What a resumed run must find unchanged: which frames it learns from, and what is known of them."""
    if o["kind"] == "inverter":
        return _offered(dataset)
    tables = [dataset.index(o["inverter"])]
    if o.get("latent_batch") and o.get("truth", True):
        tables += [tar for tar in map(dataset.tar, dataset.shard_names) if tar.is_file()]
    return [sha256(table) for table in tables]


def _offered(dataset: Dataset) -> list[str]:
    """Hashes of what tells which frames a dataset offers."""
    return [sha256(table) for table in (dataset.manifest, *map(dataset.selected, dataset.shard_names))]


def read_start(init: Path, o: Mapping[str, Any]) -> Model:
    """The model to start from; an imported checkpoint becomes one.

    Args:
        init: its file.
        o: flat options with ``kind``, ``generator`` and, for inverters and methods, ``method``.

    Raises:
        InputError: it is of another kind, method or generator.
    """
    from remime.catalogue import read_imported

    if init.stem not in read_imported(init.parent):
        start = load_model(init, None if o["kind"] == "preview" else o["kind"])
    else:
        from remime.encoders.inverter import imported_inverter
        from remime.generators import load_generator
        from remime.methods import imported_method

        convert = imported_inverter if o["kind"] == "inverter" else imported_method
        start = convert(init.stem, init.parent, load_generator(o["generator"]), o["generator"])
    for key in ("width", "components", "correction"):
        had = start.meta["options"].get(key, _USUAL[key])
        # A correction may be added, and then learns from its start.
        added = key == "correction" and not had and o.get("steps")
        if o.get(key) and o[key] != had and not added:
            raise InputError(
                f"{key}: {o[key]}", f"does not fit init, {init}, which has {had}", "set 0, or init to null"
            )
    for key, wanted in (("method", o.get("method", o["kind"])), ("generator", o["generator"])):
        if start.meta.get(key, wanted) != wanted:
            raise InputError(
                f"init: {init}", f"is for the {key} {start.meta[key]!r}, not {wanted!r}", "name another file"
            )
    return start


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
    if job.start is not None:
        known = job.start.meta["options"]
        options |= {
            k: known[k]
            for k in ("stage", "width", "spread", "rank", "components", "correction")
            if k in known and not options.get(k)
        }
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
    if options["kind"] == "directions":
        from remime.sources.directions import of_model
        from remime.training.lids import LidsTask

        assert job.start is not None
        how = options["batch"], options["learning_rate"], options["seed"]
        return LidsTask(generator, of_model(job.start), *how, processes)
    if options["kind"] == "inverter":
        from remime.training.inverters import InverterTask

        return InverterTask(options, generator, job.train, job.validation, state, device, processes)
    if options["kind"] == "method" and options["method"] == "mapping":
        from remime.training.mapping import MappingTask

        assert job.train is not None
        shared = job.same_motion, job.driving, job.leaking
        return MappingTask(options, generator, job.train, job.validation, device, processes, *shared)
    raise InputError(
        "train", f"cannot train {options.get('method')!r}", "method: restyle-psp, restyle-e4e, mapping"
    )


def initialise(module: torch.nn.Module, start: Model) -> None:
    """Copy what a model file has into a module to be trained; what it lacks keeps its own start.

    Raises:
        InputError: it has what the module has not, or in another shape.
    """
    own = module.state_dict()
    # Earlier versions stored the previews of generators that were trained along.
    start = replace(
        start, tensors={k: v for k, v in start.tensors.items() if not k.startswith("generator.previews.")}
    )
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
    fabric, processes = None, Processes()
    # One process with plain float32 needs no Fabric, and trains where there is none.
    if launched() or o["precision"] != "32":
        fabric, processes = join(_PRECISION[o["precision"]])
    device = torch.device(compute_device()) if fabric is None else fabric.device
    torch.manual_seed(o["seed"])
    task = make_task(job, state, device, processes)
    loop = LoopOptions(clip=o["gradient_clip"], **{k: o[k] for k in _LOOP if k in o})
    where = _hardware(device, processes.count)
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
        "curve": _curve(result.history),
        "structure": task.structure(result.step),
        "remime": __version__,
    }
    result.tensors = task.tensors(result.tensors)
    return result, note


def _curve(history: Sequence[Mapping[str, Any]], most: int = 13) -> list[list[float]]:
    """Steps and scores of a training's validations: at most so many evenly spaced ones and the best."""
    scores = [
        [row["step"], round(row["value"], 4)]
        for row in history
        if row["split"] == "val" and row["name"] == "score"
    ]
    if len(scores) <= most:
        return scores
    shown = {round(i * (len(scores) - 1) / (most - 1)) for i in range(most)}
    best = min(range(len(scores)), key=lambda i: scores[i][1])
    return [scores[i] for i in sorted(shown | {best})]


def figures_of(job: Job, state: Path, model: Model) -> dict[str, float]:
    """Figures of a finished model on a job's validation data; its own structure replaces the job's.

    Raises:
        InputError: the model does not fit the job.
    """
    options = {**job.options, **{k: v for k, v in model.meta["options"].items() if k in STRUCTURE}}
    task = make_task(replace(job, options=options, start=model), state, torch.device(compute_device()))
    return _figures(task, job.options["seed"])


def figures_of_state(job: Job, state: Path, saved: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the best tensors of a saved state on a job's validation data."""
    task = make_task(job, state, torch.device(compute_device()))
    task.restore(saved["best"]["step"])
    task.module.load_state_dict(saved["best"]["tensors"])
    return _figures(task, job.options["seed"])


def _figures(task: Task, seed: int) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in evaluate(task, seed).items()}


def _hardware(device: torch.device, processes: int) -> str:
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else f"CPU ({_processor()}, {cores()} cores)"
    return f"{processes} × {name}" if processes > 1 else name


def _processor() -> str:
    """The processor's name, or that of its architecture where the system tells no more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _listed(hardware: Mapping[str, int]) -> str:
    if len(hardware) == 1:
        return next(iter(hardware))
    return ", ".join(f"{name} ({steps} steps)" for name, steps in hardware.items())

"""Train an inverter or a method, from scratch or from a shipped model, and write its card."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.files import sha256, write_text
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.versions import STAGES, __version__

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
_LOOP = ("steps", "seed", "ema", "validate_every", "checkpoint_every")
# What a model must be told to be built again; the rest of the options is about training it.
_STRUCTURE = (
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


def _task(
    o: Mapping[str, Any],
    datasets: Sequence[Dataset],
    same_motion: Sequence[Dataset],
    state: Path,
    device: Any,
    processes: Any,
) -> Any:
    from remime.generators import load_generator
    from remime.training.data import SameMotion, indexed_frames, selected_frames

    options = dict(o)
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

        frames = [selected_frames(datasets, split) if datasets else None for split in ("train", "val")]
        return InverterTask(options, generator, frames[0], frames[1], state, device, processes)
    if options["kind"] == "method" and options["method"] == "mapping":
        from remime.training.mapping import MappingTask

        sets = [
            indexed_frames(datasets, options["inverter"], split, sampled=True) for split in ("train", "val")
        ]
        shared = SameMotion(same_motion, "train", options["seed"]) if same_motion else None
        return MappingTask(options, generator, sets[0], sets[1], device, processes, shared)
    raise InputError(
        "train", f"cannot train {options.get('method')!r}", "method: restyle-psp, restyle-e4e, mapping"
    )


def _fit_directions(o: dict[str, Any], state: Path, description: dict[str, Any]) -> dict[str, Any]:
    """The puppets' motion directions, in closed form; their names go into the description."""
    import torch

    from remime.devices import compute_device
    from remime.generators import load_generator
    from remime.runtime import keep_freed_memory
    from remime.sources.directions import to_tensors
    from remime.training.directions import fit

    keep_freed_memory()
    device = torch.device(compute_device())
    directions = fit(o, load_generator(o["generator"], previews=False).to(device), state)
    description["names"] = list(directions.names)
    correlation = dict(zip(directions.names, directions.correlation.tolist(), strict=True))
    description["training"].append(
        {
            "datasets": [],
            "steps": 0,
            "best_step": 0,
            "seed": o["seed"],
            "hardware": str(device),
            "options": {k: o[k] for k in ("pool", "size")},
            "metrics": {f"correlation_{k}": round(v, 3) for k, v in correlation.items()},
            "remime": __version__,
        }
    )
    return {name: torch.from_numpy(value) for name, value in to_tensors(directions).items()}


def _untrained(o: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a network that is neither initialised from a file nor trained."""
    from remime.generators import load_generator

    generator = load_generator(o["generator"])
    if o["kind"] == "inverter":
        from remime.encoders.inverter import build_inverter

        state = build_inverter(dict(o), generator).state_dict()
        return {k: v for k, v in state.items() if not k.startswith("generator.")}
    from remime.methods import build_method

    return {f"method.{k}": v for k, v in build_method(dict(o), generator).state_dict().items()}


def run(
    name: str,
    output: Path,
    history: Path,
    card: Path,
    state: Path,
    options: Mapping[str, Any],
    datasets: Sequence[Dataset] = (),
    init: Path | None = None,
    inverter: Path | None = None,
    half: bool = False,
    notes: Path | None = None,
    same_motion: Sequence[Dataset] = (),
) -> dict[str, Any]:
    """Train and write a model; returns its description.

    In a process that torchrun has started it trains together with the others; the first of them writes.

    Args:
        name: of the model, for progress and card.
        output: its safetensors file.
        history: table of all figures over time.
        card: Markdown.
        state: directory from which a killed training resumes; removed at the end.
        options: the flat options; see ``OPTIONS`` and the defaults of the tasks.
        datasets: training and validation data.
        init: a model to start from, of this project or imported (``remime.weights.importing``).
        inverter: the model whose latents the index tables hold (methods).
        half: store in half precision.
        notes: Markdown that the card ends with: what its figures do not say.
        same_motion: rendered heads who share motions, for the loss of that name (methods).

    Raises:
        InputError: data, init or options do not fit.
    """
    from remime.models import save_model
    from remime.tables import write_table

    o = {**OPTIONS, **options}
    if notes is not None and not notes.is_file():
        raise InputError("--notes", f"{notes} is not a file", "name Markdown, or leave it off")
    ending = notes.read_text(encoding="utf-8") if notes is not None else ""
    start = _start(init, o) if init is not None else None
    description = {
        "kind": o["kind"],
        "name": name,
        "method": o.get("method", o["kind"]),
        "preset": o["preset"],
        "generator": o["generator"],
        "options": {k: o[k] for k in _STRUCTURE if k in o},
        "training": list(start.meta.get("training", [])) if start is not None else [],
    }
    if start is not None:
        description["options"] = {**start.meta["options"], **description["options"]}
        if "imported" in start.meta:
            description["imported"] = start.meta["imported"]
    rows: list[dict[str, Any]] = []
    if o["kind"] == "directions":
        tensors = _fit_directions(o, state, description)
    elif o["steps"]:
        trained = _train(name, o, datasets, same_motion, state, start, inverter)
        if trained is None:
            return description
        result, note = trained
        tensors, rows = result.tensors, result.history
        description["options"] |= note.pop("structure")
        description["training"].append(note)
    else:
        tensors = start.tensors if start is not None else _untrained(o)
        tensors = {k: v for k, v in tensors.items() if not k.startswith("encoder.trunk.")}
        if o["kind"] == "inverter" and "encoder.heads.weight" in tensors and o.get("rank"):
            from remime.encoders.small import factorise

            tensors = factorise(tensors, o["rank"])
    save_model(output, tensors, description, half)
    write_table(history, "history", rows, model=name)
    seconds = max((row["seconds"] for row in rows), default=None)
    write_text(card, render_card(description, seconds) + ending)
    shutil.rmtree(state, ignore_errors=True)
    return description


def _start(init: Path, o: Mapping[str, Any]) -> Any:
    """The model to start from; an imported checkpoint becomes one.

    Raises:
        InputError: it is of another kind, method or generator.
    """
    from remime.catalogue import read_imported
    from remime.models import load_model

    if init.stem not in read_imported(init.parent):
        start = load_model(init, None if o["kind"] == "preview" else o["kind"])
    else:
        from remime.encoders.inverter import imported_inverter
        from remime.generators import load_generator
        from remime.methods import imported_method

        convert = imported_inverter if o["kind"] == "inverter" else imported_method
        start = convert(init.stem, init.parent, load_generator(o["generator"]), o["generator"])
    for key, wanted in (("method", o.get("method", o["kind"])), ("generator", o["generator"])):
        if start.meta.get(key, wanted) != wanted:
            raise InputError(
                f"init: {init}", f"is for the {key} {start.meta[key]!r}, not {wanted!r}", "name another file"
            )
    return start


def _train(
    name: str,
    o: dict[str, Any],
    datasets: Sequence[Dataset],
    same_motion: Sequence[Dataset],
    state: Path,
    start: Any,
    inverter: Path | None,
) -> tuple[Any, dict[str, Any]] | None:
    """What came out of training and what the card says of it; None in all processes but the first."""
    import torch

    from remime.runtime import keep_freed_memory
    from remime.training.loop import LoopOptions, Result, train
    from remime.training.processes import join
    from remime.training.state import digest_of

    keep_freed_memory()
    fabric, processes = join(_PRECISION[o["precision"]])
    torch.manual_seed(o["seed"])
    # A model to start from replaces what a task would compute as its start.
    begun = {"init": start is not None}
    if start is not None and "stage" in start.meta["options"]:
        begun["stage"] = start.meta["options"]["stage"]
    task = _task({**o, **begun}, datasets, same_motion, state, fabric.device, processes)
    if start is not None:
        _initialise(task.module, start)
    digest = digest_of(
        o,
        STAGES["train"],
        sha256(inverter) if inverter is not None else "",
        sorted(start.meta.items()) if start is not None else "",
        [(d.argument(), _data(d, o)) for d in datasets],
        [(d.argument(), _frames(d)) for d in same_motion],
    )
    loop = LoopOptions(clip=o["gradient_clip"], **{k: o[k] for k in _LOOP})
    result = train(task, loop, state, digest, f"train {name}", fabric)
    processes.end()
    if not processes.main:
        return None
    kept = task.tensors(result.tensors)
    on_gpu = fabric.device.type == "cuda"
    hardware = torch.cuda.get_device_name() if on_gpu else f"CPU ({platform.machine()})"
    note = {
        "datasets": [*(d.name for d in datasets), *(f"{d.name} (same motion)" for d in same_motion)],
        "steps": o["steps"],
        "best_step": result.step,
        "seed": o["seed"],
        "hardware": f"{processes.count} × {hardware}" if processes.count > 1 else hardware,
        "options": {k: v for k, v in o.items() if k not in _STRUCTURE},
        "metrics": {k: round(v, 5) for k, v in result.metrics.items()},
        "structure": task.structure(result.step),
        "remime": __version__,
    }
    return Result(kept, result.step, result.metrics, result.history, result.resumed_from), note


def _data(dataset: Dataset, o: Mapping[str, Any]) -> list[str]:
    """What a resumed run must find unchanged: which frames it learns from, and what is known of them."""
    if o["kind"] == "inverter":
        return _frames(dataset)
    tables = [dataset.index(o["inverter"])]
    if o.get("latent_batch") and o.get("truth", True):
        tables += [tar for tar in map(dataset.tar, dataset.shard_names) if tar.is_file()]
    return [sha256(table) for table in tables]


def _frames(dataset: Dataset) -> list[str]:
    """What tells which frames a dataset offers."""
    return [sha256(table) for table in (dataset.manifest, *map(dataset.selected, dataset.shard_names))]


def _initialise(module: Any, start: Any) -> None:
    """Copy what a model file has into a module to be trained; what it lacks keeps its own start."""
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


def render_card(description: Mapping[str, Any], seconds: float | None = None) -> str:
    """A model card in Markdown: what it is, and every training run that led to it.

    Args:
        description: the model's.
        seconds: how long the last run took. The model does not tell, so that equal runs make equal files.
    """
    runs = description["training"]
    lines = [
        f"# {description['name']}",
        "",
        f"- kind: {description['kind']}, method {description['method']}, preset {description['preset']}",
        f"- generator: {description['generator']}",
        "- structure: " + ", ".join(f"{k} {v}" for k, v in sorted(description["options"].items())),
        "",
    ]
    if imported := description.get("imported"):
        files = ", ".join(f"{file} (sha256 {digest})" for file, digest in imported["files"].items())
        lines += [f"Imported from {files}. Terms: {imported['terms']}.", ""]
    elif not runs:
        lines.append("Not trained: its weights are random.")
    for number, note in enumerate(runs, 1):
        # Models of earlier versions do tell.
        took = seconds if number == len(runs) and seconds is not None else note.get("seconds")
        lines += [
            f"## Training run {number}",
            "",
            f"- data: {', '.join(note['datasets']) or 'generator samples'}",
            f"- steps: {note['steps']} (kept: step {note['best_step']}), seed {note['seed']}",
            f"- hardware: {note['hardware']}" + (f", {took / 60:.0f} min" if took is not None else ""),
            "- validation: " + ", ".join(f"{k} {v:.4g}" for k, v in note["metrics"].items()),
            "- options: " + ", ".join(f"{k} {v}" for k, v in sorted(note["options"].items())),
            "",
        ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = stage_parser("train", __doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="that share the batches, on this machine, with one GPU each or a share of the CPU's threads;"
        " 0: one for each GPU that a scheduler has granted",
    )
    parser.add_argument("--init", type=Path)
    parser.add_argument("--inverter", type=Path)
    parser.add_argument("--half", action="store_true", help="store the model in half precision")
    parser.add_argument("--notes", type=Path, help="Markdown that the card ends with")
    add_datasets(parser, required=False)
    add_datasets(parser, "--same-motion", required=False)
    a = parser.parse_args(argv)
    from remime.devices import granted
    from remime.training.launch import launch, run_launched
    from remime.training.processes import launched

    if a.processes < 0:
        raise InputError("--processes", f"got {a.processes}", "give 0 or more")
    trains = a.options.get("steps", OPTIONS["steps"]) and a.options.get("kind") != "directions"
    processes = a.processes or granted() or 1
    if trains and processes > 1 and not launched():
        arguments = sys.argv[1:] if argv is None else argv
        launch(processes, "remime.stages.train", arguments, a.state / "processes")
        return

    def train() -> None:
        files = a.output, a.history, a.card, a.state
        run(a.name, *files, a.options, a.datasets, a.init, a.inverter, a.half, a.notes, a.same_motion)

    if launched():
        run_launched(train)
    else:
        train()


if __name__ == "__main__":
    entry(main)

"""Train an inverter or a method, from scratch or from a shipped model, and write its card."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.files import write_text
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.versions import __version__


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
    deadline: float | None = None,
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
        options: the flat options; see ``remime.training.job.OPTIONS`` and the defaults of the tasks.
        datasets: training and validation data.
        init: a model to start from, of this project or imported (``remime.weights.importing``).
        inverter: the model whose latents the index tables hold (methods).
        half: store in half precision.
        notes: Markdown that the card ends with: what its figures do not say.
        deadline: moment of ``time.monotonic`` after which no further step begins.
        same_motion: rendered heads who share motions, for the loss of that name (methods).

    Raises:
        UnfinishedError: the deadline has passed; ``state`` holds what was done, and nothing else was written.
        InputError: data, init or options do not fit.
    """
    from remime.models import save_model
    from remime.tables import write_table
    from remime.training.job import OPTIONS, STRUCTURE, carry_out, read_job, read_start

    o = {**OPTIONS, **options}
    if notes is not None and not notes.is_file():
        raise InputError("--notes", f"{notes} is not a file", "name Markdown, or leave it off")
    ending = notes.read_text(encoding="utf-8") if notes is not None else ""
    start = read_start(init, o) if init is not None else None
    description = {
        "kind": o["kind"],
        "name": name,
        "method": o.get("method", o["kind"]),
        "preset": o["preset"],
        "generator": o["generator"],
        "options": {k: o[k] for k in STRUCTURE if k in o},
        "training": list(start.meta.get("training", [])) if start is not None else [],
    }
    if start is not None:
        description["options"] = {**start.meta["options"], **description["options"]}
        if "imported" in start.meta:
            description["imported"] = start.meta["imported"]
        if "names" in start.meta:
            description["names"] = start.meta["names"]
    rows: list[dict[str, Any]] = []
    if o["kind"] == "directions" and start is None:
        if o["steps"]:
            raise InputError(
                "steps", f"is {o['steps']}, but lids start from directions", "name these by --init"
            )
        tensors = _fit_directions(o, state, description)
    elif o["steps"]:
        trained = carry_out(read_job(name, o, datasets, start, inverter, same_motion), state, deadline)
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
    earlier = _told(init) if init is not None else {}
    write_text(card, render_card(description, seconds, earlier) + ending)
    shutil.rmtree(state, ignore_errors=True)
    return description


def _told(model: Path) -> dict[int, str]:
    """Hardware and minutes of a model's training runs, by their number, as the card beside it tells them."""
    cards = [path for path in (model.with_name("card.md"), model.with_suffix(".md")) if path.is_file()]
    text = cards[0].read_text(encoding="utf-8") if cards else ""
    found = re.finditer(r"^## Training run (\d+)$(?:(?!^## ).)*?^- hardware: (.+?)$", text, re.M | re.S)
    return {int(match[1]): match[2] for match in found}


def render_card(
    description: Mapping[str, Any],
    seconds: float | None = None,
    earlier: Mapping[int, str] | None = None,
) -> str:
    """A model card in Markdown: what it is, and every training run that led to it.

    Args:
        description: the model's.
        seconds: how long the last run took, where this card is the first to tell. The model does not tell, so
            that equal runs make equal files.
        earlier: hardware and minutes of runs that an earlier card tells, by their number.
    """
    runs = description["training"]
    lines = [
        f"# {description['name']}",
        "",
        f"- kind: {description['kind']}, method {description['method']}, preset {description['preset']}",
        f"- generator: {description['generator']}",
    ]
    if options := description["options"]:
        lines.append("- structure: " + ", ".join(f"{k} {v}" for k, v in sorted(options.items())))
    lines.append("")
    if imported := description.get("imported"):
        files = ", ".join(f"{file} (sha256 {digest})" for file, digest in imported["files"].items())
        lines += [f"Imported from {files}. Terms: {imported['terms']}.", ""]
    elif not runs:
        lines.append("Not trained: its weights are random.")
    for number, note in enumerate(runs, 1):
        # Models of earlier versions do tell.
        took = seconds if number == len(runs) and seconds is not None else note.get("seconds")
        if took is not None:
            hardware = f"{note['hardware']}, {took / 60:.0f} min"
        else:
            hardware = (earlier or {}).get(number, note["hardware"])
        lines += [
            f"## Training run {number}",
            "",
            f"- data: {', '.join(note['datasets']) or 'generator samples'}",
            f"- steps: {note['steps']} (kept: step {note['best_step']}), seed {note['seed']}",
            f"- hardware: {hardware}",
            "- validation: " + ", ".join(f"{k} {v:.4g}" for k, v in note["metrics"].items()),
            *_curve(note.get("curve", [])),
            "- options: " + ", ".join(f"{k} {v}" for k, v in sorted(note["options"].items())),
            "",
        ]
    return "\n".join(lines) + "\n"


def _curve(scores: Sequence[Sequence[float]]) -> list[str]:
    # A single validation is the one above, and 0 is the score of a task that cannot validate.
    if len(scores) < 2 or not any(score for _, score in scores):
        return []
    return [
        "- validation score (less is better) by step: " + ", ".join(f"{k:.0f}: {v:.4g}" for k, v in scores)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    began = time.monotonic()
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
    parser.add_argument(
        "--minutes",
        type=float,
        help="end after that time with status 75, if training is not finished; the same call goes on",
    )
    parser.add_argument("--half", action="store_true", help="store the model in half precision")
    parser.add_argument("--notes", type=Path, help="Markdown that the card ends with")
    add_datasets(parser, required=False)
    add_datasets(parser, "--same-motion", required=False)
    a = parser.parse_args(argv)
    if a.minutes is not None and not a.minutes > 0:
        raise InputError("--minutes", f"got {a.minutes}", "give a number above 0, or leave it off")
    deadline = began + 60 * a.minutes if a.minutes else None
    from remime.devices import granted
    from remime.training.job import OPTIONS
    from remime.training.launch import launch, run_launched
    from remime.training.processes import launched

    if a.processes < 0:
        raise InputError("--processes", f"got {a.processes}", "give 0 or more")
    trains = a.options.get("steps", OPTIONS["steps"])
    processes = a.processes or granted() or 1
    if trains and processes > 1 and not launched():
        arguments = sys.argv[1:] if argv is None else argv
        launch(processes, "remime.stages.train", arguments, a.state / "processes")
        return

    def train() -> None:
        files = a.output, a.history, a.card, a.state
        models = a.init, a.inverter, a.half, a.notes
        run(a.name, *files, a.options, a.datasets, *models, deadline, a.same_motion)

    if launched():
        run_launched(train)
    else:
        train()


if __name__ == "__main__":
    entry(main)

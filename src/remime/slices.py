"""Training in slices: on a machine that is lent for minutes, and to which only small files travel.

``python -m remime.slices VERB NAME`` with the verbs

- ``prepare``: where the workflow runs; makes what the training of NAME reads, and packs it as parts.
- ``slice``: anywhere; all of the following in turn.
- ``unpack``: the parts of a state become the state from which training goes on.
- ``train``: go on for some minutes.
- ``pack``: the state becomes parts.
- ``evaluate``: figures on the validation data, as JSON, next to those of the shipped model.

All but ``prepare`` need torch, numpy, safetensors and pillow only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remime.errors import InputError, UnfinishedError
from remime.layout import RESULTS, WEIGHTS, Layout

if TYPE_CHECKING:
    from remime.training.job import Job
    from remime.training.parts import Parts

FOLDER = Path("build/slices")
_VERBS = ("prepare", "slice", "unpack", "train", "pack", "evaluate")


def prepare(name: str, configfiles: Sequence[Path], folder: Path, limit: int, cores: int) -> Parts:
    """Make what a training reads, with the workflow, and pack it.

    Args:
        name: of an inverter or a model of the configuration.
        configfiles: laid over config.yaml.
        folder: of the parts.
        limit: largest size of a part in bytes.
        cores: for the workflow.

    Raises:
        InputError: the configuration has no such training.
    """
    from remime.options import layout, read_files
    from remime.schema import listed
    from remime.training.kit import pack_kit

    files = [Path("config.yaml"), *configfiles]
    flow = layout(read_files(files), name=listed(files))
    trained = [n for n in flow.trainings() if flow.learns(n)]
    if name not in trained:
        raise InputError(name, "is not trained by this configuration", f"allowed: {', '.join(trained)}")
    inputs = flow.train_inputs(name)
    paths = [path for value in inputs.values() for path in ([value] if isinstance(value, str) else value)]
    # No rule makes what is shipped or was imported.
    targets = [path for path in paths if RESULTS in Path(path).parents or not Path(path).exists()]
    overlay = ["--configfile", *map(str, configfiles)] if configfiles else []
    for wanted in (["shards"], targets):
        command = ["snakemake", "--cores", str(cores), "--quiet", "rules", *overlay, "--", *wanted]
        if subprocess.run(command, check=False).returncode:
            raise InputError(name, "its inputs could not be made", "see above")
    networks = [p for path in inputs["weights"] if WEIGHTS in (p := Path(path)).parents]
    return pack_kit(_job(flow, name), networks, folder, limit)


def _job(flow: Layout, name: str) -> Job:
    from remime.training.job import read_job, read_start

    options, inputs = flow.train_options(name), flow.train_inputs(name)
    start = read_start(Path(inputs["init"]), options) if "init" in inputs else None
    inverter = Path(inputs["inverter"]) if "inverter" in inputs else None
    train = flow.trained(name)["train"]
    datasets, same = ([flow.dataset(d) for d in train.get(key, [])] for key in ("datasets", "same_motion"))
    return read_job(name, options, datasets, start, inverter, same)


def state_of(name: str) -> Path:
    """Where the state of a training lies; the workflow goes on from it as well."""
    return RESULTS / "state" / "train" / name


def pack(job: Job, folder: Path, limit: int, moments: str = "32") -> Parts:
    """Pack the state of a training as the parts ``NAME-state``.

    Args:
        job: the training.
        folder: of the parts.
        limit: largest size of a part in bytes.
        moments: ``32``, or ``bf16`` to round the optimisers' moments, which halves them.

    Raises:
        InputError: there is no state of this job.
    """
    from remime.training.parts import write_parts
    from remime.training.state import load_state, rounded_moments

    state = load_state(state_of(job.name), job.digest)
    if state is None:
        raise InputError(state_of(job.name), "holds no state of this job", "train first")
    if moments == "bf16":
        state["optimizers"] = rounded_moments(state["optimizers"])
    about = {
        "kind": "state",
        "name": job.name,
        "digest": job.digest,
        "step": state["step"],
        "moments": moments,
    }
    return write_parts(folder, f"{job.name}-state", state, about, limit)


def unpack(job: Job, folder: Path) -> int:
    """Put the state that came as parts where training goes on from it; returns its step.

    A state that is there and has more steps is kept.

    Raises:
        InputError: a part is missing or damaged, or the parts belong to another job.
    """
    from remime.training.parts import describe, read_parts
    from remime.training.state import full_moments, load_state, save_state

    about = describe(folder, f"{job.name}-state").about
    if about["digest"] != job.digest:
        raise InputError(
            folder / f"{job.name}-state.json",
            "belongs to a training with other options or data",
            "delete its parts, or use the job that it was trained with",
        )
    present = load_state(state_of(job.name), job.digest)
    if present is not None and present["step"] >= about["step"]:
        return present["step"]
    state = read_parts(folder, f"{job.name}-state")
    state["optimizers"] = full_moments(state["optimizers"])
    save_state(state_of(job.name), state.pop("digest"), state)
    return about["step"]


def train(job: Job, deadline: float) -> None:
    """Go on with a training.

    Raises:
        UnfinishedError: the deadline has passed.
    """
    from remime.training.job import carry_out

    carry_out(job, state_of(job.name), deadline)


def evaluate(job: Job, against: Path | None = None) -> dict[str, Any]:
    """Figures of the best state so far and of a shipped model on the job's validation data, on this machine.

    Args:
        job: the training.
        against: another model file than that of ``models/`` of the same method and preset.

    Returns:
        ``name``, ``step``, ``best_step``, ``steps`` (of the whole training), ``seconds`` (of all slices),
        ``hardware``, ``validation``, and ``shipped`` with ``model`` and ``validation``, or None.

    Raises:
        InputError: there is no state of this job.
    """
    from remime.models import load_model
    from remime.training.job import figures_of, figures_of_state
    from remime.training.state import load_state

    folder = state_of(job.name)
    state = load_state(folder, job.digest)
    if state is None:
        raise InputError(folder, "holds no state of this job", "train first")
    report = {
        "name": job.name,
        "step": state["step"],
        "steps": job.options["steps"],
        "best_step": state["best"]["step"],
        "seconds": round(state["seconds"], 1),
        "hardware": state["hardware"],
        "validation": figures_of_state(job, folder, state),
        "shipped": None,
    }
    if (model := against or _shipped(job)) is not None:
        shipped = load_model(model, job.options["kind"])
        report["shipped"] = {"model": str(model), "validation": figures_of(job, folder, shipped)}
    return report


def _shipped(job: Job) -> Path | None:
    from remime.models import shipped

    try:
        return shipped(f"{job.options['method']}-{job.options['preset']}")
    except InputError:  # of this method and preset there is none
        return None


def run_slice(
    job: Job, folder: Path, into: Path, deadline: float, limit: int, moments: str, against: Path | None
) -> None:
    """Unpack what came, train until the deadline, pack and evaluate.

    Args:
        job: the training.
        folder: where the parts of a state lie that came, if any did.
        into: where the parts of the new state go, and ``NAME-evaluation.json``.
        deadline: moment of ``time.monotonic`` after which no further step begins.
        limit: largest size of a part in bytes.
        moments: see ``pack``.
        against: see ``evaluate``.

    Raises:
        UnfinishedError: the deadline has passed before the end of the training; all files were written.
    """
    from remime.files import write_text

    if (folder / f"{job.name}-state.json").is_file():
        print(f"{job.name}: at step {unpack(job, folder)}", file=sys.stderr)
    unfinished = None
    try:
        train(job, deadline)
    except UnfinishedError as end:
        unfinished = end
    _report(pack(job, into, limit, moments))
    figures = json.dumps(evaluate(job, against), indent=1)
    write_text(into / f"{job.name}-evaluation.json", figures)
    print(figures)
    if unfinished is not None:
        raise unfinished


def _report(parts: Parts) -> None:
    print(f"{len(parts.files)} parts, {parts.bytes / 1e6:.1f} MB: {parts.files[0].parent}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> None:
    began = time.monotonic()
    a = _parser().parse_args(argv)
    if not a.minutes > 0:
        raise InputError("--minutes", f"got {a.minutes}", "give a number above 0")
    limit, deadline = int(a.part_size * 1e6), began + 60 * a.minutes
    if a.verb == "prepare":
        _report(prepare(a.name, a.configfile, a.folder, limit, a.cores))
        return
    from remime.training.kit import read_kit

    job = read_kit(a.folder, a.name)
    into = a.into or a.folder
    match a.verb:
        case "slice":
            run_slice(job, a.folder, into, deadline, limit, a.moments, a.against)
        case "unpack":
            print(f"{a.name}: at step {unpack(job, a.folder)}", file=sys.stderr)
        case "train":
            train(job, deadline)
        case "pack":
            _report(pack(job, into, limit, a.moments))
        case "evaluate":
            print(json.dumps(evaluate(job, a.against), indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m remime.slices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("verb", choices=_VERBS)
    parser.add_argument("name", help="an inverter or a model of the configuration")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the parts [build/slices]")
    parser.add_argument("--into", type=Path, help="folder for the parts of the new state [--folder]")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training; packing comes on top [8]")
    parser.add_argument("--part-size", type=float, default=16.0, metavar="MB", help="largest part [16]")
    parser.add_argument(
        "--moments",
        choices=("32", "bf16"),
        default="32",
        help="bf16 rounds the optimiser's moments in the parts to half their size; training then no longer"
        " goes on to the last bit [32]",
    )
    parser.add_argument("--against", type=Path, help="evaluate: a model file [that of models/]")
    parser.add_argument(
        "--configfile", type=Path, nargs="+", default=[], help="prepare: laid over config.yaml"
    )
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="prepare: for the workflow")
    return parser


if __name__ == "__main__":
    from remime.stages import entry

    entry(main)

"""Checks of what the user gave, before anything expensive starts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from remime.devices import compute_device
from remime.errors import InputError

Driving = Annotated[Path, typer.Option(metavar="VIDEO", help="Whose motion: a video or an image.")]
Target = Annotated[
    str,
    typer.Option(
        metavar="IMAGE|VIDEO|random:SEED", help="Whose face; a video's first one, or a made-up one."
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]
PRECISIONS = ("float32", "bfloat16", "float16")
Precision = Annotated[
    str,
    typer.Option(
        metavar="|".join(PRECISIONS),
        help="In which frames are decoded; less than float32 is for GPUs, `bench` tells its error.",
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the generator first, which takes a minute and more.")
]
Licence = Annotated[
    str,
    typer.Option(metavar="any|research|permissive", help="Which terms of pretrained networks you accept."),
]

RANDOM = "random:"
_SEED_FIX = "give random:SEED with a whole number, e.g. random:7"


def random_seed(target: str) -> int | None:
    """The seed in ``random:SEED``; None for a file's name.

    Raises:
        InputError: what follows is not a whole number.
    """
    if not target.startswith(RANDOM) or Path(target).exists():
        return None
    text = target.removeprefix(RANDOM)
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise InputError("--target", f"{target!r} has no seed", _SEED_FIX)
    return int(text)


def one_of(option: str, value: object, allowed: Sequence[object]) -> None:
    """InputError unless the value is allowed."""
    if value not in allowed:
        raise InputError(option, f"{value!r} is unknown", f"allowed: {', '.join(map(str, allowed))}")


def check_output(path: Path, suffix: str, inputs: Sequence[Path]) -> None:
    """Find out whether a file can be written there.

    Raises:
        InputError: another suffix, a folder, one of the inputs, or a place that cannot be written to.
    """
    if path.suffix.lower() != suffix:
        raise InputError(path, f"does not end in {suffix}", f"name the output …{suffix}")
    if path.is_dir():
        raise InputError(path, "is a folder", f"name a file, e.g. {path / ('result' + suffix)}")
    if path.exists() and any(path.samefile(other) for other in inputs if other.exists()):
        raise InputError(path, "is one of the inputs and would be overwritten", "choose another name")
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(path, f"{folder} cannot be written to ({reason})", "choose another folder") from None


def device_of(name: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``.

    Of several GPUs a free one is taken. Where none is free one is shared, and stderr says so: somebody waits
    for the result, and a video needs little of a GPU.

    Raises:
        InputError: another name, or a GPU was asked for and none can be used.
    """
    import torch

    one_of("--device", name, ("auto", "cpu", "cuda"))
    if name == "cpu":
        return name
    found = compute_device("share")
    if name == "cuda" and found != name:
        built = "this PyTorch has no CUDA" if torch.version.cuda is None else "no GPU is visible"
        raise InputError("--device", f"cuda cannot be used: {built}", "allowed here: auto, cpu")
    return found

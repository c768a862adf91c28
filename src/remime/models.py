"""Model files that this project writes: safetensors with a JSON description inside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remime.errors import InputError
from remime.files import atomic
from remime.versions import STAGES, __version__

FORMAT = 1


@dataclass(frozen=True)
class Model:
    """A trained network: its tensors (float32) and what it is.

    ``meta`` has at least ``kind`` (preview, inverter, method), ``method``, ``preset``, ``generator`` and
    ``options``.
    """

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def save_model(
    path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], half: bool = False
) -> None:
    """Write a model atomically.

    Args:
        path: the ``.safetensors`` file.
        tensors: the state dict.
        meta: JSON description; see ``Model``.
        half: store floating-point tensors in half precision (the models in ``models/`` are).
    """
    from safetensors.torch import save

    note = {"format": FORMAT, "stage": STAGES["train"], "remime": __version__, **meta}
    stored = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        stored[name] = (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous()
    with atomic(path) as temporary:
        # Not `save_file`: a process that is killed in it leaves a file that nobody would remove.
        temporary.write_bytes(save(stored, {"remime": json.dumps(note, sort_keys=True)}))


def read_meta(path: str | Path) -> dict[str, Any]:
    """The description in a model file.

    Raises:
        InputError: it is missing, damaged, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            raw = (file.metadata() or {}).get("remime")
    except FileNotFoundError:
        raise InputError(path, "there is no such model file", "train it, or name one of models/") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            path, f"is not a readable safetensors file ({error})", "delete it and train again"
        ) from None
    if raw is None:
        raise InputError(path, "has no description by remime", "name a model that this workflow wrote")
    meta = json.loads(raw)
    if meta["format"] != FORMAT:
        raise InputError(
            path, f"has format {meta['format']}", f"this version reads format {FORMAT}; train it again"
        )
    return meta


def load_model(path: str | Path, kind: str | None = None) -> Model:
    """Read a model.

    Args:
        path: the ``.safetensors`` file.
        kind: what it must be, if it matters.

    Raises:
        InputError: missing, damaged, not one of ours, or of another kind.
    """
    from safetensors.torch import load_file

    meta = read_meta(path)
    if kind is not None and meta["kind"] != kind:
        raise InputError(path, f"holds a model of kind {meta['kind']!r}", f"a {kind!r} is needed here")
    tensors = load_file(str(path))
    return Model({k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}, meta)


def shipped(name: str) -> Path:
    """The path of a model that the project ships, ``models/NAME.safetensors``.

    Looked for in $REMIME_MODELS, in ./models, and beside the package's sources.

    Raises:
        InputError: it is in none of them.
    """
    places = [Path(os.environ[v]) for v in ("REMIME_MODELS",) if os.environ.get(v)]
    places += [Path("models"), Path(__file__).resolve().parents[2] / "models"]
    for place in places:
        path = place / f"{name}.safetensors"
        if path.exists():
            return path
    looked = ", ".join(str(p) for p in places)
    raise InputError(
        f"{name}.safetensors", f"is in none of: {looked}", "set REMIME_MODELS to the models' folder"
    )

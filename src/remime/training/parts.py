"""Nested data with tensors as safetensors files of limited size, so that they can travel one by one.

A set of parts is ``NAME-GENERATION.000.safetensors …`` with its manifest ``NAME.json``. The generation
follows from the contents: a new set never overwrites files of the one before, which is whole until the
manifest is replaced.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from remime.errors import InputError, VersionError
from remime.files import atomic, write_text
from remime.versions import __version__

FORMAT = 1
LIMIT = 16_000_000  # bytes of a part
_HEADER = 2**16  # bytes that are kept free for the header of a part, enough for
_PIECES = 400  # pieces of tensors in it
_GENERATION = 8  # hex digits
_FIX = "fetch all files of the set again"
_DTYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
}
# What JSON cannot say otherwise.
_TENSOR, _PAIRS, _TUPLE = "$tensor", "$pairs", "$tuple"


@dataclass(frozen=True)
class Parts:
    """What a manifest says.

    Attributes:
        about: what the set belongs to, as it was written.
        files: the parts, in order.
        bytes: of all parts.
    """

    about: dict[str, Any]
    files: list[Path]
    bytes: int


def write_parts(folder: Path, name: str, tree: Any, about: Mapping[str, Any], limit: int = LIMIT) -> Parts:
    """Write nested data; a set of the same name is replaced once the new one is complete.

    Args:
        folder: where; made if missing.
        name: of the set.
        tree: dicts, lists and tuples of tensors, texts, numbers and None. Equal tensors are stored once.
        about: JSON-able; what the data belong to.
        limit: largest size of a file in bytes.

    Raises:
        InputError: the limit is too small to be kept.
        TypeError: ``tree`` holds something else.
    """
    if limit < 2 * _HEADER:
        raise InputError("limit of a part", f"got {limit} bytes", f"give at least {2 * _HEADER}")
    tensors: dict[str, Tensor] = {}
    note = json.dumps(_flatten(tree, tensors, {}))
    tensors["note"] = torch.frombuffer(bytearray(note.encode()), dtype=torch.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    generation = _digest(tensors)[:_GENERATION]
    listed, whole = [], hashlib.sha256()
    for number, content in enumerate(_slices(tensors, limit)):
        file = folder / f"{name}-{generation}.{number:03d}.safetensors"
        data = save(content)
        with atomic(file) as temporary:
            temporary.write_bytes(data)
        whole.update(data)
        listed.append({"file": file.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    manifest = {
        "format": FORMAT,
        "remime": __version__,
        "about": dict(about),
        "tensors": {k: [str(v.dtype).removeprefix("torch."), list(v.shape)] for k, v in tensors.items()},
        "sha256": whole.hexdigest(),
        "parts": listed,
    }
    write_text(folder / f"{name}.json", json.dumps(manifest, indent=1))
    kept = {part["file"] for part in listed}
    for old in folder.glob(f"{name}-{'[0-9a-f]' * _GENERATION}.[0-9]*.safetensors"):
        if old.name not in kept:
            old.unlink()
    return describe(folder, name)


def describe(folder: Path, name: str) -> Parts:
    """What the manifest of a set says; its parts are not read.

    Raises:
        InputError: there is no manifest, or it is damaged.
        VersionError: it is of another format.
    """
    manifest = _manifest(folder, name)
    files = [folder / part["file"] for part in manifest["parts"]]
    return Parts(manifest["about"], files, sum(part["bytes"] for part in manifest["parts"]))


def read_parts(folder: Path, name: str) -> Any:
    """Read nested data as ``write_parts`` wrote them; tensors are on the CPU.

    Raises:
        InputError: a file is missing, damaged, or of another set; it names the file.
        VersionError: the set is of another format.
    """
    manifest = _manifest(folder, name)
    parts = manifest["parts"]
    # All are checked before memory is taken for any of them.
    whole = hashlib.sha256()
    for part in parts:
        whole.update(_part(folder / part["file"], part))
    wrong = InputError(folder / f"{name}.json", "does not describe its parts", _FIX)
    if whole.hexdigest() != manifest["sha256"]:
        raise wrong
    try:
        tensors = _join((_part(folder / part["file"], part) for part in parts), manifest)
        note = json.loads(tensors.pop("note").numpy().tobytes())
        return _restore(note, tensors)
    except (SafetensorError, RuntimeError, KeyError, ValueError, TypeError):
        raise wrong from None


def _join(parts: Iterable[bytes], manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    kinds = {name: (_DTYPES[kind], shape) for name, (kind, shape) in manifest["tensors"].items()}
    needed = sum(math.prod(shape) * kind.itemsize for kind, shape in kinds.values())
    if needed > sum(part["bytes"] for part in manifest["parts"]):
        raise ValueError("tensors are larger than the parts")
    tensors = {name: torch.empty(shape, dtype=kind) for name, (kind, shape) in kinds.items()}
    filled = dict.fromkeys(tensors, 0)
    for data in parts:
        for key, values in load(data).items():
            name, _, start = key.rpartition("@")
            tensors[name].view(-1)[int(start) : int(start) + len(values)] = values
            filled[name] += len(values)
    if any(count != tensors[name].numel() for name, count in filled.items()):
        raise ValueError("values are missing")
    return tensors


def _part(file: Path, said: Mapping[str, Any]) -> bytes:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise InputError(file, "is missing", _FIX) from None
    if len(data) != said["bytes"]:
        raise InputError(file, f"has {len(data)} bytes instead of {said['bytes']}", _FIX)
    if hashlib.sha256(data).hexdigest() != said["sha256"]:
        raise InputError(file, "is damaged, or a part of another set", _FIX)
    return data


def _manifest(folder: Path, name: str) -> dict[str, Any]:
    file = folder / f"{name}.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        complete = manifest["about"], manifest["tensors"], manifest["sha256"]
        names = [part["file"] for part in manifest["parts"] if part["bytes"] and part["sha256"]]
    except FileNotFoundError:
        raise InputError(file, "is missing", _FIX) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(file, "is not the manifest of a set of parts, or is damaged", _FIX) from None
    if manifest.get("format") != FORMAT:
        raise VersionError(f"{file}: has format {manifest.get('format')}; this version reads {FORMAT}")
    if not complete or any(Path(part).name != part for part in names):
        raise InputError(file, "names a part outside its folder", _FIX)
    return manifest


def _flatten(value: Any, tensors: dict[str, Tensor], known: dict[str, str]) -> Any:
    """JSON of nested data, whose tensors are put aside; ``known`` are their names by contents."""
    if isinstance(value, Tensor):
        content = _digest({"": value})
        if content not in known:
            known[content] = str(len(tensors))
            tensors[known[content]] = value.detach().cpu().contiguous()
        return {_TENSOR: known[content]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _flatten(v, tensors, known) for key, v in value.items()}
        return {_PAIRS: [[key, _flatten(v, tensors, known)] for key, v in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_flatten(v, tensors, known) for v in value]}
    if isinstance(value, list):
        return [_flatten(v, tensors, known) for v in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{type(value).__name__} cannot be a part of a state")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restore(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        # Equal ones were stored once; what comes back must not share memory.
        return tensors[value[_TENSOR]].clone()
    if _PAIRS in value:
        return {key: _restore(v, tensors) for key, v in value[_PAIRS]}
    if _TUPLE in value:
        return tuple(_restore(v, tensors) for v in value[_TUPLE])
    return {key: _restore(v, tensors) for key, v in value.items()}


def _slices(tensors: Mapping[str, Tensor], limit: int) -> Iterator[dict[str, Tensor]]:
    """Consecutive pieces of tensors whose files stay within the limit."""
    content: dict[str, Tensor] = {}
    free = limit - _HEADER
    for name, tensor in tensors.items():
        flat, start = tensor.reshape(-1), 0
        while start < len(flat):
            count = min(free // flat.itemsize, len(flat) - start)
            # A piece costs its line in the header as well.
            if not count or len(content) == _PIECES:
                yield content
                content, free = {}, limit - _HEADER
                continue
            content[f"{name}@{start}"] = flat[start : start + count]
            start, free = start + count, free - count * flat.itemsize
    if content:
        yield content


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

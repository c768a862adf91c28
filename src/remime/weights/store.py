"""Converted weights on disk: making them once, and loading them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from remime.catalogue import by_hand
from remime.errors import WeightsError
from remime.files import atomic, sha256, write_text
from remime.versions import STAGES, __version__
from remime.weights.convert import convert, converter_version
from remime.weights.fetch import fetch, original_path
from remime.weights.registry import Entry, check_licence, find_entry, read_registry


@dataclass(frozen=True)
class Weights:
    """A converted network.

    Args:
        name: the row of the table.
        tensors: its parameters by name, on the CPU.
        meta: where they come from (``sha256`` and ``source`` by original file), their ``terms``, ``shapes``,
            and what the converter adds, e.g. ``graph``.
    """

    name: str
    tensors: dict[str, torch.Tensor] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)


def weights_dir() -> Path:
    """``$REMIME_WEIGHTS``, else ``resources/weights`` here if the workflow is, else the user's cache."""
    if named := os.environ.get("REMIME_WEIGHTS"):
        return Path(named)
    local = Path("resources/weights")
    here = local.is_dir() or Path("workflow/weights.tsv").is_file()
    return local if here else Path.home() / ".cache" / "remime" / "weights"


def _directory(directory: str | Path | None) -> Path:
    return Path(directory) if directory is not None else weights_dir()


def _mend(name: str, directory: Path) -> str:
    entry = read_registry().get(name)
    if entry is None or entry.by_hand:
        return f"remime weights import FILE --name {name}"
    return f"python -m remime.stages.weights --name {name} --output {directory}"


def _cache(directory: Path) -> Path:
    return directory.parent / "cache"


def _paths(name: str, directory: Path) -> tuple[Path, Path]:
    return directory / f"{name}.safetensors", directory / f"{name}.json"


def _read_meta(name: str, directory: Path) -> dict[str, Any]:
    path = _paths(name, directory)[1]
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: damaged ({error})\n  delete it, then {_mend(name, directory)}") from None
    if not isinstance(meta, dict) or meta.get("name") != name or "shapes" not in meta:
        raise WeightsError(f"{path}: does not describe {name}\n  delete it, then {_mend(name, directory)}")
    return meta


def is_current(entry: Entry, directory: Path) -> bool:
    """Whether the converted files exist and were made from the pinned originals by today's converter."""
    tensors, description = _paths(entry.name, directory)
    if not tensors.is_file() or not description.is_file():
        return False
    try:
        meta = _read_meta(entry.name, directory)
        with safe_open(tensors, framework="pt") as handle:
            names = set(handle.keys())
    except (WeightsError, SafetensorError, OSError):
        return False
    whole = meta.get("safetensors", {}).get("bytes") == tensors.stat().st_size and names == set(
        meta["shapes"]
    )
    if entry.by_hand:
        # Its original is not kept, so it cannot be made again; what it is counts, not which copy it was.
        return whole and meta.get("converter") == entry.converter and meta.get("kind") == entry.kind
    return (
        whole
        and meta.get("sha256") == {member.file: member.sha256 for member in entry.members}
        and meta.get("stage_version") == STAGES["weights"]
        and meta.get("converter_version") == converter_version(entry.converter)
    )


def _write(entry: Entry, directory: Path, files: dict[str, Path], sources: dict[str, str]) -> None:
    tensors, extra = convert(entry.converter, files)
    meta = {
        "role": entry.role,
        "version": entry.version,
        "sha256": {member.file: member.sha256 for member in entry.members},
        "source": sources,
        "terms": {
            "class": entry.terms,
            "weights": entry.weights_terms,
            "package": entry.package_terms,
            "mirror": entry.mirror,
        },
        "converter": entry.converter,
        "converter_version": converter_version(entry.converter),
    }
    if clash := set(meta) & set(extra):
        raise ValueError(f"converter {entry.converter}: its metadata repeats {sorted(clash)}")
    write(entry.name, directory, tensors, meta | extra)


def write(name: str, directory: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Path:
    """Store converted weights and their description; the safetensors file.

    Args:
        name: under which ``load`` finds them.
        directory: the folder of weights.
        tensors: the parameters by name.
        meta: where they come from; name, versions, shapes and the sha256 of the result are added.
    """
    path, description = _paths(name, directory)
    with atomic(path) as temporary:
        # Not `save_file`: a process that is killed in it leaves a file that nobody would remove.
        temporary.write_bytes(save({key: value.contiguous() for key, value in tensors.items()}))
        converted = {"sha256": sha256(temporary), "bytes": temporary.stat().st_size}
    added = {
        "name": name,
        "stage_version": STAGES["weights"],
        "remime": __version__,
        "safetensors": converted,
        "shapes": {key: list(value.shape) for key, value in tensors.items()},
    }
    write_text(description, json.dumps({**meta, **added}, indent=1, sort_keys=True) + "\n")
    return path


def _known_sources(name: str, directory: Path) -> dict[str, str]:
    """Where an earlier conversion's originals came from, as far as it tells."""
    try:
        return dict(_read_meta(name, directory).get("source", {}))
    except (WeightsError, OSError):
        return {}


def ensure(
    name: str,
    directory: str | Path | None = None,
    licence: str = "any",
    table: str | Path | None = None,
) -> Path:
    """Fetch, verify and convert weights unless that is done, and return the safetensors file.

    Args:
        name: a row of the table.
        directory: the folder of weights; by default :func:`weights_dir`.
        licence: ``any``, ``research`` or ``permissive``.
        table: another table than ``workflow/weights.tsv``.

    Raises:
        WeightsError: refused by the licence policy, not to be had, or not convertible.
    """
    entry, folder = find_entry(name, table), _directory(directory)
    check_licence(entry, licence)
    if not is_current(entry, folder):
        if entry.by_hand:
            raise WeightsError(_absent(name, folder))
        files, sources = fetch(entry, folder, _cache(folder))
        unknown = dict.fromkeys(files, "local file")
        _write(entry, folder, files, unknown | _known_sources(entry.name, folder) | sources)
    return _paths(name, folder)[0]


def load(name: str, directory: str | Path | None = None) -> Weights:
    """Load converted weights.

    Raises:
        WeightsError: they are absent or damaged; it says how to get them.
    """
    folder = _directory(directory)
    path, description = _paths(name, folder)
    if not path.is_file() or not description.is_file():
        raise WeightsError(_absent(name, folder))
    meta = _read_meta(name, folder)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: damaged ({error})\n  delete it, then {_mend(name, folder)}") from None
    if {key: list(value.shape) for key, value in tensors.items()} != meta["shapes"]:
        raise WeightsError(
            f"{path}: holds other tensors than {description.name} says\n"
            f"  delete both, then {_mend(name, folder)}"
        )
    return Weights(name, tensors, meta)


def _absent(name: str, directory: Path) -> str:
    known = read_registry()
    if name not in known:
        return (
            f"no weights are called {name!r} in {directory}\n  known: {', '.join(known)}\n"
            f"  a file of your own is made known with: {_mend(name, directory)}"
        )
    entry = known[name]
    if entry.by_hand:
        (member,) = entry.members
        told = by_hand(name, member.file, member.upstream, entry.bytes)
        return f"weights {name!r} are not in {directory}\n  {told}"
    needed = "".join(
        f"\n    {original_path(entry, member, directory)} (sha256 {member.sha256})"
        + "".join(f"\n      {source}" for source in (member.upstream, entry.mirror) if source)
        for member in entry.members
    )
    return (
        f"weights {name!r} are not in {directory}\n  run: {_mend(name, directory)}\n"
        f"  or first put by hand, e.g. from the sources below:{needed}"
    )


def originals(name: str, directory: str | Path | None = None) -> dict[str, Path]:
    """The verified original files of a network by name.

    Raises:
        WeightsError: one is absent or is not the pinned one.
    """
    entry, folder = find_entry(name), _directory(directory)
    if entry.by_hand:
        raise WeightsError(f"weights {name!r} were imported; their original is not kept")
    found = {}
    for member in entry.members:
        path = original_path(entry, member, folder)
        if not path.is_file():
            raise WeightsError(_absent(name, folder))
        if sha256(path) != member.sha256:
            raise WeightsError(
                f"{path}: is not the file with sha256 {member.sha256}\n"
                f"  delete it, then {_mend(name, folder)}"
            )
        found[member.file] = path
    return found


def original(name: str, directory: str | Path | None = None) -> Path:
    """The verified original file of a network that has a single one.

    Raises:
        WeightsError: it is absent or is not the pinned one.
    """
    found = list(originals(name, directory).values())
    if len(found) != 1:
        raise ValueError(f"{name} has {len(found)} original files; use originals()")
    return found[0]


def verify(name: str, directory: str | Path | None = None) -> dict[str, Any]:
    """Check a network's converted file against its recorded sha256 and return its metadata.

    Raises:
        WeightsError: absent, damaged, or made from other originals than the table pins.
    """
    entry, folder = find_entry(name), _directory(directory)
    meta = load(name, folder).meta
    path = _paths(name, folder)[0]
    if sha256(path) != meta.get("safetensors", {}).get("sha256"):
        raise WeightsError(f"{path}: was changed since it was made\n  delete it, then {_mend(name, folder)}")
    if not is_current(entry, folder):
        raise WeightsError(f"{path}: made from other files or by another converter\n  {_mend(name, folder)}")
    return meta

"""Checkpoints that a user brings: recognised, converted and kept beside the weights of the table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from remime import catalogue
from remime.errors import InputError, WeightsError
from remime.files import sha256
from remime.weights import store
from remime.weights.recognise import Kind, recognise
from remime.weights.registry import Entry, read_registry

VERSION = 1  # raised when a file is converted in another way

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True)
class Imported:
    """What became of a file.

    Args:
        name: how the project calls it now.
        kind: what it is.
        path: the safetensors file.
        meta: its description.
    """

    name: str
    kind: Kind
    path: Path
    meta: dict[str, Any]

    @property
    def use(self) -> str:
        """What can be done with it."""
        return self.kind.use.format(name=self.name)


def import_file(
    path: str | Path,
    name: str | None = None,
    kind: str | None = None,
    directory: str | Path | None = None,
) -> Imported:
    """Recognise a checkpoint and store it as ``{name}.safetensors`` and ``{name}.json``.

    Args:
        path: the file; it is only read, and nothing in it is executed.
        name: lower-case letters, digits and hyphens; by default made of its kind and the file's name.
        kind: see :func:`remime.weights.recognise.recognise`.
        directory: the folder of weights; by default :func:`remime.weights.weights_dir`.

    Raises:
        InputError: the file or the name cannot be used; it says why and what is allowed.
    """
    path, folder = Path(path), Path(directory) if directory is not None else store.weights_dir()
    if name is not None:
        _check_name(name)
    found = recognise(path, kind)
    chosen = name or _default_name(found.kind, path)
    if found.kind.name == "stylegan2" and not chosen.startswith("stylegan2"):
        raise InputError("--name", f"{chosen!r} is a generator", "its name must begin with stylegan2")
    row = read_registry().get(chosen)
    if row is not None and row.kind != found.kind.name:
        told = f"{chosen!r} stands for a file of the kind {row.kind}, this one is {found.kind.name}"
        raise InputError("--name", told, "choose another name")
    digest = sha256(path)
    _check_free(chosen, digest, folder)
    meta = {
        "role": found.kind.role,
        "kind": found.kind.name,
        "version": row.version if row is not None else "",
        "sha256": {path.name: digest},
        "source": {path.name: "local file"},
        "terms": _terms(row),
        "converter": catalogue.IMPORT,
        "converter_version": VERSION,
        **found.meta,
        "notes": [*found.meta["notes"], *_compared(row, digest)],
    }
    try:
        stored = store.write(chosen, folder, found.tensors, meta)
    except (SafetensorError, ValueError, RuntimeError) as error:
        told = str(error).partition("\n")[0][:300]
        raise InputError(
            path, f"holds tensors that cannot be stored ({told})", "import another file"
        ) from None
    return Imported(chosen, found.kind, stored, store.load(chosen, folder).meta)


def _terms(row: Entry | None) -> dict[str, str]:
    """The terms of the table's row that the file stands for, if any; nobody else's are known."""
    if row is not None:
        return {"class": row.terms, "weights": row.weights_terms, "package": row.package_terms, "mirror": ""}
    told = "those of its authors, which its user knows"
    return {"class": "unknown", "weights": told, "package": "", "mirror": ""}


def _compared(row: Entry | None, digest: str) -> list[str]:
    """Whether the file is the very one that the table knows; another copy of the network serves as well."""
    pinned = [member.sha256 for member in row.members if member.sha256] if row is not None else []
    if not pinned:
        return []
    known = "is the one" if digest in pinned else "is not the one"
    return [f"its sha256 {known} that workflow/weights.tsv has of {row.members[0].file}"]  # type: ignore[union-attr]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            "--name", f"{name!r} cannot be a name", "allowed: lower-case letters, digits, hyphens"
        )
    row = read_registry().get(name)
    if row is not None and not row.by_hand:
        told = f"{name!r} is a network of workflow/weights.tsv that is fetched"
        raise InputError("--name", told, "choose another name")


def _default_name(kind: Kind, path: Path) -> str:
    if kind.unique:
        return kind.name
    stem = re.sub(r"[^a-z0-9]+", "-", path.name.partition(".")[0].lower()).strip("-")
    return (stem if stem.startswith(kind.name) else f"{kind.name}-{stem}")[:64].strip("-")


def _check_free(name: str, digest: str, folder: Path) -> None:
    """Refuse to replace another file's weights; importing the same file again is fine."""
    held = imported(folder).get(name)
    if held is not None and digest not in held.get("sha256", {}).values():
        raise InputError(
            "--name",
            f"{name!r} was imported from another file ({', '.join(held.get('sha256', {}))})",
            f"choose another name, or delete {folder / name}.safetensors and .json first",
        )


def imported(directory: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """The descriptions of all imported weights by name; damaged ones are left out."""
    folder = Path(directory) if directory is not None else store.weights_dir()
    return catalogue.read_imported(folder)


def verify_imported(name: str, directory: str | Path | None = None) -> dict[str, Any]:
    """Compare imported weights with their recorded sha256; their description.

    Raises:
        WeightsError: absent, damaged, or changed since they were imported.
    """
    folder = Path(directory) if directory is not None else store.weights_dir()
    meta = store.load(name, folder).meta
    path = folder / f"{name}.safetensors"
    if sha256(path) != meta.get("safetensors", {}).get("sha256"):
        raise WeightsError(f"{path}: was changed since it was made\n  import its file again")
    return meta

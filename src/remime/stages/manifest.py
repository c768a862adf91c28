"""List all clips of a dataset, with their identity and split."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from remime.errors import InputError
from remime.files import atomic
from remime.sources import KINDS, Clip, Listing, Problem, load_source
from remime.stages import entry, stage_parser
from remime.tables import SCHEMAS, write_table

SPLITS = ("train", "val", "test")
_SHOWN = 3


def check(name: str, clips: Sequence[Clip]) -> None:
    """Refuse clips that later stages would confuse.

    Raises:
        InputError: none at all, a name or identity that is used twice, an unknown kind or split.
    """
    if not clips:
        raise InputError(f"datasets.{name}", "has no clip", "choose other options of its source")
    names = Counter(clip.clip for clip in clips)
    if twice := [clip for clip, count in names.items() if count > 1]:
        raise InputError(f"datasets.{name}", f"clips of the same name: {', '.join(twice[:10])}", "rename one")
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(clip.identity, set()).add(clip.split)
        if clip.split not in SPLITS or clip.kind not in KINDS:
            raise InputError(f"clip {clip.clip}", f"has the split {clip.split!r} and the kind {clip.kind!r}")
    if mixed := sorted(identity for identity, found in splits.items() if len(found) > 1):
        raise InputError(f"datasets.{name}", f"identities in several splits: {', '.join(mixed[:10])}")


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Write what could not be used as a TSV table: kind, where, what; a header alone when it is nothing."""
    # Names of files can be no UTF-8, and metadata can hold half a character.
    with (
        atomic(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as handle,
    ):
        writer = csv.writer(handle, dialect="excel-tab", lineterminator="\n")
        writer.writerow(("kind", "where", "what"))
        writer.writerows((problem.kind, problem.where, problem.what) for problem in problems)


def log_problems(name: str, problems: Sequence[Problem], path: Path) -> None:
    """Say how many problems of each kind there are, and the first few of each."""
    counts = Counter[str]()
    for problem in problems:
        counts[problem.kind] += 1
        if counts[problem.kind] <= _SHOWN:
            logging.warning("%s: %s: %s: %s", name, problem.kind, problem.where, problem.what)
    if counts:
        listed = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        logging.warning("%s: %s; all of them in %s", name, listed, path)


def run(
    source: str, name: str, table: Path | None, output: Path, problems: Path, options: Mapping[str, Any]
) -> list[Clip]:
    """Write the manifest of a dataset and return its clips, sorted by name.

    Args:
        source: a module of ``remime.sources``.
        name: the dataset's name.
        table: a table of this project that the source reads, or None.
        output: ``manifest.parquet``.
        problems: the table of what could not be used of the dataset's files and metadata.
        options: what the source is told.

    Raises:
        InputError: the source has no clips, or such that are ambiguous.
    """
    found = load_source(source).clips(name, dict(options), table)
    unusable = found.problems if isinstance(found, Listing) else []
    write_problems(problems, unusable)
    log_problems(name, unusable, problems)
    clips = sorted(found, key=lambda clip: clip.clip)
    check(name, clips)
    write_table(output, "manifest", _columns(clips), source=source, options=dict(options))
    return clips


def _columns(clips: Sequence[Clip]) -> pa.Table:
    """The clips as a table, column by column: a dictionary for each of a million would cost gigabytes."""
    schema = SCHEMAS["manifest"][1]
    return pa.table({f.name: pa.array([getattr(clip, f.name) for clip in clips], f.type) for f in schema})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("manifest", __doc__)
    parser.add_argument("--source", required=True, help="a module of remime.sources")
    parser.add_argument("--dataset", required=True, help="the dataset's name")
    parser.add_argument("--table", type=Path, help="a table of this project that the source reads")
    parser.add_argument("--output", type=Path, required=True, help="manifest.parquet")
    parser.add_argument("--problems", type=Path, required=True, help="what could not be used, as TSV")
    args = parser.parse_args(argv)
    clips = run(args.source, args.dataset, args.table, args.output, args.problems, args.options)
    people = {clip.identity: clip.split for clip in clips}
    counts = ", ".join(f"{n} {split}" for split, n in sorted(Counter(people.values()).items()))
    logging.info("%s: %d clips of %d identities (%s)", args.dataset, len(clips), len(people), counts)


if __name__ == "__main__":
    entry(main)

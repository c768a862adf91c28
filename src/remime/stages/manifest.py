"""List all clips of a dataset, with their identity and split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.sources import KINDS, Clip, load_source
from remime.stages import entry, stage_parser
from remime.tables import write_table

SPLITS = ("train", "val", "test")


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


def run(source: str, name: str, table: Path | None, output: Path, options: Mapping[str, Any]) -> list[Clip]:
    """Write the manifest of a dataset and return its clips, sorted by name.

    Args:
        source: a module of ``remime.sources``.
        name: the dataset's name.
        table: a table of this project that the source reads, or None.
        output: ``manifest.parquet``.
        options: what the source is told.

    Raises:
        InputError: the source has no clips, or such that are ambiguous.
    """
    clips = sorted(load_source(source).clips(name, dict(options), table), key=lambda clip: clip.clip)
    check(name, clips)
    write_table(output, "manifest", [clip.row() for clip in clips], source=source, options=dict(options))
    return clips


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("manifest", __doc__)
    parser.add_argument("--source", required=True, help="a module of remime.sources")
    parser.add_argument("--dataset", required=True, help="the dataset's name")
    parser.add_argument("--table", type=Path, help="a table of this project that the source reads")
    parser.add_argument("--output", type=Path, required=True, help="manifest.parquet")
    args = parser.parse_args(argv)
    clips = run(args.source, args.dataset, args.table, args.output, args.options)
    people = {clip.identity: clip.split for clip in clips}
    counts = ", ".join(f"{n} {split}" for split, n in sorted(Counter(people.values()).items()))
    logging.info("%s: %d clips of %d identities (%s)", args.dataset, len(clips), len(people), counts)


if __name__ == "__main__":
    entry(main)

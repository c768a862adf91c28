"""Divide the clips of a dataset into shards; all clips of a video share one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from remime.shards import shard_names, shard_of
from remime.sources import Clip, write_clips
from remime.stages import entry, stage_parser
from remime.tables import read_table


def run(manifest: Path, shards: int, output: Path) -> dict[str, int]:
    """Write ``{shard}/clips.tsv`` for every shard, also for empty ones, and return how many clips each has.

    A shard's file depends on its own clips only, so that a clip that is added changes a single one.

    Args:
        manifest: ``manifest.parquet``.
        shards: how many there are.
        output: the folder of all shards.
    """
    table = read_table(manifest, "manifest")
    owners = pa.array([shard_of(video.as_py(), shards) for video in table["video"]], pa.int32())
    # Sorted as a table and made clips of shard by shard: a million clips at once would take gigabytes.
    table = table.append_column("shard", owners).sort_by([("shard", "ascending"), ("clip", "ascending")])
    sizes = Counter(owners.to_pylist())
    counts, first = dict[str, int](), 0
    for index, name in enumerate(shard_names(shards)):
        rows = table.slice(first, sizes[index]).drop_columns("shard").to_pylist()
        write_clips(output / name / "clips.tsv", map(Clip.from_row, rows))
        counts[name], first = len(rows), first + len(rows)
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("split", __doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.parquet")
    parser.add_argument("--shards", type=int, required=True, help="how many shards")
    parser.add_argument("--output", type=Path, required=True, help="the folder of all shards")
    args = parser.parse_args(argv)
    counts = run(args.manifest, args.shards, args.output)
    sizes = f"{min(counts.values())} to {max(counts.values())} clips each"
    logging.info("%d clips in %d shards, %s", sum(counts.values()), len(counts), sizes)


if __name__ == "__main__":
    entry(main)

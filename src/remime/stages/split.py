"""Divide the clips of a dataset into shards; all clips of a video share one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from remime.shards import shard_name, shard_names, shard_of
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
    rows = read_table(manifest, "manifest").to_pylist()
    clips: dict[str, list[Clip]] = {name: [] for name in shard_names(shards)}
    for clip in sorted(map(Clip.from_row, rows), key=lambda clip: clip.clip):
        clips[shard_name(shard_of(clip.video, shards), shards)].append(clip)
    for name, members in clips.items():
        write_clips(output / name / "clips.tsv", members)
    return {name: len(members) for name, members in clips.items()}


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

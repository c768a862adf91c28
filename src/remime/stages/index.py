"""Gather where every latent of a dataset lies, with what is known of its frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.shards import stable_hash
from remime.stages import Dataset, dataset_argument, entry, stage_parser
from remime.tables import read_table, write_table

OPTIONS: dict[str, Any] = {"sample_clips": 5, "min_yield": 0.5}


def _check_yield(dataset: Dataset, clips: int, least: float) -> None:
    counts: Counter[str] = Counter()
    for shard in dataset.shard_names:
        counts.update(read_table(dataset.status(shard), "status", ["status"]).column("status").to_pylist())
    if counts["ok"] < least * clips:
        listed = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        raise InputError(
            f"dataset {dataset.name}",
            f"only {counts['ok']} of {clips} clips could be used ({listed})",
            f"min_yield asks for {least:.0%}; mend the clips, or lower index: min_yield",
        )


def _sampled_clips(manifest: list[dict[str, Any]], limit: int) -> set[str]:
    """At most ``limit`` clips per identity (P1, Sec. 3.3), chosen by the hash of their names."""
    by_identity: dict[str, list[str]] = {}
    for row in manifest:
        by_identity.setdefault(row["identity"], []).append(row["clip"])
    return {clip for clips in by_identity.values() for clip in sorted(clips, key=stable_hash)[:limit]}


def run(dataset: Dataset, inverter: str, output: Path, options: Mapping[str, Any]) -> int:
    """Write the index of a dataset's latents; returns the number of rows.

    Raises:
        InputError: fewer clips than ``min_yield`` could be used.
    """
    from remime.archive import LatentReader

    o = {**OPTIONS, **options}
    manifest = read_table(dataset.manifest, "manifest", ["clip", "identity", "split"]).to_pylist()
    _check_yield(dataset, len(manifest), o["min_yield"])
    known = {row["clip"]: row for row in manifest}
    chosen = _sampled_clips(manifest, o["sample_clips"])
    rows: list[dict[str, Any]] = []
    for shard in dataset.shard_names:
        measured = {r["row"]: r for r in read_table(dataset.measured(shard), "measured").to_pylist()}
        sampled = {
            r["row"] for r in read_table(dataset.selected(shard), "selected").to_pylist() if r["sampled"]
        }
        with LatentReader(dataset.latents(inverter, shard)) as latents:
            aligned_rows, errors = latents.clip_row[:], latents.error[:]
            for clip in latents.clips:
                for row in clip.rows:
                    aligned = int(aligned_rows[row])
                    frame = measured[aligned]
                    rows.append(
                        {
                            "clip": clip.id,
                            "identity": known[clip.id]["identity"],
                            "split": known[clip.id]["split"],
                            "shard": shard,
                            "row": row,
                            "aligned_row": aligned,
                            "sampled": aligned in sampled and clip.id in chosen,
                            "error": float(errors[row]),
                            **{k: frame[k] for k in ("frame", "time", "yaw", "pitch", "roll")},
                        }
                    )
    write_table(output, "latents", rows, dataset=dataset.name, inverter=inverter)
    return len(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = stage_parser("index", __doc__)
    parser.add_argument("--dataset", type=dataset_argument, required=True, metavar="FOLDER=SHARDS")
    parser.add_argument("--inverter", required=True)
    parser.add_argument("--output", type=Path, required=True)
    a = parser.parse_args(argv)
    run(a.dataset, a.inverter, a.output, a.options)


if __name__ == "__main__":
    entry(main)

"""Choose who drives whom: fixed, seeded, identity-disjoint pairs.

Everything is ranked by a hash of its name, so that the same data give the same pairs on every machine, and
added clips displace few of the pairs there were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.shards import batch_of, file_name, stable_hash
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.tables import read_table, write_table

OPTIONS: dict[str, Any] = {
    "protocol": "cross",
    "inverter": "psp",
    "split": "test",
    "pairs": 12,
    "targets": 3,
    "target_choice": "each",
    "target_frame": "random",
    "random_identities": 0,
    "min_frames": 2,
    "max_frames": 0,
    "batches": 1,
    "seed": 0,
}


@dataclass(frozen=True)
class Clip:
    """A clip that can drive or be a target.

    Args:
        dataset, clip, identity, shard: where it lies and who is seen.
        frames: aligned frames.
        kept: positions of the frames that have a latent, in order; candidates for a target frame.
    """

    dataset: str
    clip: str
    identity: str
    shard: str
    frames: int
    kept: tuple[int, ...]

    @property
    def key(self) -> str:
        """Unique over all datasets."""
        return f"{self.dataset}/{self.clip}"


def read_clips(dataset: Dataset, inverter: str, split: str) -> list[Clip]:
    """The clips of a dataset that went through inversion, in the order of their names.

    Args:
        dataset: its folder and number of shards.
        inverter: whose index is read.
        split: ``train``, ``val``, ``test`` or ``all``.
    """
    frames: dict[str, int] = {}
    for shard in dataset.shard_names:
        status = read_table(dataset.status(shard), "status", ["clip", "status", "frames"])
        frames |= {row["clip"]: row["frames"] for row in status.to_pylist() if row["status"] == "ok"}
    kept: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    columns = ["clip", "identity", "split", "shard", "frame"]
    for row in read_table(dataset.index(inverter), "latents", columns).to_pylist():
        if split in ("all", row["split"]) and row["clip"] in frames:
            kept[row["clip"], row["identity"], row["shard"]].append(row["frame"])
    return [
        Clip(dataset.name, clip, identity, shard, frames[clip], tuple(sorted(positions)))
        for (clip, identity, shard), positions in sorted(kept.items())
    ]


def _rank(items: Sequence[Any], seed: int, role: str) -> list[Any]:
    """Items that have a ``key``, in the order of their hashes."""
    return sorted(items, key=lambda item: stable_hash(item.key, salt=f"plan:{seed}:{role}:"))


def random_targets(count: int, seed: int) -> list[Clip]:
    """Identities that the generator invents; the number behind the colon is the seed of their z."""
    names = [f"random:{1000 * seed + i}" for i in range(count)]
    return [Clip("", name, name, "", 1, (0,)) for name in names]


def _targets(driving: Clip, clips: Sequence[Clip], options: Mapping[str, Any]) -> list[Clip]:
    """The targets of a driving clip: one clip of each other identity before a second one of any."""
    shared = options["target_choice"] == "shared"
    seed, role = options["seed"], "target" if shared else f"target:{driving.key}"
    others = _rank([clip for clip in clips if clip.identity != driving.identity], seed, role)
    seen: dict[str, int] = defaultdict(int)
    order: dict[str, tuple[int, int]] = {}
    for place, clip in enumerate(others):
        order[clip.key] = (seen[clip.identity], place)
        seen[clip.identity] += 1
    chosen = sorted(others, key=lambda clip: order[clip.key])[: options["targets"]]
    return chosen + random_targets(options["random_identities"], seed)


def _target_frame(target: Clip, options: Mapping[str, Any]) -> int:
    if options["target_frame"] == "first" or options["protocol"] == "self":
        return target.kept[0]
    salt = f"plan:{options['seed']}:frame:{target.key}:"
    return min(target.kept, key=lambda frame: stable_hash(str(frame), salt=salt))


def pair_name(driving: Clip, target: Clip, frame: int) -> str:
    """A name that is unique, safe in file names and no longer than 160 bytes."""
    return file_name(f"{driving.key}--{target.key.lstrip('/')}--{frame}")


def _row(driving: Clip, target: Clip, options: Mapping[str, Any]) -> dict[str, Any]:
    frame = _target_frame(target, options)
    name = pair_name(driving, target, frame)
    limit = options["max_frames"] or driving.frames
    return {
        "pair": name,
        "protocol": options["protocol"],
        "batch": batch_of(name, options["batches"]),
        "driving_dataset": driving.dataset,
        "driving_clip": driving.clip,
        "driving_identity": driving.identity,
        "driving_shard": driving.shard,
        "frames": min(driving.frames, limit),
        "target_dataset": target.dataset,
        "target_clip": target.clip,
        "target_identity": target.identity,
        "target_shard": target.shard,
        "target_frame": frame,
    }


def plan(clips: Sequence[Clip], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table ``pairs``.

    Every driving clip gets its first target before any gets its second, so that a limit on the pairs costs
    targets, not driving clips; with shared targets whole driving clips are dropped instead, because a grid of
    identities and motions needs all targets of each driving clip.

    Args:
        clips: all clips of the split; also single images, which can only be targets.
        options: ``OPTIONS`` with the values of the configuration.
    """
    able = [clip for clip in clips if clip.frames >= options["min_frames"]]
    drivers = _rank(able, options["seed"], "driving")
    if options["protocol"] == "self":
        chosen = [(clip, clip) for clip in drivers]
    else:
        targets = {clip.key: _targets(clip, clips, options) for clip in drivers}
        candidates = [
            (place, rank, clip, target)
            for rank, clip in enumerate(drivers)
            for place, target in enumerate(targets[clip.key])
        ]
        if options["target_choice"] == "each":
            candidates.sort(key=lambda item: item[:2])
        chosen = [(clip, target) for _, _, clip, target in candidates]
    return [_row(driving, target, options) for driving, target in chosen[: options["pairs"]]]


def _check(options: Mapping[str, Any]) -> None:
    allowed = {
        "protocol": ("cross", "self", "truth"),
        "split": ("train", "val", "test", "all"),
        "target_choice": ("each", "shared"),
        "target_frame": ("random", "first"),
    }
    for key, values in allowed.items():
        if options[key] not in values:
            raise InputError(f"plan: {key}", f"{options[key]!r}", f"one of {', '.join(values)}")
    for key, least in (("pairs", 1), ("batches", 1), ("targets", 0), ("min_frames", 1), ("max_frames", 0)):
        if options[key] < least:
            raise InputError(f"plan: {key}", f"{options[key]}", f"{least} or more")


def run(datasets: Sequence[Dataset], output: Path, options: Mapping[str, Any]) -> int:
    """Write the pairs of a benchmark and return how many there are.

    Raises:
        InputError: an option out of range, or not a single pair.
    """
    options = {**OPTIONS, **options}
    _check(options)
    clips = [clip for d in datasets for clip in read_clips(d, options["inverter"], options["split"])]
    rows = plan(clips, options)
    if not rows:
        identities = len({clip.identity for clip in clips})
        raise InputError(
            ", ".join(str(d.folder) for d in datasets),
            f"no {options['protocol']} pair can be made of {len(clips)} clips of {identities} identities in "
            f"split {options['split']!r} (driving clips need {options['min_frames']} frames)",
            "choose split: all, add clips, lower min_frames, or ask for random_identities",
        )
    write_table(output, "pairs", rows, options=options)
    return len(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("plan", __doc__)
    add_datasets(parser)
    parser.add_argument("--output", type=Path, required=True, help="pairs.parquet")
    args = parser.parse_args(argv)
    count = run(args.datasets, args.output, args.options)
    print(f"plan: {count} pairs")


if __name__ == "__main__":
    entry(main)

"""What was asked of each dataset and what was got: clips, hours, identities, sizes, and what is lost why."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from remime.layout import Dataset
from remime.tables import read_table

# Kinds of problems that are a clip less. Others are lines that cannot be read, or files nobody asked for.
_LOST = ("no_address", "no_file")
# The usual numbers of lines of a video; a picture belongs to the next smaller one, or to the smallest.
SIZES = (144, 240, 360, 480, 720, 1080, 1440, 2160)


class Amount(NamedTuple):
    """How much there is of something.

    Args:
        clips: how many.
        identities: different people.
        hours: of video; None where it is not known beforehand.
    """

    clips: int
    identities: int
    hours: float | None


class Inventory(NamedTuple):
    """What was asked of a dataset and what was got.

    Args:
        name: in the configuration.
        asked: all clips that its metadata or its files name, and that were not left out on purpose.
        got: those that have aligned frames.
        lost: status of a clip, or kind of problem of the metadata, → how many clips for that reason.
        problems: kind of problem of files and metadata → how many.
        lines: lines of the pictures that clips were cut from → how many clips; where ``collect`` knows them.
    """

    name: str
    asked: Amount
    got: Amount
    lost: dict[str, int]
    problems: dict[str, int]
    lines: dict[int, int]


def inventory(dataset: Dataset) -> Inventory:
    """Counts from a dataset's manifest, its problems, and what ``collect`` and ``align`` say of its clips."""
    manifest = read_table(dataset.manifest, "manifest", ["clip", "identity", "kind", "path"])
    who = dict(zip(*(manifest.column(name).to_pylist() for name in ("clip", "identity")), strict=True))
    kinds = set(manifest.column("kind").to_pylist())
    status = [
        row
        for shard in dataset.shard_names
        for row in read_table(
            dataset.status(shard), "status", ["clip", "status", "frames", "fps"]
        ).to_pylist()
    ]
    good = [row for row in status if row["status"] == "ok"]
    problems = _problems(dataset.manifest.with_suffix(".problems.tsv"))
    beforehand = {kind: problems[kind] for kind in _LOST if problems[kind]}
    lost = Counter(row["status"] for row in status if row["status"] != "ok")
    wanted = _hours(manifest.column("path").to_pylist()) if kinds == {"download"} else None
    return Inventory(
        name=dataset.name,
        asked=Amount(len(who) + sum(beforehand.values()), len(set(who.values())), wanted),
        got=Amount(
            len(good),
            len({who[row["clip"]] for row in good if row["clip"] in who}),
            sum(row["frames"] / row["fps"] for row in good if row["fps"]) / 3600,
        ),
        lost=beforehand | dict(lost.most_common()),
        problems=dict(problems.most_common()),
        lines=_sizes(dataset),
    )


def _problems(path: Path) -> Counter[str]:
    return Counter(row["kind"] for row in _rows(path))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table of a stage; none where it was not needed."""
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as handle:
            yield from csv.DictReader(handle, dialect="excel-tab")


def _hours(descriptions: Sequence[str]) -> float:
    cuts = (json.loads(text) for text in descriptions)
    return sum(cut["end"] - cut["start"] for cut in cuts) / 3600


def _sizes(dataset: Dataset) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for shard in dataset.shard_names:
        for row in _rows(dataset.tar(shard).with_suffix(".status.tsv")):
            if lines := row.get("lines"):
                counts[max((size for size in SIZES if size <= int(lines)), default=SIZES[0])] += 1
    return dict(sorted(counts.items()))


def as_csv(inventories: Sequence[Inventory]) -> str:
    """All counts as CSV with the columns dataset, what, name and value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("dataset", "what", "name", "value"))
    for each in inventories:
        for what, amount in (("asked", each.asked), ("got", each.got)):
            for name, value in amount._asdict().items():
                if value is not None:
                    writer.writerow((each.name, what, name, round(value, 4)))
        for what in ("lost", "problems", "lines"):
            for name, number in getattr(each, what).items():
                writer.writerow((each.name, what, name, number))
    return text.getvalue()

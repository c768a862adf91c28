"""Scores of all models of a benchmark, one value a pair and metric."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from remime.errors import InputError, VersionError
from remime.layout import REFERENCES
from remime.metrics.registry import METRICS
from remime.shards import shard_names
from remime.tables import concat, read_table

_TITLES = {
    "reference-answer": "the answer itself",
    "reference-crop": "the answer, in its own crop",
    "reference-driving": "the driving frames, copied",
    "reference-target": "the target, still",
}
CEILING = "inversion:"
FITTED = ", fitted"
"""Rows of the summary whose model starts with this hold what an inverter alone reaches."""


def title(model: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    """What tables, pictures and plots call a model: its name, or the title of a reference or external system.

    Args:
        model: its name in the configuration.
        models: name → entry; that of an external system has the key ``external``.
    """
    external = models.get(model, {}).get("external")
    return _TITLES.get(model, model) if external is None else f"{external} (external)"


def inversion(entry: Mapping[str, Any]) -> str:
    """How targets are inverted: the inverter, and the descent behind it; empty for other systems."""
    steps = entry.get("optimise", 0)
    return str(entry.get("inverter", "")) + (f"{FITTED} in {steps} steps" if steps else "")


def ours_first(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The same entries, those of external systems behind our models, and references last."""
    return dict(sorted(models.items(), key=lambda item: (item[0] in REFERENCES, "external" in item[1])))


@dataclass(frozen=True)
class Value:
    """One metric of one generated video.

    Args:
        benchmark, model, pair, metric, version, networks: as in the table ``scores``.
        driving, target: keys of the driving clip and of the target frame.
        value: NaN where it could not be computed.
        n: what it rests on.
        frames: of the video.
    """

    benchmark: str
    model: str
    pair: str
    driving: str
    target: str
    metric: str
    version: int
    networks: str
    value: float
    n: int
    frames: int


class Lost(NamedTuple):
    """What there is not of an external system's video.

    Args:
        model, pair: whose.
        status: other than ok where there is no usable video at all.
        detail: what is known about it.
        frames: driving frames for which there is none.
    """

    model: str
    pair: str
    status: str
    detail: str
    frames: int


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's folder and what the configuration says about it.

    Args:
        folder: ``results/benchmarks/{name}``.
        protocol: cross, self or truth.
        batches: into how many batches its pairs are divided.
        models: whose results it holds; empty: those of all models.
    """

    folder: Path
    protocol: str
    batches: int
    models: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self.folder.name

    def pairs(self) -> dict[str, dict[str, Any]]:
        """The rows of its pairs by name."""
        rows = read_table(self.folder / "pairs.parquet", "pairs").to_pylist()
        return {row["pair"]: row for row in rows}

    def answers(self, pair: Mapping[str, Any]) -> Path:
        """The true answers of a pair's batch, in protocols of the kind ``truth``."""
        return self.folder / "answers" / f"{pair['batch']}.h5"

    def video(self, model: str, pair: Mapping[str, Any], suffix: str = ".mp4") -> Path:
        """What a model made of a pair."""
        return self.folder / model / "videos" / pair["batch"] / f"{pair['pair']}{suffix}"


def benchmarks(folders: Iterable[Path], protocols: Mapping[str, Mapping[str, Any]]) -> list[Benchmark]:
    """The benchmarks of some folders.

    Args:
        folders: ``results/benchmarks/{name}``.
        protocols: name → ``protocol`` (cross, self or truth), ``batches`` and, if not all, ``models``.
    """
    found = []
    for folder in folders:
        entry = protocols.get(folder.name)
        if entry is None:
            raise InputError(folder, "is not among the protocols", f"known: {', '.join(protocols)}")
        models = tuple(entry.get("models") or ())
        kind, batches = str(entry.get("protocol", "cross")), int(entry.get("batches", 1))
        found.append(Benchmark(folder, kind, batches, models))
    return found


def read_values(benchmark: Benchmark, models: Iterable[str]) -> list[Value]:
    """The clip values of those models that take part, in the order of models, pairs and metrics.

    Raises:
        InputError: scores are missing.
        VersionError: scores of two definitions of a metric, or of two networks, stand side by side.
    """
    pairs = benchmark.pairs()
    values: list[Value] = []
    for model in models if not benchmark.models else [m for m in models if m in benchmark.models]:
        paths = [
            benchmark.folder / model / "scores" / f"{name}.parquet" for name in shard_names(benchmark.batches)
        ]
        table = concat([read_table(path, "scores") for path in paths], "scores")
        rows = table.filter(pc.is_null(table["frame"])).to_pylist()
        frames = {row["pair"]: row["n"] for row in rows if row["metric"] == "coverage"}
        values += [
            _value(benchmark.name, model, row, pairs[row["pair"]], frames)
            for row in rows
            if row["pair"] in pairs
        ]
    _check(benchmark, values)
    return sorted(values, key=lambda v: (v.pair, list(METRICS).index(v.metric)))


def read_lost(benchmark: Benchmark, models: Mapping[str, Mapping[str, Any]]) -> list[Lost]:
    """What is missing of the videos of those external systems that take part."""
    taking = [
        m for m in models if "external" in models[m] and (not benchmark.models or m in benchmark.models)
    ]
    found = []
    for model in taking:
        for name, pair in benchmark.pairs().items():
            path = benchmark.video(model, pair, ".json")
            try:
                note = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InputError(
                    path, f"cannot be read ({error})", "delete its folder and run again"
                ) from None
            lost = note["status"] != "ok"
            if lost or note["missing"]:
                frames = pair["frames"] if lost else len(note["missing"])
                found.append(Lost(model, name, note["status"], note["detail"], frames))
    return found


def _value(
    benchmark: str, model: str, row: Mapping[str, Any], pair: Mapping[str, Any], frames: Mapping[str, int]
) -> Value:
    number = row["value"]
    return Value(
        benchmark=benchmark,
        model=model,
        pair=row["pair"],
        driving=f"{pair['driving_dataset']}/{pair['driving_clip']}",
        target=f"{pair['target_dataset']}/{pair['target_clip']}/{pair['target_frame']}",
        metric=row["metric"],
        version=row["version"],
        networks=row["networks"],
        value=float("nan") if number is None else number,
        n=row["n"],
        frames=frames.get(row["pair"], 0),
    )


def _check(benchmark: Benchmark, values: Sequence[Value]) -> None:
    found: dict[str, set[tuple[int, str]]] = {}
    for v in values:
        found.setdefault(v.metric, set()).add((v.version, v.networks))
    mixed = [f"{name} ({sorted(kinds)})" for name, kinds in found.items() if len(kinds) > 1]
    if mixed:
        raise VersionError(
            f"{benchmark.folder}: scores of several definitions: {', '.join(mixed)}\n  score again"
        )

"""Measure the generated videos of one model and one batch of pairs, per frame and per clip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from remime import video
from remime.archive import AlignedReader, options_digest, parts_directory
from remime.devices import compute_device
from remime.errors import InputError
from remime.files import atomic
from remime.metrics.registry import METRICS
from remime.metrics.scorer import (
    BATCH,
    CROSS,
    SELF,
    Measures,
    Networks,
    Scores,
    load_networks,
    score_videos,
)
from remime.progress import Progress
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.tables import read_table, write_table
from remime.versions import STAGES

OPTIONS: dict[str, Any] = {
    "model": "",
    "inverter": "",
    "metrics": [],
    "pose": "hopenet-lite",
    "identity": "sface",
    "lpips": "alex",
    "batch": BATCH,
}


def wanted(protocol: str, names: Sequence[str]) -> list[str]:
    """The metrics to compute: those named, or all, as far as they fit the protocol.

    In cross-reenactment the driving frame is not the right answer, so image metrics are left out.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise InputError("score: metrics", f"unknown {', '.join(unknown)}", f"known: {', '.join(METRICS)}")
    fitting = SELF if protocol == "self" else CROSS
    # Coverage is part of every row of the report.
    return [name for name in fitting if not names or name in names or name == "coverage"]


class _Driving:
    """Frames of driving clips, and what was already measured on them."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self._readers: dict[Path, AlignedReader] = {}
        self._measures: dict[tuple[str, str, int], Measures] = {}

    def frames(self, pair: Mapping[str, Any]) -> Iterator[NDArray[np.uint8]]:
        """The aligned driving frames of a pair, decoded one by one."""
        name = pair["driving_dataset"]
        if name not in self._datasets:
            raise InputError("--datasets", f"the pairs use {name!r}, which is not given", "name its folder")
        path = self._datasets[name].aligned(pair["driving_shard"])
        reader = self._readers.setdefault(path, AlignedReader(path))
        entry_ = reader.by_id.get(pair["driving_clip"])
        if entry_ is None or entry_.count < pair["frames"]:
            found = "no such clip" if entry_ is None else f"{entry_.count} frames of it"
            raise InputError(
                path, f"{pair['frames']} frames of {pair['driving_clip']} are needed, there is {found}",
                "run plan again",
            )  # fmt: skip
        return (reader.frame(row) for row in entry_.rows[: pair["frames"]])

    def measures(self, pair: Mapping[str, Any]) -> Measures | None:
        return self._measures.get(self._key(pair))

    def keep(self, pair: Mapping[str, Any], measures: Measures) -> None:
        self._measures[self._key(pair)] = measures

    @staticmethod
    def _key(pair: Mapping[str, Any]) -> tuple[str, str, int]:
        return pair["driving_dataset"], pair["driving_clip"], pair["frames"]


def _still(path: Path) -> NDArray[np.uint8]:
    return next(iter(video.read(path))).image


class _Parts:
    """Finished pairs of a batch that is under way."""

    def __init__(self, output: Path, key: Mapping[str, Any]) -> None:
        self.directory = parts_directory(output)
        self._key = key

    def _paths(self, pair: Mapping[str, Any], files: Sequence[Path]) -> tuple[Path, Path]:
        stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
        name = options_digest({**self._key, "pair": dict(pair), "files": stamps})
        return self.directory / f"{name}.parquet", self.directory / f"{name}.npz"

    def load(
        self, pair: Mapping[str, Any], files: Sequence[Path]
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray]] | None:
        table, arrays = self._paths(pair, files)
        try:
            # The table is written last: where it is whole, so are the arrays.
            rows = pq.read_table(table).to_pylist()
            with np.load(arrays) as stored:
                return rows, dict(stored)
        except (OSError, ValueError, EOFError):
            return None

    def save(
        self,
        pair: Mapping[str, Any],
        files: Sequence[Path],
        rows: list[dict[str, Any]],
        features: Mapping[str, NDArray],
    ) -> None:
        table, arrays = self._paths(pair, files)
        _save_arrays(arrays, features)
        write_table(table, "scores", rows)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def _save_arrays(path: Path, arrays: Mapping[str, NDArray]) -> None:
    with atomic(path) as temporary:
        np.savez_compressed(temporary, **dict(arrays))  # type: ignore[arg-type]


def _features(scores: Scores) -> dict[str, NDArray]:
    return {
        f"{side}_{name}": getattr(measures, name).astype(np.float32)
        for side, measures in (("driving", scores.driving), ("generated", scores.generated))
        for name in ("pose", "landmarks", "embeddings")
    }


def pair_files(folder: Path, pair: str) -> dict[str, Path]:
    """What ``reenact`` wrote for a pair."""
    return {
        "video": folder / f"{pair}.mp4",
        "target": folder / f"{pair}.target.png",
        "inversion": folder / f"{pair}.inversion.png",
    }


class _Job:
    """Scores the pairs of one batch; networks are loaded when the first pair needs them."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        videos: Path,
        output: Path,
        options: Mapping[str, Any],
        networks: Networks | None,
    ) -> None:
        self._driving, self._videos, self._options = _Driving(datasets), videos, options
        self._networks: dict[str, Networks] = {}
        self._given = networks
        self._metrics = {name: wanted(name, options["metrics"]) for name in ("cross", "self")}
        definitions = {name: metric.version for name, metric in METRICS.items()}
        key = {"options": dict(options), "metrics": definitions, "version": STAGES["score"]}
        self.parts = _Parts(output, key)

    def score(self, pair: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, NDArray]]:
        """The rows and features of a pair, from its part where there is one."""
        files = pair_files(self._videos, pair["pair"])
        for name in ("video", "target"):
            if not files[name].exists():
                raise InputError(files[name], "does not exist", "run reenact for this model and batch")
        part = self.parts.load(pair, list(files.values()))
        if part is None:
            scores = self._measure(pair, files)
            if scores.missing:
                print(f"{files['video']}: {scores.missing} of {pair['frames']} frames are missing")
            part = scores.rows, _features(scores)
            self.parts.save(pair, list(files.values()), *part)
        return part

    def _measure(self, pair: Mapping[str, Any], files: Mapping[str, Path]) -> Scores:
        protocol = pair["protocol"]
        known = self._driving.measures(pair)
        blind = known is not None and protocol == "cross"
        frames = iter([None] * pair["frames"]) if blind else self._driving.frames(pair)
        inversion = _still(files["inversion"]) if files["inversion"].exists() else None
        with closing(video.read(files["video"])) as stream:
            scores = score_videos(
                frames,
                (frame.image for frame in stream),
                _still(files["target"]),
                inversion,
                networks=self._load(protocol),
                metrics=self._metrics[protocol],
                driving_measures=known,
                batch=self._options["batch"],
            )
        self._driving.keep(pair, scores.driving)
        return scores

    def _load(self, protocol: str) -> Networks:
        if self._given is not None:
            return self._given
        if protocol not in self._networks:
            chosen = {key: self._options[key] for key in ("pose", "identity", "lpips")}
            self._networks[protocol] = load_networks(
                self._metrics[protocol], **chosen, device=compute_device()
            )
        return self._networks[protocol]


def run(
    pairs: Path,
    batch: str,
    datasets: Sequence[Dataset],
    videos: Path,
    output: Path,
    features: Path,
    options: Mapping[str, Any],
    networks: Networks | None = None,
) -> int:
    """Score every pair of a batch; finished pairs survive a kill. Returns the number of rows.

    Args:
        pairs: the table of pairs.
        batch: which of its batches.
        datasets: where driving clips lie.
        videos: the folder that ``reenact`` wrote for this model and batch.
        output: the table of scores.
        features: what the networks saw, for metrics to come: ``{pair}/{side}_{pose|landmarks|embeddings}``.
        options: ``OPTIONS`` with the values of the configuration.
        networks: instead of those that the options name.

    Raises:
        InputError: a video is missing or cannot be read, or the pairs do not fit the datasets.
    """
    options = {**OPTIONS, **options}
    todo = [pair for pair in read_table(pairs, "pairs").to_pylist() if pair["batch"] == batch]
    job = _Job(datasets, videos, output, options, networks)
    rows: list[dict[str, Any]] = []
    seen: dict[str, NDArray] = {}
    with Progress(len(todo), f"score {options['model']} {batch}", "pairs") as progress:
        for pair in todo:
            values, arrays = job.score(pair)
            common = {"model": options["model"], "benchmark": pairs.parent.name, "pair": pair["pair"]}
            rows += [{**row, **common} for row in values]
            seen |= {f"{pair['pair']}/{name}": array for name, array in arrays.items()}
            progress.update()
    _save_arrays(features, seen)
    write_table(output, "scores", rows, options=options)
    job.parts.remove()
    return len(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("score", __doc__)
    add_datasets(parser)
    for name, text in {
        "pairs": "the benchmark's pairs.parquet",
        "videos": "the batch's folder of generated videos",
        "output": "the batch's scores",
        "features": "the batch's measurements, .npz",
    }.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--batch", required=True, help="name of the batch")
    args = parser.parse_args(argv)
    run(args.pairs, args.batch, args.datasets, args.videos, args.output, args.features, args.options)


if __name__ == "__main__":
    entry(main)

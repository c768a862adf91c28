"""Measure the generated videos of one model and one batch of pairs, per frame and per clip."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from remime import video
from remime.archive import AnswerReader, options_digest, parts_directory
from remime.devices import compute_device
from remime.errors import InputError
from remime.faces.alignment import quad, smooth, warp
from remime.files import atomic
from remime.layout import REFERENCES
from remime.metrics.answers import TrueFrame
from remime.metrics.networks import Networks, load_networks
from remime.metrics.registry import METRICS
from remime.metrics.scorer import ANSWERED, BATCH, CROSS, SELF, Measures, Scores, lost_rows, score_videos
from remime.metrics.truth import face_mask
from remime.pairs import Clips
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

    In cross-reenactment the driving frame is not the right answer, so metrics that compare with it as a
    picture are left out; where there is a true answer, those that compare with it come in.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise InputError("score: metrics", f"unknown {', '.join(unknown)}", f"known: {', '.join(METRICS)}")
    fitting = {"self": SELF, "truth": ANSWERED}.get(protocol, CROSS)
    # Coverage is part of every row of the report.
    return [name for name in fitting if not names or name in names or name == "coverage"]


class _Measured:
    """What was already measured on driving clips."""

    def __init__(self) -> None:
        self._measures: dict[tuple[str, str, int], Measures] = {}

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
    """What ``reenact`` or ``external`` wrote for a pair; an external system has no inversion."""
    return {
        "video": folder / f"{pair}.mp4",
        "target": folder / f"{pair}.target.png",
        "inversion": folder / f"{pair}.inversion.png",
        "note": folder / f"{pair}.json",
    }


def _note(path: Path) -> dict[str, Any]:
    """What the stage that made a video says about it; nothing where it says nothing."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({error})", "delete its folder and run again") from None


def _without(frames: Iterator[video.Frame], missing: Collection[int]) -> Iterator[NDArray[np.uint8] | None]:
    """The frames' images; None where a frame only fills the place of one that is missing."""
    return (None if frame.index in missing else frame.image for frame in frames)


class _Answers:
    """The true answers of a batch.

    Args:
        path: what the stage ``answer`` wrote.
    """

    def __init__(self, path: Path) -> None:
        self._reader = AnswerReader(path)

    def _rows(self, pair: Mapping[str, Any]) -> range:
        known = self._reader.by_id.get(pair["pair"])
        if known is None or known.count != pair["frames"]:
            raise InputError(self._reader.path, f"has no answer to {pair['pair']!r}", "run answer again")
        return known.rows

    def images(self, pair: Mapping[str, Any]) -> Iterator[NDArray[np.uint8]]:
        """The answer to each driving frame of a pair."""
        return (self._reader.frame(row) for row in self._rows(pair))

    def recropped(self, pair: Mapping[str, Any]) -> Iterator[NDArray[np.uint8]]:
        """The same as FFHQ's alignment of the target's own face would have it, not the driving person's."""
        rows, fps = self._rows(pair), self._reader.by_id[pair["pair"]].fps
        quads = smooth(quad(self._reader.landmarks[rows.start : rows.stop]), fps)
        for row, corners in zip(rows, quads, strict=True):
            image = self._reader.frame(row)
            yield warp(image, corners, image.shape[0])[0]

    def frames(self, pair: Mapping[str, Any]) -> Iterator[TrueFrame]:
        """The answer to each driving frame, with what is known of it."""
        for row in self._rows(pair):
            labels = self._reader.label_map(row)
            yield TrueFrame(
                self._reader.frame(row),
                face_mask(labels, self._reader.labels),
                self._reader.landmarks[row],
                self._reader.pose[row],
                # The network knows no tongue, which comes last.
                self._reader.coefficients[row][:-1],
            )


class _Job:
    """Scores the pairs of one batch; networks are loaded when the first pair needs them."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        videos: Path | None,
        answers: Path | None,
        output: Path,
        options: Mapping[str, Any],
        networks: Networks | None,
    ) -> None:
        self._clips, self._measured = Clips(datasets), _Measured()
        self._videos, self._options = videos, options
        self._answers_file = answers
        self._answers = _Answers(answers) if answers is not None else None
        self._networks: dict[str, Networks] = {}
        self._given = networks
        self._metrics = {name: wanted(name, options["metrics"]) for name in ("cross", "self", "truth")}
        definitions = {name: metric.version for name, metric in METRICS.items()}
        key = {"options": dict(options), "metrics": definitions, "version": STAGES["score"]}
        self.parts = _Parts(output, key)

    def score(self, pair: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, NDArray]]:
        """The rows and features of a pair, from its part where there is one."""
        if self._options["model"] in REFERENCES:
            return self._kept(pair, [], ())
        if self._videos is None:
            raise InputError("--videos", f"{self._options['model']!r} is no reference", "name its videos")
        files = pair_files(self._videos, pair["pair"])
        note = _note(files["note"])
        if note.get("status", "ok") != "ok":
            print(f"{pair['pair']}: {note['status']}: {note.get('detail', '')}")
            return self._lost(pair), {}
        for name in ("video", "target"):
            if not files[name].exists():
                raise InputError(files[name], "does not exist", "run reenact for this model and batch")
        return self._kept(pair, list(files.values()), note.get("missing", ()))

    def _kept(
        self, pair: Mapping[str, Any], files: Sequence[Path], missing: Sequence[int]
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray]]:
        known = [*files, *([self._answers_file] if self._answers_file else [])]
        part = self.parts.load(pair, known)
        if part is None:
            scores = self._measure(pair, missing)
            if scores.missing:
                print(f"{pair['pair']}: {scores.missing} of {pair['frames']} frames are missing")
            part = scores.rows, _features(scores)
            self.parts.save(pair, known, *part)
        return part

    def _lost(self, pair: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a pair without a video: it covers nothing, and nothing else is known of it."""
        names = self._load(pair["protocol"]).names
        return lost_rows(self._metrics[pair["protocol"]], names, pair["frames"])

    def _measure(self, pair: Mapping[str, Any], missing: Sequence[int]) -> Scores:
        if self._videos is None:
            return self._score(pair, self._reference(pair), self._clips.target(pair), None)
        files = pair_files(self._videos, pair["pair"])
        inversion = _still(files["inversion"]) if files["inversion"].exists() else None
        with closing(video.read(files["video"])) as stream:
            frames = _without(stream, frozenset(missing))
            return self._score(pair, frames, _still(files["target"]), inversion)

    def _reference(self, pair: Mapping[str, Any]) -> Iterable[NDArray[np.uint8]]:
        """What stands in for a model's frames, see ``remime.layout.REFERENCES``."""
        match self._options["model"]:
            case "reference-answer" if self._answers is not None:
                return self._answers.images(pair)
            case "reference-crop" if self._answers is not None:
                return self._answers.recropped(pair)
            case "reference-driving":
                return self._clips.driving(pair).frames()
            case "reference-target":
                return repeat(self._clips.target(pair), pair["frames"])
        raise InputError("--answers", "is missing", "name what the stage answer wrote")

    def _score(
        self,
        pair: Mapping[str, Any],
        frames: Iterable[NDArray[np.uint8] | None],
        target: NDArray[np.uint8],
        inversion: NDArray[np.uint8] | None,
    ) -> Scores:
        protocol = pair["protocol"]
        if protocol == "truth" and self._answers is None:
            raise InputError("--answers", "is missing", "name what the stage answer wrote")
        known = self._measured.measures(pair)
        blind = known is not None and protocol != "self"
        scores = score_videos(
            iter([None] * pair["frames"]) if blind else self._clips.driving(pair).frames(),
            frames,
            target,
            inversion,
            networks=self._load(protocol),
            metrics=self._metrics[protocol],
            driving_measures=known,
            answers=self._answers.frames(pair) if self._answers is not None else None,
            batch=self._options["batch"],
        )
        self._measured.keep(pair, scores.driving)
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
    videos: Path | None,
    output: Path,
    features: Path,
    options: Mapping[str, Any],
    networks: Networks | None = None,
    answers: Path | None = None,
) -> int:
    """Score every pair of a batch; finished pairs survive a kill. Returns the number of rows.

    Args:
        pairs: the table of pairs.
        batch: which of its batches.
        datasets: where driving clips lie.
        videos: the folder that ``reenact`` or ``external`` wrote for this model and batch; None for
            references.
        output: the table of scores.
        features: what the networks saw, for metrics to come: ``{pair}/{side}_{pose|landmarks|embeddings}``.
        options: ``OPTIONS`` with the values of the configuration.
        networks: instead of those that the options name.
        answers: the true answers of this batch; a protocol of the kind ``truth`` needs them.

    Raises:
        InputError: a video is missing or cannot be read, or the pairs do not fit the datasets.
    """
    options = {**OPTIONS, **options}
    todo = [pair for pair in read_table(pairs, "pairs").to_pylist() if pair["batch"] == batch]
    job = _Job(datasets, videos, answers, output, options, networks)
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
        "output": "the batch's scores",
        "features": "the batch's measurements, .npz",
    }.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--videos", type=Path, help="the batch's folder of generated videos")
    parser.add_argument("--answers", type=Path, help="the batch's true answers")
    parser.add_argument("--batch", required=True, help="name of the batch")
    args = parser.parse_args(argv)
    run(
        args.pairs,
        args.batch,
        args.datasets,
        args.videos,
        args.output,
        args.features,
        args.options,
        answers=args.answers,
    )


if __name__ == "__main__":
    entry(main)

"""Fit another system's videos of a batch of pairs to the driving frames, as ``reenact`` leaves its own.

A video has a frame for each driving frame afterwards: it is matched by position where it has as many frames
as drive, else by time; its faces are cropped as ours are, and scaled to the size of our videos. What is not
there is counted and never fails the job: a frame without its face stays black and is named in ``missing``, a
pair without a usable video has a status other than ok and no video.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from remime import video
from remime.archive import options_digest
from remime.errors import InputError
from remime.faces.front import AlignOptions
from remime.faces.stream import Faces, nearest
from remime.files import atomic, write_text
from remime.layout import file_stamp, rendered
from remime.metrics.image import resize
from remime.pairs import Clips, Pair
from remime.progress import Progress
from remime.runtime import keep_opencv_to_one_thread
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.tables import read_table
from remime.versions import STAGES, __version__

OPTIONS: dict[str, Any] = {
    "external": "",
    "title": "",
    "align": True,
    "alignment": {},
    "resolution": 256,
    "generator": "mobile-ffhq",
}
Picture = NDArray[np.uint8]
# The videos are scored; a second lossy encoding must not be what is measured.
_CRF = 10


@dataclass(frozen=True)
class Outcome:
    """What became of a pair's video.

    Args:
        status: ok, missing (there is no file), unreadable, no_face, or not_square (where nothing is aligned).
        detail: what there is to say about it.
        missing: positions of driving frames for which there is no frame, or none with a face.
        matched: how its frames were matched with the driving frames, ``position`` or ``time``.
        source: size, rate and number of frames of the file.
    """

    status: str
    detail: str = ""
    missing: tuple[int, ...] = ()
    matched: str = ""
    source: Mapping[str, Any] | None = None


def _matched(faces: Faces, count: int, fps: float) -> tuple[str, Iterator[Picture | None]]:
    """How frames are matched, and one for each driving frame, as far as the video goes."""
    if faces.info.frames == count:
        return "position", (moment.image for moment in faces)
    times = (i / fps for i in range(count))
    return "time", nearest(faces, times, 1 / faces.info.fps)


class _Job:
    def __init__(self, state: Path, clips: Clips, options: Mapping[str, Any]) -> None:
        self._state, self._clips, self._options = state, clips, options
        self._align = AlignOptions(size=options["resolution"], policy="largest", **options["alignment"])

    def make(self, pair: Pair, file: Path | None) -> Outcome:
        """Write a pair's target and, if it is usable, its video; the last file written is the JSON."""
        name = pair["pair"]
        with atomic(self._state / f"{name}.target.png") as temporary:
            Image.fromarray(self._clips.target(pair)).save(temporary)
        outcome = self._fit(pair, file) if file is not None else Outcome("missing", f"no {name}.mp4")
        if outcome.status != "ok":
            # A video of an earlier attempt must not stand beside this status.
            (self._state / f"{name}.mp4").unlink(missing_ok=True)
        write_text(self._state / f"{name}.json", json.dumps(self._note(pair, file, outcome), indent=1))
        return outcome

    def _note(self, pair: Pair, file: Path | None, outcome: Outcome) -> dict[str, Any]:
        keys = ("pair", "driving_clip", "target_clip", "target_frame", "frames")
        own = {"remime": __version__, "external": self._options["title"] or self._options["external"]}
        name = file.name if file is not None else ""
        return {**own, "file": name, **asdict(outcome), **{key: pair[key] for key in keys}}

    def _fit(self, pair: Pair, file: Path) -> Outcome:
        fps = self._clips.driving(pair).fps
        try:
            info = video.probe(file)
            if not self._options["align"] and info.width != info.height:
                size = f"{info.width}×{info.height} pixels"
                return Outcome("not_square", f"{size}; set align: true, or render the square crop")
            with closing(Faces(file, not self._options["align"], self._align)) as faces:
                return self._write(pair, file, faces, fps)
        except (InputError, cv2.error) as error:
            return Outcome("unreadable", " ".join(str(error).split()))

    def _write(self, pair: Pair, file: Path, faces: Faces, fps: float) -> Outcome:
        size = self._options["resolution"]
        how, frames = _matched(faces, pair["frames"], fps)
        note = {"remime": __version__, "external": self._options["external"], "file": file.name}
        missing = []
        path = self._state / f"{pair['pair']}.mp4"
        with video.Writer(
            path, fps, (size, size), metadata={**note, "pair": pair["pair"]}, crf=_CRF
        ) as writer:
            for i, image in enumerate(_padded(frames, pair["frames"])):
                if image is None:
                    missing.append(i)
                writer.write(np.zeros((size, size, 3), np.uint8) if image is None else resize(image, size))
        info = faces.info
        source = {"width": info.width, "height": info.height, "fps": info.fps, "frames": info.frames}
        found = len(missing) < pair["frames"]
        detail = [f"{len(missing)} of {pair['frames']} frames are missing"] if missing else []
        detail += [f"{faces.failed} frames could not be decoded"] if faces.failed else []
        status = "ok" if found else "no_face"
        return Outcome(status, "; ".join(detail), tuple(missing), how, source)


def _padded(frames: Iterator[Picture | None], count: int) -> Iterator[Picture | None]:
    """Exactly so many frames."""
    given = 0
    for image in islice(frames, count):
        given += 1
        yield image
    yield from [None] * (count - given)


def _stamp(file: Path | None) -> str:
    try:
        return "" if file is None else file_stamp(file.stat())
    except OSError:
        return ""


def run(
    pairs: Path,
    batch: str,
    datasets: Sequence[Dataset],
    folder: Path,
    output: Path,
    state: Path,
    options: Mapping[str, Any],
) -> dict[str, Outcome]:
    """Write the videos of a batch and return what became of each pair.

    Args:
        pairs: the table of pairs; its folder's name is the protocol's.
        batch: which of its batches.
        datasets: where the clips lie.
        folder: the rendered videos, ``{pair}.mp4`` or ``{protocol}/{pair}.mp4``.
        output: the folder to write: a pair's video, its target, and what became of it as JSON.
        state: finished pairs of a killed job.
        options: ``OPTIONS`` with the values of the configuration.

    Raises:
        InputError: the pairs do not fit the datasets.
        WeightsError: a network is missing.
    """
    options = {**OPTIONS, **options}
    todo = [row for row in read_table(pairs, "pairs").to_pylist() if row["batch"] == batch]
    files = rendered(folder, pairs.parent.name)
    key = [(row, _stamp(files.get(row["pair"]))) for row in todo]
    work = state / options_digest({"options": options, "pairs": key, "version": STAGES["external"]})
    job = _Job(work, Clips(datasets, options["generator"]), options)
    outcomes: dict[str, Outcome] = {}
    with Progress(len(todo), f"external {options['external']} {batch}", "pairs") as progress:
        for row in todo:
            outcomes[row["pair"]] = _finished(work, row["pair"]) or job.make(row, files.get(row["pair"]))
            progress.update()
    work.mkdir(parents=True, exist_ok=True)
    if output.exists():
        shutil.rmtree(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(work, output)
    shutil.rmtree(state, ignore_errors=True)
    return outcomes


def _finished(work: Path, pair: str) -> Outcome | None:
    path = work / f"{pair}.json"
    if not path.exists():
        return None
    note = json.loads(path.read_text(encoding="utf-8"))
    return Outcome(**{name: note[name] for name in Outcome.__dataclass_fields__})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("external", __doc__)
    add_datasets(parser)
    for name, text in {
        "pairs": "the benchmark's pairs.parquet",
        "folder": "the rendered videos",
        "output": "the batch's folder of videos",
        "state": "finished pairs of a killed job",
    }.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--batch", required=True, help="name of the batch")
    a = parser.parse_args(argv)
    keep_opencv_to_one_thread()
    outcomes = run(a.pairs, a.batch, a.datasets, a.folder, a.output, a.state, a.options)
    for pair, outcome in outcomes.items():
        if outcome.detail:
            print(f"{pair}: {outcome.status}: {outcome.detail}")
    counts = Counter(outcome.status for outcome in outcomes.values())
    print(f"external: {', '.join(f'{n} {name}' for name, n in counts.most_common()) or 'no pairs'}")


if __name__ == "__main__":
    entry(main)

"""Put videos side by side, and draw P1's Figure 3 and Figure 4 from the generated videos of a benchmark."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from remime import video
from remime.archive import AnswerReader
from remime.errors import InputError
from remime.files import write_text
from remime.pairs import Clips, Driving, Pair
from remime.progress import track
from remime.reporting import pictures
from remime.reporting.folders import atomic_folder
from remime.reporting.results import Benchmark, ours_first, title
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.tables import read_table
from remime.versions import __version__

OPTIONS: dict[str, Any] = {"models": {}, "videos": 4, "identities": 4, "motions": 4, "resolution": 256}

ANSWER = "true answer"
_COLUMNS = 4


class _Source:
    """Driving frames, target frames and generated frames of a benchmark's pairs.

    Args:
        benchmark: whose they are.
        datasets: where driving clips lie.
        models: name → entry; of an external system videos may be missing.
    """

    def __init__(
        self, benchmark: Benchmark, datasets: Sequence[Dataset], models: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.benchmark = benchmark
        self._clips, self._models = Clips(datasets), models
        self._answers: dict[Path, AnswerReader] = {}

    def driving(self, pair: Pair) -> Driving:
        """What drives: a shard, its rows, its fps."""
        return self._clips.driving(pair)

    def label(self, model: str) -> str:
        """What pictures call a model."""
        return title(model, self._models)

    def answers(self, pair: Pair) -> list[Callable[[], NDArray[np.uint8]]]:
        """What reads the true answer to each driving frame; nothing where the protocol has none."""
        if pair["protocol"] != "truth":
            return []
        path = self.benchmark.answers(pair)
        reader = self._answers.get(path) or self._answers.setdefault(path, AnswerReader(path))
        return [partial(reader.frame, row) for row in reader.by_id[pair["pair"]].rows]

    def target(self, model: str, pair: Pair) -> NDArray[np.uint8]:
        path = self.benchmark.video(model, pair, ".target.png")
        return next(iter(video.read(path))).image

    def generated(self, model: str, pair: Pair) -> Generator[video.Frame]:
        """The frames of a generated video; none where an external system has no video of this pair."""
        path = self.benchmark.video(model, pair)
        if "external" in self._models[model] and not path.exists():
            return
        with closing(video.read(path)) as stream:
            yield from stream

    def generated_frames(
        self, model: str, pair: Pair, wanted: Sequence[int]
    ) -> list[NDArray[np.uint8] | None]:
        """Some frames of a generated video; None behind its end."""
        found: dict[int, NDArray[np.uint8]] = {}
        for frame in islice(self.generated(model, pair), max(wanted) + 1):
            if frame.index in wanted:
                found[frame.index] = frame.image
        return [found.get(index) for index in wanted]


def varied(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Pairs in which driving clips and targets repeat as late as possible."""
    left = list(pairs)
    chosen: list[Pair] = []
    used: Counter[str] = Counter()
    while left and len(chosen) < count:
        best = min(left, key=lambda p: (used["d" + p["driving_clip"]], used["t" + p["target_clip"]]))
        left.remove(best)
        used.update(("d" + best["driving_clip"], "t" + best["target_clip"]))
        chosen.append(best)
    return chosen


class Grid(NamedTuple):
    """Pairs that make a full grid: every target with every driving clip."""

    targets: list[str]
    drivers: list[str]
    cells: dict[tuple[str, str], Pair]


def full_grid(pairs: Sequence[Pair], identities: int, motions: int) -> Grid | None:
    """The largest grid that a greedy search finds; None without pairs.

    Args:
        pairs: of one benchmark.
        identities: most targets.
        motions: most driving clips that count; one clip can give several motions.
    """
    cells = {(_driver(p), _target(p)): p for p in reversed(pairs)}
    drivers = list(dict.fromkeys(_driver(p) for p in pairs))
    left = list(dict.fromkeys(_target(p) for p in pairs))
    chosen: list[str] = []
    best: tuple[int, Grid] | None = None
    while left and len(chosen) < identities:
        having = {t: [d for d in drivers if (d, t) in cells] for t in left}
        target = max(left, key=lambda t: len(having[t]))
        drivers = having[target]
        if not drivers:
            break
        left.remove(target)
        chosen.append(target)
        size = len(chosen) * min(len(drivers), motions)
        if best is None or size >= best[0]:
            best = size, Grid(list(chosen), list(drivers), cells)
    return best[1] if best else None


def _driver(pair: Pair) -> str:
    return f"{pair['driving_dataset']}/{pair['driving_clip']}"


def _target(pair: Pair) -> str:
    return f"{pair['target_dataset']}/{pair['target_clip']}/{pair['target_frame']}"


def _motions(source: _Source, grid: Grid, count: int) -> list[tuple[str, int]]:
    """Driving clip and frame of each row of the grid."""
    drivers = grid.drivers[:count]
    rows = []
    for place, driver in enumerate(drivers):
        share = count // len(drivers) + (place < count % len(drivers))
        reader, frames, _ = source.driving(grid.cells[driver, grid.targets[0]])
        points = reader.landmarks[frames.start : frames.stop]
        rows += [(driver, frame) for frame in pictures.distinct(points, share)]
    return rows


def figure3(source: _Source, grid: Grid, model: str, motions: int, size: int) -> NDArray[np.uint8]:
    """P1's Figure 3: targets in the top row, driving frames in the left column, results between them."""
    rows = _motions(source, grid, motions)
    wanted: dict[str, list[int]] = {}
    for driver, frame in rows:
        wanted.setdefault(driver, []).append(frame)
    results: dict[tuple[str, int, str], NDArray[np.uint8] | None] = {}
    for driver, frames in wanted.items():
        for target in grid.targets:
            images = source.generated_frames(model, grid.cells[driver, target], frames)
            results |= {(driver, f, target): image for f, image in zip(frames, images, strict=True)}
    tiles = [pictures.blank(size)]
    tiles += [pictures.tile(source.target(model, grid.cells[rows[0][0], t]), size) for t in grid.targets]
    for driver, frame in rows:
        reader, span, _ = source.driving(grid.cells[driver, grid.targets[0]])
        tiles.append(pictures.tile(reader.frame(span[frame]), size))
        tiles += [pictures.tile(results[driver, frame, target], size) for target in grid.targets]
    return pictures.sheet(tiles, len(grid.targets) + 1)


def figure4(source: _Source, pairs: Sequence[Pair], models: Sequence[str], size: int) -> NDArray[np.uint8]:
    """P1's Figure 4: a column a pair; driving frame, target, then the result of each model."""
    columns = []
    for pair in pairs:
        reader, rows, _ = source.driving(pair)
        # The frame farthest from the clip's mean shows most of what a method can do.
        frame = pictures.distinct(reader.landmarks[rows.start : rows.stop], 1)[0]
        column: list[tuple[str, NDArray[np.uint8] | None]] = [
            ("driving", reader.frame(rows[frame])),
            ("target", source.target(models[0], pair)),
        ]
        column += [(ANSWER, read()) for read in source.answers(pair)[frame : frame + 1]]
        column += [
            (source.label(model), source.generated_frames(model, pair, [frame])[0]) for model in models
        ]
        columns.append([pictures.tile(image, size, text) for text, image in column])
    tiles = [tile for row in zip(*columns, strict=True) for tile in row]
    return pictures.sheet(tiles, len(columns))


def _side_by_side(
    source: _Source, pair: Pair, models: Sequence[str], size: int
) -> Iterator[NDArray[np.uint8]]:
    """The frames of a comparison: driving, target, the true answer where there is one, and each model."""
    reader, rows, _ = source.driving(pair)
    target = pictures.tile(source.target(models[0], pair), size, "target")
    answers = source.answers(pair)
    count = len(models) + 2 + bool(answers)
    # At most four in a row, rows of equal length: a page is not wide enough for more.
    columns = -(-count // -(-count // _COLUMNS))
    with ExitStack() as stack:
        streams = [source.generated(model, pair) for model in models]
        for stream in streams:
            stack.callback(stream.close)
        for place, row in enumerate(rows):
            images = [next(stream, None) for stream in streams]
            tiles = [pictures.tile(reader.frame(row), size, "driving"), target]
            tiles += [pictures.tile(read(), size, ANSWER) for read in answers[place : place + 1]]
            tiles += [
                pictures.tile(None if frame is None else frame.image, size, source.label(model))
                for frame, model in zip(images, models, strict=True)
            ]
            yield pictures.sheet(tiles, columns)


def write_comparison(source: _Source, pair: Pair, models: Sequence[str], path: Path, size: int) -> None:
    """Write the side-by-side video of a pair."""
    _, _, fps = source.driving(pair)
    frames = _side_by_side(source, pair, models, size)
    first = next(frames)
    tiles = ["driving", "target", *([ANSWER] if source.answers(pair) else []), *map(source.label, models)]
    note = {"remime": __version__, "pair": pair["pair"], "tiles": tiles}
    with video.Writer(path, fps, first.shape[1::-1], metadata=note, crf=21) as writer:
        for image in track(chain([first], frames), f"sheet {pair['pair']}", pair["frames"], "frames"):
            writer.write(image)


def _caption(pair: Pair) -> str:
    return f"{pair['driving_clip']} ({pair['driving_identity']}) drives {pair['target_clip']}"


def _write(
    source: _Source, rows: Sequence[Pair], options: Mapping[str, Any], work: Path
) -> Iterator[tuple[str, str]]:
    """Write one file after the other and yield its name and caption."""
    models, size = list(options["models"]), int(options["resolution"])
    labels = ", ".join(map(source.label, models))
    for pair in varied(rows, options["videos"]):
        name = f"{pair['pair']}.mp4"
        write_comparison(source, pair, models, work / name, size)
        truth = f"{ANSWER}, " if pair["protocol"] == "truth" else ""
        yield name, f"{_caption(pair)}: driving, target, {truth}{labels}."
    shown = varied(rows, options["identities"])
    pictures.write_png(work / "methods.png", figure4(source, shown, models, size))
    yield "methods.png", "As P1's Figure 4: driving frame, target, and the result of each model."
    grid = full_grid(rows, options["identities"], options["motions"])
    if grid is None or rows[0]["protocol"] != "cross":
        return
    for model in models:
        pictures.write_png(work / f"grid_{model}.png", figure3(source, grid, model, options["motions"], size))
        caption = f"As P1's Figure 3, {source.label(model)}: targets above, driving frames on the left."
        yield f"grid_{model}.png", caption


def run(
    pairs: Path, folder: Path, datasets: Sequence[Dataset], output: Path, options: Mapping[str, Any]
) -> dict[str, str]:
    """Write videos and pictures of a benchmark and return file → caption, as ``sheet.json`` holds it.

    Args:
        pairs: its table of pairs.
        folder: ``results/benchmarks/{protocol}`` with every model's videos.
        datasets: where driving clips lie.
        output: the folder to write; it replaces what was there.
        options: ``OPTIONS`` with the values of the configuration.

    Raises:
        InputError: no model, no pair, or a video that is missing.
    """
    options = {**OPTIONS, **options}
    options["models"] = ours_first(options["models"])
    for key, least in {"videos": 0, "identities": 1, "motions": 1, "resolution": 32}.items():
        if options[key] < least:
            raise InputError(f"sheet: {key}", f"{options[key]}", f"{least} or more")
    rows = read_table(pairs, "pairs").to_pylist()
    if not rows or not options["models"]:
        raise InputError(
            pairs, f"{len(rows)} pairs and {len(options['models'])} models", "one of each is needed at least"
        )
    source = _Source(Benchmark(folder, rows[0]["protocol"], 1), datasets, options["models"])
    captions: dict[str, str] = {}
    with atomic_folder(output) as work:
        for name, caption in _write(source, rows, options, work):
            captions[name] = caption
        write_text(work / "sheet.json", json.dumps(captions, indent=1, ensure_ascii=False))
    return captions


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("sheet", __doc__)
    add_datasets(parser)
    parser.add_argument("--pairs", type=Path, required=True, help="the benchmark's pairs.parquet")
    parser.add_argument("--benchmark", type=Path, required=True, help="its folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of videos and pictures")
    args = parser.parse_args(argv)
    run(args.pairs, args.benchmark, args.datasets, args.output, args.options)


if __name__ == "__main__":
    entry(main)

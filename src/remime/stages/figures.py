"""Draw the report's plots: one a metric, training curves, motion over time, and the speed of the stages."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from remime.errors import InputError
from remime.files import write_text
from remime.layout import REFERENCES
from remime.metrics.expression import signals as landmark_signals
from remime.metrics.registry import METRICS, SIGNALS
from remime.progress import Progress
from remime.reporting import plots
from remime.reporting.folders import atomic_folder
from remime.reporting.results import CEILING, Benchmark, Value, benchmarks, ours_first, read_values, title
from remime.stages import entry, stage_parser
from remime.tables import read_table

OPTIONS: dict[str, Any] = {"models": {}, "protocols": {}, "confidence": 0.95}

# The parts of fl_corr and the counts stand in the tables; the ceiling is a line in the plot of csim.
_DRAWN = tuple(
    name
    for name, metric in METRICS.items()
    if metric.higher_is_better is not None and name not in (*SIGNALS, "inversion_csim")
)


Models = Mapping[str, Mapping[str, Any]]


class Plot(NamedTuple):
    """A figure with its file's name and its caption."""

    name: str
    caption: str
    figure: Figure


def metric_plots(
    benchmark: Benchmark,
    rows: Sequence[Mapping[str, Any]],
    values: Sequence[Value],
    models: Models,
    level: float,
) -> Iterator[Plot]:
    """A plot for each metric of a benchmark."""
    own = [row for row in rows if row["benchmark"] == benchmark.name]
    for name in _DRAWN:
        shown = [row for row in own if row["metric"] == name and not row["model"].startswith(CEILING)]
        if not any(row["value"] is not None for row in shown):
            continue
        ceilings = [row["value"] for row in own if row["model"].startswith(CEILING)]
        metric = METRICS[name]
        label = f"{metric.title} {metric.arrow}" + (f" ({metric.unit})" if metric.unit else "")
        points: dict[str, list[float]] = defaultdict(list)
        for v in values:
            if v.metric == name and np.isfinite(v.value):
                points[v.model].append(v.value)
        ceiling = max(ceilings, default=None) if name == "csim" else None
        labels = [title(row["model"], models) for row in shown]
        figure = plots.intervals(shown, points, label, ceiling, labels)
        clips = max(row["clips"] for row in shown)
        caption = (
            f"{benchmark.name}: {metric.title}. {metric.description} Discs: means over videos; bars: "
            f"{level:.0%} intervals over {clips} driving clips; dots: single videos."
        )
        yield Plot(f"{benchmark.name}_{name}", caption, figure)


def training_plot(path: Path) -> Plot | None:
    """The curves of one model's history; None when nothing was trained."""
    history: dict[tuple[str, str], tuple[list[int], list[float]]] = {}
    for row in read_table(path, "history").to_pylist():
        if row["value"] is not None:
            steps, values = history.setdefault((row["split"], row["name"]), ([], []))
            steps.append(row["step"])
            values.append(row["value"])
    if not history:
        return None
    model = path.parent.name
    last = max(steps[-1] for steps, _ in history.values())
    caption = f"Training of {model}: losses and validation metrics up to step {last} (thick: running mean)."
    return Plot(f"training_{model}", caption, plots.curves(history))


def motion_plot(benchmark: Benchmark, models: Models) -> Plot | None:
    """Yaw, pitch and mouth of the benchmark's longest video, driving against generated."""
    pairs = sorted(benchmark.pairs().values(), key=lambda pair: (-pair["frames"], pair["pair"]))
    pair = next(iter(pairs), None)
    if pair is None:
        return None
    lines: dict[str, dict[str, Any]] = {"yaw (°)": {}, "pitch (°)": {}, "mouth": {}}
    for model in models:
        path = benchmark.folder / model / "features" / f"{pair['batch']}.npz"
        if not path.exists():
            continue
        with np.load(path) as features:
            # A pair without a video has no features.
            sides = (("driving", "driving"), ("generated", title(model, models)))
            for side, name in sides if f"{pair['pair']}/driving_pose" in features else ():
                angles = features[f"{pair['pair']}/{side}_pose"]
                points = features[f"{pair['pair']}/{side}_landmarks"]
                lines["yaw (°)"][name], lines["pitch (°)"][name] = angles[:, 0], angles[:, 1]
                lines["mouth"][name] = landmark_signals(points)[:, 2]
    if not lines["mouth"]:
        return None
    caption = (
        f"{benchmark.name}: head pose and opening of the mouth over the frames of one pair, "
        f"{pair['driving_clip']} driving {pair['target_clip']}."
    )
    return Plot(f"{benchmark.name}_motion", caption, plots.signals(lines))


def read_speeds(folder: Path) -> dict[str, tuple[float, float, int]]:
    """Seconds of all jobs, greatest memory in MB and number of jobs of each rule, from Snakemake's files.

    Args:
        folder: its files are ``{rule}/….tsv`` or ``{rule}.tsv``.
    """
    found: dict[str, tuple[float, float, int]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        with path.open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                seconds, memory, jobs = found.get(rule, (0.0, 0.0, 0))
                found[rule] = (
                    seconds + _number(row.get("s")), max(memory, _number(row.get("max_rss"))), jobs + 1
                )  # fmt: skip
    return found


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0  # Snakemake writes "-" or "NA" for what it could not measure


def speed_plot(folder: Path) -> Plot | None:
    """Time of each stage."""
    speeds = sorted(read_speeds(folder).items(), key=lambda item: -item[1][0])
    if not speeds:
        return None
    labels = [
        f"{seconds:.1f} s, {jobs} job{'s' * (jobs != 1)}, {memory:.0f} MB"
        for _, (seconds, memory, jobs) in speeds
    ]
    caption = "Wall time of each rule, summed over its jobs, and the greatest memory of one of them."
    names, times = [name for name, _ in speeds], [s for _, (s, _, _) in speeds]
    return Plot("speed", caption, plots.bars(names, times, labels, "seconds"))


def _all(
    metrics: Path,
    folders: Sequence[Path],
    histories: Sequence[Path],
    speeds: Path | None,
    options: Mapping[str, Any],
) -> Iterator[Plot | None]:
    rows = read_table(metrics, "metrics").to_pylist()
    models = list(options["models"]) or list(
        dict.fromkeys(row["model"] for row in rows if not row["model"].startswith(CEILING))
    )
    for benchmark in benchmarks(folders, options["protocols"]):
        values = read_values(benchmark, models)
        yield from metric_plots(benchmark, rows, values, options["models"], options["confidence"])
        systems = dict.fromkeys(v.model for v in values if v.model not in REFERENCES)
        yield motion_plot(benchmark, {name: options["models"].get(name, {}) for name in systems})
    for path in histories:
        yield training_plot(path)
    if speeds is not None and speeds.is_dir():
        yield speed_plot(speeds)


def run(
    metrics: Path,
    folders: Sequence[Path],
    histories: Sequence[Path],
    speeds: Path | None,
    output: Path,
    options: Mapping[str, Any],
) -> dict[str, str]:
    """Draw everything that the inputs allow and return file → caption, as ``figures.json`` holds it.

    Args:
        metrics: the table ``metrics``.
        folders: the benchmarks, for single videos and motion over time.
        histories: ``results/models/{model}/history.parquet``.
        speeds: the folder of Snakemake's benchmark files; it may be empty or absent.
        output: the folder to write; it replaces what was there.
        options: ``OPTIONS`` with the values of the configuration.
    """
    options = {**OPTIONS, **options}
    options["models"] = ours_first(options["models"])
    if folders and not options["protocols"]:
        raise InputError("figures: protocols", "is empty", "name the benchmarks' protocols")
    captions: dict[str, str] = {}
    with atomic_folder(output) as folder, plots.style(), Progress(None, "figures", "plots") as progress:
        for plot in _all(metrics, folders, histories, speeds, options):
            if plot is not None:
                plots.save(plot.figure, folder / f"{plot.name}.svg")
                captions[f"{plot.name}.svg"] = plot.caption
                progress.update()
        write_text(folder / "figures.json", json.dumps(captions, indent=1, ensure_ascii=False))
    return captions


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("figures", __doc__)
    parser.add_argument("--metrics", type=Path, required=True, help="metrics.parquet")
    parser.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="the benchmarks' folders")
    parser.add_argument("--histories", type=Path, nargs="*", default=[], help="the models' history.parquet")
    parser.add_argument("--speeds", type=Path, help="folder of Snakemake's benchmark files")
    parser.add_argument("--output", type=Path, required=True, help="folder of the plots")
    args = parser.parse_args(argv)
    run(args.metrics, args.benchmarks, args.histories, args.speeds, args.output, args.options)


if __name__ == "__main__":
    entry(main)

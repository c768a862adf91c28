"""Write the page that sums up a run: tables, pictures, videos, plots, models, data, terms, environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.files import write_text
from remime.metrics.registry import METRICS
from remime.reporting import facts, inventory, markdown, page
from remime.stages import Dataset, add_datasets, entry, stage_parser
from remime.tables import read_table

OPTIONS: dict[str, Any] = {"title": "remime: face reenactment", "weights": [], "failures": 50}


def _captions(path: Path) -> dict[str, str]:
    """File → caption of a folder of plots or videos; every file must be there."""
    try:
        captions = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read ({error})", "run the stage that writes it") from None
    missing = [name for name in captions if not (path.parent / name).is_file()]
    if missing:
        raise InputError(path, f"names files that are not there: {', '.join(missing)}", "run its stage again")
    return captions


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"cannot be read ({error})", "run the stage that writes it") from None


def _galleries(sheets: Sequence[Path], output: Path, suffix: str) -> list[dict[str, str]]:
    return [
        {**item, "benchmark": folder.name}
        for folder in sheets
        for item in page.gallery(folder, _captions(folder / "sheet.json"), output, (suffix,))
    ]


def run(
    metrics: Path,
    table: Path,
    tables: Path,
    figures: Path,
    sheets: Sequence[Path],
    datasets: Sequence[Dataset],
    benchmarks: Sequence[Path],
    cards: Sequence[Path],
    weights: Path,
    samples: Sequence[Path],
    output: Path,
    options: Mapping[str, Any],
    counts: Path | None = None,
) -> None:
    """Write the page; its links are relative, so the results folder can be moved as a whole.

    Args:
        metrics, table, tables: what ``summarize`` wrote: Parquet, CSV, Markdown.
        figures: the folder of ``figures``.
        sheets: the folders of ``sheet``, one a benchmark.
        datasets: whose counts, failures and terms are shown.
        benchmarks: ``results/benchmarks/{protocol}``, whose pairs are counted.
        cards: the models' cards, Markdown.
        weights: the repository's table of pretrained files.
        samples: the tables of the sample clips, if there are any.
        output: the page.
        options: ``OPTIONS`` with the values of the configuration; ``weights`` names the networks that were
            used (none: all of the table), ``failures`` limits the clips that are listed for a dataset.
        counts: what was asked of each dataset and what was got, as CSV; by default beside the page.
    """
    options = {**OPTIONS, **options}
    used = set(read_table(metrics, "metrics", ["metric"])["metric"].to_pylist())
    counts = counts or output.with_name("datasets.csv")
    inventories = [inventory.inventory(dataset) for dataset in datasets]
    write_text(counts, inventory.as_csv(inventories))
    links = {"metrics": metrics, "csv": table, "tables": tables, "counts": counts}
    context = {
        "title": options["title"],
        "tables": markdown.render(_read(tables)),
        "links": {name: page.relative_url(path, output) for name, path in links.items()},
        "metrics": [metric for name, metric in METRICS.items() if name in used],
        "plots": page.gallery(figures, _captions(figures / "figures.json"), output, (".svg",)),
        "pictures": _galleries(sheets, output, ".png"),
        "videos": _galleries(sheets, output, ".mp4"),
        "cards": [{"name": path.parent.name, "html": markdown.render(_read(path), 4)} for path in cards],
        "datasets": [facts.dataset_facts(dataset) for dataset in datasets],
        "inventories": inventories,
        "benchmarks": [facts.benchmark_facts(folder) for folder in benchmarks],
        "shown": options["failures"],
        "weights": facts.weight_rows(weights, options["weights"]),
        "samples": [row for path in samples for row in facts.sample_rows(path, datasets)],
        "environment": facts.environment(),
    }
    write_text(output, page.render(context))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("report", __doc__)
    add_datasets(parser, required=False)
    for name, text in {
        "metrics": "metrics.parquet",
        "csv": "metrics.csv",
        "tables": "the papers' tables as Markdown",
        "figures": "folder of the plots",
        "weights": "table of pretrained files",
        "output": "the page",
        "counts": "what was asked of each dataset and what was got, as CSV",
    }.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    parser.add_argument("--sheets", type=Path, nargs="*", default=[], help="folders of videos and pictures")
    parser.add_argument("--benchmarks", type=Path, nargs="*", default=[], help="the benchmarks' folders")
    parser.add_argument("--cards", type=Path, nargs="*", default=[], help="the models' cards")
    parser.add_argument("--samples", type=Path, nargs="*", default=[], help="tables of sample clips")
    args = parser.parse_args(argv)
    run(
        args.metrics,
        args.csv,
        args.tables,
        args.figures,
        args.sheets,
        args.datasets,
        args.benchmarks,
        args.cards,
        args.weights,
        args.samples,
        args.output,
        args.options,
        args.counts,
    )
    print(f"report: {args.output.resolve().as_uri()}")


if __name__ == "__main__":
    entry(main)

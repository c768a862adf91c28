"""Gather all scores into one table with intervals, and print the papers' tables as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remime.errors import InputError
from remime.files import write_text
from remime.layout import REFERENCES
from remime.metrics.registry import IMAGE, TABLE1, TRUTH
from remime.reporting import text
from remime.reporting.agreement import Agreement, agreements
from remime.reporting.results import Benchmark, Value, benchmarks, ours_first, read_lost, read_values
from remime.reporting.summary import Resampling, differences, summarise
from remime.stages import entry, stage_parser
from remime.tables import SCHEMAS, write_table

OPTIONS: dict[str, Any] = {
    "models": {},
    "protocols": {},
    "bootstrap": 1000,
    "confidence": 0.95,
    "seed": 0,
}
_COMPARED = (*TABLE1, "csim_inversion", "yaw_corr", *IMAGE, *TRUTH)


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    handle = io.StringIO()
    writer = csv.DictWriter(handle, SCHEMAS["metrics"][1].names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return handle.getvalue()


def baseline(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The model that the others are compared with: the first ``linear`` one, or none."""
    return next((name for name, entry in models.items() if entry.get("method") == "linear"), "")


def _section(
    benchmark: Benchmark,
    values: Sequence[Value],
    rows: Sequence[Mapping[str, Any]],
    agreed: Sequence[Agreement],
    options: Mapping[str, Any],
    resampling: Resampling,
) -> str:
    present = {v.model for v in values}
    models = {name: entry for name, entry in options["models"].items() if name in present}
    base = baseline(models)
    compared = [name for name in models if name not in REFERENCES]
    found = differences(values, compared, base, _COMPARED, resampling)
    lost = read_lost(benchmark, options["models"])
    return text.benchmark_section(benchmark.name, benchmark.protocol, rows, models, found, base, lost, agreed)


def run(
    folders: Sequence[Path],
    output: Path,
    table: Path,
    tables: Path,
    options: Mapping[str, Any],
    agreement: Path | None = None,
) -> int:
    """Write the summary of all benchmarks and return its number of rows.

    Args:
        folders: ``results/benchmarks/{protocol}``, each with pairs and every model's scores.
        output: the table ``metrics``.
        table: the same as CSV.
        tables: the papers' tables as Markdown.
        options: ``OPTIONS`` with the values of the configuration.
        agreement: the table of that name, where some benchmark has true answers.

    Raises:
        InputError: no model, or scores that are missing.
    """
    options = {**OPTIONS, **options}
    options["models"] = ours_first(options["models"])
    if not options["models"]:
        raise InputError("summarize: models", "is empty", "name the models whose scores are to be gathered")
    resampling = Resampling(options["bootstrap"], options["confidence"], options["seed"])
    rows: list[dict[str, Any]] = []
    agreed_rows: list[dict[str, Any]] = []
    sections = ["# Results"]
    for benchmark in benchmarks(folders, options["protocols"]):
        values = read_values(benchmark, options["models"])
        own = summarise(benchmark, values, options["models"], resampling)
        systems = set(options["models"]) - set(REFERENCES)
        agreed = agreements(values, systems, resampling) if benchmark.protocol == "truth" else []
        agreed_rows += [each.row(benchmark.name) for each in agreed]
        sections.append(_section(benchmark, values, own, agreed, options, resampling))
        rows += own
    sections.append(text.note(rows, options["confidence"]))
    write_table(output, "metrics", rows, options=options)
    if agreement is not None:
        write_table(agreement, "agreement", agreed_rows, options=options)
    write_text(table, _csv(rows))
    write_text(tables, "\n\n".join(sections) + "\n")
    return len(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the stage."""
    parser = stage_parser("summarize", __doc__)
    parser.add_argument("--benchmarks", type=Path, nargs="+", required=True, help="the benchmarks' folders")
    parser.add_argument("--output", type=Path, required=True, help="metrics.parquet")
    parser.add_argument("--csv", type=Path, required=True, help="the same as CSV")
    parser.add_argument("--tables", type=Path, required=True, help="the papers' tables as Markdown")
    parser.add_argument("--agreement", type=Path, help="how well other metrics agree with true answers")
    args = parser.parse_args(argv)
    run(args.benchmarks, args.output, args.csv, args.tables, args.options, args.agreement)


if __name__ == "__main__":
    entry(main)

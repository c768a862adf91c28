"""Fetch, verify and convert one row of ``workflow/weights.tsv``."""

from __future__ import annotations

from pathlib import Path

from remime.stages import entry, stage_parser
from remime.weights import ensure


def run(name: str, output: str | Path, table: str | Path | None = None, licence: str = "any") -> Path:
    """Make ``{output}/{name}.safetensors`` and ``.json``, and keep the originals in ``{output}/originals``.

    Args:
        name: the row.
        output: the folder of weights.
        table: the table; by default the checkout's ``workflow/weights.tsv``.
        licence: ``any``, ``research`` or ``permissive``.

    Raises:
        WeightsError: refused by the policy, not to be had, or not convertible.
    """
    return ensure(name, output, licence, table)


def main() -> None:
    """The command line."""
    parser = stage_parser("weights", __doc__)
    parser.add_argument("--name", required=True, help="the row of the table")
    parser.add_argument("--table", type=Path, help="the table (default: workflow/weights.tsv)")
    parser.add_argument("--output", type=Path, required=True, help="the folder of weights")
    parser.add_argument("--licence", default="any", help="any, research or permissive (default: any)")
    arguments = parser.parse_args()
    run(arguments.name, arguments.output, arguments.table, arguments.licence)


if __name__ == "__main__":
    entry(main)

"""``remime plan``: the pairs of a protocol, as a list or as files for other people's systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remime.cli import networks
from remime.errors import InputError


def command(
    protocol: Annotated[
        str | None,
        typer.Argument(metavar="PROTOCOL", help="Whose pairs; without it, what is planned."),
    ] = None,
    results: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the workflow wrote its results.")
    ] = Path("results"),
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FOLDER", help="Write list, targets, driving videos, README."),
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="Also the driving frames as PNG.")] = False,
    originals: Annotated[
        bool, typer.Option("--originals", help="Also where the files before alignment lie, and their parts.")
    ] = False,
    generator: Annotated[
        str,
        typer.Option(metavar="NAME", help="Makes made-up targets of which no model has left a picture."),
    ] = networks.GENERATOR,
) -> None:
    """List the pairs of a protocol, or export them for systems of other people.

    The workflow has to have planned them. A second export only writes what has changed.
    """
    from remime import export as exporting

    if protocol is None:
        if export is not None:
            known = ", ".join(exporting.planned(results)) or "none"
            raise InputError("--export", "needs the name of a protocol", f"planned: {known}")
        for name in exporting.planned(results):
            typer.echo(f"{name}\t{len(exporting.read_pairs(results, name))} pairs")
        return
    if export is None:
        for line in exporting.listing(exporting.read_pairs(results, protocol)):
            typer.echo(line)
        return
    job = exporting.Export(results, protocol, export, exporting.Options(frames, originals, generator))
    job.run()
    typer.echo(f"{export / 'pairs.csv'}: {len(job.pairs)} pairs, {job.written} files written")

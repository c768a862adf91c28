"""The command line: ``remime reenact``, ``score``, ``plan``, ``doctor``, ``bench`` and ``weights``.

Exit codes: 0 done, 1 failure, 2 bad input, 130 interrupted. Commands import what they need when they run, so
that help and messages about bad input come at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import typer

from remime.cli.bench import command as bench_command
from remime.cli.doctor import command as doctor_command
from remime.cli.plan import command as plan_command
from remime.cli.reenact import command as reenact_command
from remime.cli.score import command as score_command
from remime.cli.weights import app as weights_app
from remime.versions import __version__

app = typer.Typer(
    name="remime",
    help="Face reenactment: make videos, score them, look after the networks that this takes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain text: messages are read in logs and by other programs as well.
    rich_markup_mode=None,
)
app.command("reenact")(reenact_command)
app.command("score")(score_command)
app.command("plan")(plan_command)
app.command("doctor")(doctor_command)
app.command("bench")(bench_command)
app.add_typer(weights_app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"remime {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; whatever went wrong has been said on stderr.

    Args:
        arguments: without the program's name; None for those of this process.
    """
    from remime.stages import status_of

    return status_of(lambda: app(args=arguments, prog_name="remime"))


def main() -> NoReturn:
    """The program ``remime``."""
    from remime.stages import entry

    entry(lambda: app(prog_name="remime"))

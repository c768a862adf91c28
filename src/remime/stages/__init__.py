"""The stages of the workflow: one module per rule, each with ``run(...)`` and a short ``main()``.

Stages never import each other; they meet through files. What their command lines share is here:
``stage_parser`` makes the parser with ``--options``, ``entry`` runs ``main`` and turns every way in which it
can end into a message on stderr and an exit code.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from remime import libraries
from remime.errors import RemimeError, UnfinishedError
from remime.layout import Dataset
from remime.versions import STAGES

__all__ = ["Dataset", "add_datasets", "dataset_argument", "entry", "json_object", "stage_parser", "status_of"]

# Failures of the machine, not of the program: a traceback would only hide what to do. Exit code and fix.
_MACHINE = {
    errno.ENOSPC: (1, "free some space and run again; what is finished is kept"),
    errno.EDQUOT: (1, "free some of your quota and run again; what is finished is kept"),
    errno.EROFS: (2, "choose a folder that can be written to"),
    errno.EACCES: (2, "choose a folder that you may write to, or change its permissions"),
    errno.EPERM: (2, "choose a folder that you may write to, or change its permissions"),
}


def json_object(text: str) -> dict[str, Any]:
    """An argparse type: a JSON object, as the workflow passes a branch of the configuration."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON ({error}): {text!r}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"a JSON object is needed, not {text!r}")
    return value


def stage_parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of ``python -m remime.stages.{stage}`` with what all stages share.

    Args:
        stage: a key of ``remime.versions.STAGES``.
        description: the stage's docstring; its first line is shown.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m remime.stages.{stage}",
        description=(description or "").strip().partition("\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument("--options", type=json_object, default={}, metavar="JSON", help="the stage's options")
    parser.add_argument("--version", action="version", version=f"{stage} {STAGES[stage]}")
    return parser


def dataset_argument(text: str) -> Dataset:
    """An argparse type: ``results/samples=2`` is the dataset ``samples`` with two shards."""
    folder, _, shards = text.rpartition("=")
    if not folder or not shards.isdecimal() or int(shards) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not FOLDER=SHARDS, e.g. results/samples=2")
    return Dataset(Path(folder), int(shards))


def add_datasets(parser: argparse.ArgumentParser, name: str = "--datasets", *, required: bool = True) -> None:
    """Add ``--datasets FOLDER=SHARDS ...``; a command line cannot list the files of 1024 shards.

    Args:
        parser: to which the option is added.
        name: of another such option.
        required: whether it must be given.
    """
    parser.add_argument(
        name,
        type=dataset_argument,
        nargs="+",
        required=required,
        default=[],
        metavar="FOLDER=SHARDS",
        help="datasets and their numbers of shards, e.g. results/samples=2",
    )


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    # An exception unwinds the stack, so that temporary files are removed and writers are closed.
    raise SystemExit(128 + signal.SIGTERM)


def _configure_logging() -> None:
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.captureWarnings(True)


def status_of(main: Callable[[], object]) -> int:
    """Run ``main`` and return the exit code that it deserves, after saying why on stderr.

    0 done, 1 failure, 2 bad input, 75 out of time (run again), 130 interrupted, 143 terminated.
    Errors of remime and of the file system (full disk, no permission) are reported in a sentence, everything
    else with its traceback.
    """
    try:
        main()
    except UnfinishedError as end:
        print(end, file=sys.stderr, flush=True)
        return end.exit_code
    except RemimeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except SystemExit as error:
        # argparse exits with 2 after its own message.
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    except OSError as error:
        if error.errno not in _MACHINE:
            logging.exception("unexpected failure")
            return 1
        code, fix = _MACHINE[error.errno]
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}\n  {fix}", file=sys.stderr, flush=True)
        return code
    except Exception:
        logging.exception("unexpected failure")
        return 1
    return 0


def entry(main: Callable[[], object]) -> NoReturn:
    """Run a stage's ``main`` as a program, from logging and SIGTERM to the exit code. It never returns."""
    _configure_logging()
    signal.signal(signal.SIGTERM, _terminate)
    code = status_of(libraries.check) or status_of(main)
    # The end is settled: a signal must neither change it nor interrupt the interpreter's clearing up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)

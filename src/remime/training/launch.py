"""Several processes on one machine that train together: PyTorch's elastic launcher, as torchrun uses it.

The first process reports as a single one would. The others are silent; what they say is kept beside the state
of the training, and shown when one of them is the first to fail.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remime.devices import lease
from remime.errors import InputError, RemimeError, UnfinishedError
from remime.runtime import share_threads
from remime.training.processes import PeerLostError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_LAST_LINES = 20
_PRECEDENCE = 10.0  # seconds in which a failed process ends before those that lost it do
# How processes end that lost another one (gloo's threads may abort at the exit), or that the launcher ended
# for that: by the signal, or heeding it.
_CONSEQUENCES = (PeerLostError.exit_code, -signal.SIGABRT, -signal.SIGTERM, 128 + signal.SIGTERM)


class ProcessesFailedError(RemimeError):
    """One of the processes failed, and the others were ended.

    Args:
        message: what is reported.
        exit_code: of the process that failed first.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(processes: int, module: str, arguments: Sequence[str], logs: Path) -> None:
    """Run ``python -m MODULE ARGUMENTS`` in several processes until all are done.

    On GPUs each gets one, on a CPU its share of the threads.

    Args:
        processes: how many.
        module: its ``main`` is ``run_launched``, and ``join``s the others.
        arguments: its command line.
        logs: folder for what all but the first process say.

    Raises:
        InputError: there are fewer GPUs than that.
        UnfinishedError: their time was over.
        ProcessesFailedError: one of them failed.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.version.cuda is not None:
        lease(processes)
    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise InputError(
            "--processes",
            f"{processes} were asked for, with one GPU each, and {torch.cuda.device_count()} can be used",
            "ask for as many as there are GPUs (the resource `gpu` of rule `train`)",
        )
    share_threads(processes)
    # What it says of a failure is said below, in fewer words.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    shutil.rmtree(logs, ignore_errors=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        # A failure is for the workflow to repeat, from the last checkpoint.
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(str(logs), redirects=dict.fromkeys(range(1, processes), Std.ALL)),
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        rank, failure = _root(error.failures)
        if failure.exitcode == UnfinishedError.exit_code:
            raise UnfinishedError(failure.message) from None
        raise ProcessesFailedError(_report(rank, processes, failure, logs), _code(failure)) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None


def run_launched(main: Callable[[], object]) -> None:
    """Run ``main`` as one of several processes: what is wrong is left to the launcher, which says it once."""
    try:
        main()
    except RemimeError as error:
        note = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not note:
            raise
        if isinstance(error, PeerLostError):
            # The launcher blames who ends first, and the one that was lost may take its time.
            time.sleep(_PRECEDENCE)
        else:
            Path(note).write_text(json.dumps({"message": str(error), "timestamp": str(int(time.time()))}))
        raise SystemExit(error.exit_code) from None


def _root(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The failure that was not caused by another one."""

    def consequence(rank: int) -> tuple[bool, int]:
        return failures[rank].exitcode in _CONSEQUENCES, rank

    rank = min(failures, key=consequence)
    return rank, failures[rank]


def _code(failure: ProcessFailure) -> int:
    return failure.exitcode if failure.exitcode > 0 else 1


def _report(rank: int, processes: int, failure: ProcessFailure, logs: Path) -> str:
    who = f"process {rank + 1} of {processes} of this training"
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        why = " (memory ran out, or somebody killed it)" if name == "SIGKILL" else ""
        return f"{who} was ended by {name}{why}\n  run again: training goes on from the last checkpoint"
    if Path(failure.error_file).is_file():  # from run_launched
        return f"{who} failed\n  " + failure.message.replace("\n", "\n  ")
    return f"{who} failed" + (_said(rank, logs) or " (see above)")


def _said(rank: int, logs: Path) -> str:
    """The last lines of what a process said that was not shown."""
    lines = [
        line
        for log in sorted(logs.glob(f"*/attempt_0/{rank}/stderr.log"))
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    return "".join(f"\n  {line}" for line in lines[-_LAST_LINES:])

"""Which GPU a process computes on: on a workstation it takes a lease, so that no two share one by accident.

A lease is an exclusive lock on a file that stands for a physical GPU. It belongs to the process and ends with
it, also when it is killed. Where a scheduler has granted the GPUs there is nothing to choose, and no lease.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from remime.errors import InputError

# What to do when others hold all GPUs: wait for one, or share one.
Busy = Literal["wait", "share"]

_VISIBLE, _LEASES = "CUDA_VISIBLE_DEVICES", "REMIME_GPU_LEASES"
_OFF = "off"
# One folder for all users of a machine; $TMPDIR may differ between jobs.
_FOLDER = "/tmp/remime-gpus"
_SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "SGE_TASK_ID")
_FIELDS = ("index", "uuid", "name", "memory.used", "mig.mode.current")
_POLL = 1.0  # s between looks for a GPU that became free
_QUEUE = "queue.lock"

# The locks of this process; it lets go of them when it ends.
_held: dict[str, int] = {}


@dataclass(frozen=True)
class Gpu:
    """A physical GPU, as nvidia-smi knows it.

    Attributes:
        index: nvidia-smi's number.
        uuid: its name for CUDA, the same on every start.
        name: the model.
        used: MiB that are taken, by whomever.
        divided: whether it is split into MIG instances.
    """

    index: int
    uuid: str
    name: str
    used: int
    divided: bool


def list_gpus() -> list[Gpu]:
    """The GPUs of this machine, without starting CUDA; none where nvidia-smi cannot be run."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus = []
    for line in listed.splitlines():
        index, uuid, name, used, mig = (field.strip() for field in line.split(","))
        # Some GPUs do not tell: "[N/A]".
        gpus.append(Gpu(int(index), uuid, name, int(used) if used.isdigit() else 0, mig == "Enabled"))
    return gpus


def compute_device(busy: Busy = "wait") -> str:
    """``cuda`` or ``cpu``: where this process computes; call it before anything else that touches CUDA.

    Args:
        busy: what to do when other processes hold all GPUs.

    Raises:
        InputError: the folder of the leases cannot be used.
    """
    import torch

    if torch.version.cuda is not None:
        lease(1, busy)
    if not torch.cuda.is_available():
        return "cpu"
    if _held and torch.cuda.device_count() != len(_held):
        raise RuntimeError("CUDA was started before this process took its GPU")
    return "cuda"


def granted() -> int:
    """How many GPUs a scheduler has granted to this job; 0 where there is no scheduler."""
    if not _scheduled():
        return 0
    return len([part for part in os.environ.get(_VISIBLE, "").split(",") if part.strip()])


def _scheduled() -> bool:
    return any(name in os.environ for name in _SCHEDULERS)


def lease(count: int = 1, busy: Busy = "wait") -> None:
    """Restrict this process, and those that it starts, to GPUs that no other process has leased.

    Args:
        count: how many it needs.
        busy: what to do when there are not as many free ones.

    Raises:
        InputError: there are fewer GPUs than that, or the folder of the leases cannot be used.
    """
    if _held or os.environ.get(_LEASES, "").lower() == _OFF:
        return
    gpus = _visible(list_gpus())
    if not gpus or any(gpu.divided for gpu in gpus):
        return
    if count > len(gpus):
        raise InputError(
            "GPUs", f"{count} were asked for, {len(gpus)} can be used here", f"ask for at most {len(gpus)}"
        )
    if len(gpus) == count and _VISIBLE in os.environ and _scheduled():
        return
    # Those come first that nobody uses, with or without a lease.
    gpus.sort(key=lambda gpu: gpu.used)
    taken = _take(gpus, count, busy)
    if taken is None:
        taken = gpus[:count]
        _say(f"no GPU is free ({_holders(gpus)}): shares GPU {_numbers(taken)}")
    os.environ[_VISIBLE] = ",".join(gpu.uuid for gpu in taken)
    # What this process starts uses what it has.
    os.environ[_LEASES] = _OFF


def _visible(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those of ``CUDA_VISIBLE_DEVICES``, by number or UUID; none if it names others, as MIG instances."""
    chosen = os.environ.get(_VISIBLE)
    if chosen is None:
        return list(gpus)
    found = []
    for part in (part.strip() for part in chosen.split(",")):
        by_uuid = part.startswith("GPU-")
        matches = [g for g in gpus if part == str(g.index) or (by_uuid and g.uuid.startswith(part))]
        if not matches:
            return []
        found.append(matches[0])
    return found


def _take(gpus: Sequence[Gpu], count: int, busy: Busy) -> list[Gpu] | None:
    """Lock ``count`` GPUs, at once or after waiting; None when they are not to be had."""
    taken: dict[Gpu, int] = {}
    try:
        if busy == "wait":
            _wait(gpus, count, taken)
        else:
            _lock_free(gpus, count, taken)
        if len(taken) == count:
            _held.update({gpu.uuid: lock for gpu, lock in taken.items()})
            return list(taken)
    finally:
        if not _held:
            for lock in taken.values():
                os.close(lock)
    return None


def _wait(gpus: Sequence[Gpu], count: int, taken: dict[Gpu, int]) -> None:
    # Who has some and waits for more stands alone at the head of a queue: no two wait for each other, and who
    # needs many is not overtaken for ever.
    wanted = "a GPU" if count == 1 else f"{count} GPUs"
    queue = _open(_QUEUE)
    try:
        waits = not _lock(queue)
        if waits:
            _say(f"waits for {wanted}, behind {_holder(_QUEUE)}, which waits as well")
            fcntl.flock(queue, fcntl.LOCK_EX)
            _sign(queue)
        while _lock_free(gpus, count, taken) < count:
            if not waits:
                _say(f"waits for {wanted}: {_holders(gpu for gpu in gpus if gpu not in taken)}")
                waits = True
            time.sleep(_POLL)
        if waits:
            _say(f"goes on with GPU {_numbers(taken)}")
    finally:
        os.close(queue)


def _lock_free(gpus: Sequence[Gpu], count: int, taken: dict[Gpu, int]) -> int:
    """Lock those that are free until there are ``count``; returns how many there are."""
    for gpu in gpus:
        if gpu not in taken and len(taken) < count:
            lock = _open(_file(gpu))
            if _lock(lock):
                taken[gpu] = lock
            else:
                os.close(lock)
    return len(taken)


def _file(gpu: Gpu) -> str:
    return f"{gpu.uuid}.lock"


def _folder() -> Path:
    return Path(os.environ.get(_LEASES) or _FOLDER)


def _open(name: str) -> int:
    """Open a lock file of the machine, which all of its users may lock."""
    folder = _folder()
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)
        try:
            # Linux refuses O_CREAT for files of others in a folder that everybody may write to.
            return os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            created = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            os.fchmod(created, 0o666)  # whatever the umask
            return created
    except OSError as error:
        raise InputError(
            folder,
            f"leases on GPUs cannot be kept here ({error.strerror or error})",
            f"set {_LEASES} to a folder that all users of this machine may write to, or to {_OFF!r}",
        ) from None


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    _sign(handle)
    return True


def _sign(handle: int) -> None:
    """Leave word for those who wait."""
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} ({Path(sys.argv[0]).stem})".encode(), 0)


def _holder(name: str) -> str:
    try:
        return (_folder() / name).read_text(encoding="utf-8", errors="replace")[:80] or "another process"
    except OSError:
        return "another process"


def _holders(gpus: Iterable[Gpu]) -> str:
    return ", ".join(f"GPU {gpu.index} is used by {_holder(_file(gpu))}" for gpu in gpus)


def _numbers(gpus: Iterable[Gpu]) -> str:
    return ", ".join(str(gpu.index) for gpu in gpus)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

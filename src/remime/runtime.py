"""Process-wide settings that every long-running entry point makes once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

# glibc's mallopt parameters (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_PR_SET_PDEATHSIG = 1  # prctl.h
# What numerical libraries take their number of threads from; Snakemake sets them from a rule's `threads`.
_THREADS = (
    "REMIME_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def keep_freed_memory() -> bool:
    """Let the C allocator keep and reuse large freed buffers; whether that could be set.

    By default glibc returns every buffer above 32 MB to the system and faults it in again, page by page, at
    the next allocation. Decoding at 512² and above spends most of its time on that (docs/benchmarks.md).
    The heaps' padding (``M_TOP_PAD``) stays as it is: from 16 MB on, threads that decode a video leave 2 kB
    behind for every frame.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        return all(
            libc.mallopt(parameter, value) == 1
            for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
        )
    return False


def keep_opencv_to_one_thread() -> None:
    """Let OpenCV use the thread that calls it, and no other.

    For pictures of a video's size its threads finish nothing sooner, but take a quarter more CPU time from
    networks and encoders beside it (docs/benchmarks.md).
    """
    import cv2

    cv2.setNumThreads(1)


def threads() -> int:
    """The CPU threads this process may use: what the scheduler granted, else what the machine has."""
    for name in ("REMIME_THREADS", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return cores()


def cores() -> int:
    """The CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_threads(processes: int) -> int:
    """Divide this process's CPU threads between processes that it will start; how many each of them gets."""
    each = max(1, threads() // processes)
    os.environ |= dict.fromkeys(_THREADS, str(each))
    return each


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends, however that ends (Linux)."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

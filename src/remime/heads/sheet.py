"""A contact sheet of people in the same poses: ``python -m remime.heads.sheet FILE --identities SEED …``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from remime.files import atomic
from remime.heads import scene
from remime.heads.assets import COEFFICIENTS
from remime.heads.renderer import Renderer
from remime.heads.shape import Pose
from remime.heads.take import figure_of

_HEADING = 14  # pixels above each column


def pose(
    head: tuple[float, float, float] = (0.0, 0.0, 0.0),
    gaze: tuple[float, float] = (0.0, 0.0),
    **coefficients: float,
) -> Pose:
    """A pose by the names of its coefficients; one without a side stands for both.

    Args:
        head: yaw, pitch and roll in degrees.
        gaze: yaw and pitch of the eyes in degrees, relative to the head.
        coefficients: from 0 at rest to 1 in full; the others are 0.

    Raises:
        ValueError: there is no such coefficient.
    """
    values = np.zeros(len(COEFFICIENTS))
    for name, value in coefficients.items():
        sides = [name] if name in COEFFICIENTS else [name + side for side in ("Left", "Right")]
        if not set(sides) <= set(COEFFICIENTS):
            raise ValueError(f"{name!r} is no coefficient")
        values[[COEFFICIENTS.index(side) for side in sides]] = value
    return Pose(values, gaze, head)


POSES: dict[str, Pose] = {
    "at rest": pose(),
    "yaw -30, smile": pose((-30, 0, 0), mouthSmile=0.8, cheekSquint=0.4),
    "yaw 25, a": pose((25, 4, -4), jawOpen=0.55, mouthLowerDown=0.3),
    "pitch -10, blink": pose((0, -10, 0), eyeBlink=1),
    "looks aside, u": pose(
        gaze=(20, 0), mouthPucker=0.7, mouthFunnel=0.3, eyeLookOutRight=0.9, eyeLookInLeft=0.9
    ),
    "raised brows": pose((-8, 8, 8), browInnerUp=0.9, browOuterUp=0.9, eyeWide=0.5, jawOpen=0.15),
    "frown": pose((12, -4, -8), browDown=0.9, mouthFrown=0.7, noseSneer=0.3),
    "laugh": pose(
        (-15, 5, 0), mouthSmile=0.9, jawOpen=0.35, cheekSquint=0.7, eyeSquint=0.4, mouthUpperUp=0.3
    ),
}
"""What everybody is shown doing."""


def sheet(identities: Sequence[int], size: int) -> Image.Image:
    """A picture with a row for each person and a column for each of ``POSES``.

    Args:
        identities: seeds.
        size: of a frame in pixels.
    """
    renderer = Renderer(size)
    page = Image.new("RGB", (size * len(POSES), _HEADING + size * len(identities)), "white")
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(POSES):
        pen.text((column * size + 4, 1), name, fill="black")
    for row, seed in enumerate(identities):
        for column, shown in enumerate(POSES.values()):
            frame = renderer.render(figure_of(seed), shown, scene.sample(seed))
            page.paste(Image.fromarray(frame.image), (column * size, _HEADING + row * size))
    return page


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the JPEG file")
    parser.add_argument("--identities", type=int, nargs="+", default=list(range(1, 9)), help="seeds")
    parser.add_argument("--size", type=int, default=144, help="of a frame in pixels")
    arguments = parser.parse_args()
    with atomic(arguments.output) as temporary:
        sheet(arguments.identities, arguments.size).save(temporary, "JPEG", quality=85)


if __name__ == "__main__":
    main()

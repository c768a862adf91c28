"""Labelled tiles of images: frames of side-by-side videos, grids of identities and motions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from remime.metrics.image import resize

Picture = NDArray[np.uint8]

LABEL = 22
"""Height of a label's strip in pixels."""
_PAPER, _INK = (24, 24, 27), (212, 212, 216)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font knows Latin only; names of people and files do not keep to that.
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)


@cache
def label(text: str, width: int) -> Picture:
    """A strip [LABEL, width, 3] with one line of text, shortened until it fits."""
    strip = Image.new("RGB", (width, LABEL), _PAPER)
    draw = ImageDraw.Draw(strip)
    font = _font(13)
    line = " ".join(text.split())
    while draw.textlength(line, font=font) > width - 8 and len(line) > 1:
        line = line[:-2].rstrip() + "…"
    draw.text((width / 2, LABEL / 2), line, fill=_INK, font=font, anchor="mm")
    return np.asarray(strip, dtype=np.uint8)


def blank(size: int) -> Picture:
    """A square tile without a picture."""
    return np.full((size, size, 3), _PAPER, dtype=np.uint8)


def tile(image: Picture | None, size: int, text: str | None = None) -> Picture:
    """An image at ``size``, or a blank for None, with its label above when there is a text."""
    square = blank(size) if image is None else resize(image, size)
    return square if text is None else np.vstack([label(text, size), square])


def sheet(tiles: Sequence[Picture], columns: int) -> Picture:
    """Tiles of one shape in rows; the last row is filled up with the background."""
    empty = np.full_like(tiles[0], _PAPER)
    padded = [*tiles, *[empty] * (-len(tiles) % columns)]
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    return np.vstack(rows)


def write_png(path: Path, image: Picture) -> None:
    """Write an RGB image."""
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: cannot be written")


def distinct(points: NDArray[np.floating], count: int) -> list[int]:
    """Frames whose landmarks differ most from one another, in order of time.

    Farthest-point sampling that begins with the frame farthest from the mean.

    Args:
        points: [n, 68, 2] in pixels of aligned frames.
        count: how many are wanted; fewer come back when there are fewer frames.
    """
    if not len(points):
        return []
    flat = np.nan_to_num(np.asarray(points, dtype=np.float64)).reshape(len(points), -1)
    distance = np.linalg.norm(flat - flat.mean(axis=0), axis=1)
    chosen: list[int] = []
    nearest = np.full(len(flat), np.inf)
    while len(chosen) < min(count, len(flat)):
        chosen.append(int(distance.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(flat - flat[chosen[-1]], axis=1))
        distance = nearest.copy()
        # Frames of equal landmarks are all at distance zero; none is taken twice.
        distance[chosen] = -1.0
    return sorted(chosen)

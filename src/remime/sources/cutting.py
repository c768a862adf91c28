"""Clips cut out of a video: at exact times, around the official box with room for FFHQ's crop.

**Room.** ``align`` cuts the FFHQ quad of a face (:mod:`remime.faces.alignment`): a square of the side
S = max(4 · between the eyes, 3.6 · from eyes to mouth), turned with the head. A border of 0.1 S around it has
to be there as well, or the picture is mirrored and blurred at its edge. How much room a box needs beyond
itself follows from what it encloses:

- ``FACE``: boxes of face detectors (VoxCeleb), at the tightest the 68 landmarks. In the mean face of
  :mod:`remime.faces.template` these are 0.58 S wide and 0.56 S high; so an upright head needs 0.54 of the
  box's width on each side, 0.86 of its height above and 0.28 below, and one that is turned by any angle up to
  45° (``select: max_roll``) 1.00, 1.01 and 0.73.
- ``HEAD``: boxes that hold all of the head (HDTF, CelebV-HQ), at the tightest the upright quad. Turned by 45°
  it reaches 0.21 S further, with the border 0.31 S.

The boxes enclose the face during the whole clip, so its motion needs no more.

**Times.** Frames with start ≤ t < end are decoded from the key frame before them and encoded anew, near to
lossless: a copy without encoding could begin at key frames only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remime.sources import ClipError
from remime.sources.parts import Part
from remime.video import Writer, probe, read

# x264's constant rate factor and preset; tests hold the distance to the source.
_CRF, _PRESET = 8, "veryfast"
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Margin:
    """Room around a box: on each side in units of its width, above and below in units of its height."""

    side: float
    above: float
    below: float


FACE = Margin(1.0, 1.01, 0.73)
HEAD = Margin(0.31, 0.31, 0.31)


@dataclass(frozen=True)
class Cut:
    """What of a video is a clip; as JSON it is the path of a clip of the kind ``download``.

    Args:
        video: its id.
        start, end: seconds since the video's first frame; the frame at ``end`` is no longer part of it.
        box: x and y of the corner, width, height (x right, y down), or empty for the whole picture.
        lines: the height in pixels of the picture that the box is measured in, or 0 when x and width are
            fractions of the picture's width, y and height of its height.
        margin: the name of the room that the box needs: ``face`` or ``head``.
    """

    video: str
    start: float
    end: float
    box: tuple[float, ...] = field(default=())
    lines: int = 0
    margin: str = "head"

    def text(self) -> str:
        """The cut as JSON; equal cuts give equal text."""
        return json.dumps(vars(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Cut:
        """The cut of a JSON text."""
        values: Mapping[str, Any] = json.loads(text)
        return cls(**{**values, "box": tuple(values["box"])})


MARGINS = {"face": FACE, "head": HEAD}


def crop_of(cut: Cut, width: int, height: int) -> Box | None:
    """The box with its margin, x, y, width, height in pixels of a picture of this size; within the picture.

    Raises:
        ClipError: the box lies outside of the picture.
    """
    if not cut.box:
        return None
    across, down = (height / cut.lines, height / cut.lines) if cut.lines else (width, height)
    x, y, w, h = (v * scale for v, scale in zip(cut.box, (across, down, across, down), strict=True))
    margin = MARGINS[cut.margin]
    left, right = max(0, int(x - margin.side * w)), min(width, round(x + (1 + margin.side) * w))
    top, bottom = max(0, int(y - margin.above * h)), min(height, round(y + (1 + margin.below) * h))
    if x >= width or y >= height or right - left < 2 or bottom - top < 2:
        where = ", ".join(f"{value:g}" for value in (x, y, w, h))
        raise ClipError("unreadable", "its box", f"[{where}] lies outside of the {width}×{height} picture")
    return left, top, right - left, bottom - top


def part_of(cut: Cut, parts: Sequence[Part]) -> Part:
    """The part that holds a cut."""
    return next(part for part in parts if part.start <= cut.start and cut.end <= part.end)


def cut_clip(cut: Cut, part: Part, path: Path) -> int:
    """Write a clip and return its number of frames.

    Args:
        cut: what of the video.
        part: the part that holds it.
        path: the MP4 file.

    Raises:
        ClipError: no frame lies within the cut, or its box lies outside of the picture.
        VideoError: the part cannot be read.
    """
    span = cut.start - part.offset, cut.end - part.offset
    info = probe(part.path)
    frames = read(part.path, *span, crop_of(cut, info.width, info.height))
    first = next(frames, None)
    if first is None:
        raise ClipError("too_short", f"video {cut.video}", f"ends before {cut.start:g} s, where it begins")
    size = first.image.shape[1], first.image.shape[0]
    note = {"cut_from": cut.video, "start": cut.start, "end": cut.end}
    with Writer(path, part.fps, size, metadata=note, crf=_CRF, preset=_PRESET) as writer:
        writer.write(first.image, 0.0)
        for frame in frames:
            writer.write(frame.image, frame.time - first.time)
    return writer.count

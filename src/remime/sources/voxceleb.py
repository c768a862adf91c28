"""The metadata and the file names of VoxCeleb 1 and 2 (Nagrani et al. 2017, Chung et al. 2018).

Metadata is read in two forms:

- the official trees ``idNNNNN/YOUTUBEID/NNNNN.txt`` (``vox1_dev_txt.zip`` …), one file per utterance: six
  rows of header (``Identity``, ``Reference``, ``Offset``, ``FV Conf``, ``ASD Conf``, an empty one), the row
  ``FRAME X Y W H``, and a row per frame. Frames are counted from 0 at 25 per second. The box is the corner
  and the size of the tracked face, x right and y down: in VoxCeleb 1 in whole pixels of a frame of 360 lines
  (that is how the preprocessing of FOMM and of P1's authors scales them; the files do not say), in VoxCeleb 2
  in fractions of the frame's width and height. The annotation's box is what all boxes of the utterance cover;
- ``vox-metadata.csv`` of FOMM's video preprocessing: ``video_id,start,end,bbox,fps,width,height`` and, in the
  published file, ``partition,person_id``; what that preprocessing writes itself has no person but
  ``YOUTUBEID#idNNNNN`` for a video. ``start`` and ``end`` are frames at ``fps`` (``end`` is not included),
  ``bbox`` is ``left-top-right-bottom`` in pixels of a frame of ``width`` × ``height``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from remime.errors import InputError
from remime.layout import tree_files
from remime.sources import Listing, Problem, download
from remime.sources.annotations import (
    NUMBER,
    YOUTUBE_ID,
    Annotation,
    Name,
    checked_box,
    checked_times,
    number,
    read_lines,
    whole,
)

FPS = 25
VOXCELEB1_LINES = 360
COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height")
LAYOUTS = (
    "idNNNNN/YOUTUBEID/NNNNN.mp4, idNNNNN#YOUTUBEID#START#END.mp4 (FOMM), "
    "idNNNNN/YOUTUBEID/chunk_videos/YOUTUBEID#NNNNN#START-END.mp4"
)
_PERSON, _UTTERANCE, _FRAME = "id[0-9]{5}", "[0-9]{5}", "[0-9]{1,9}"
_TREE = re.compile(rf"(?:.*/)?({_PERSON})/({YOUTUBE_ID})/({_UTTERANCE})")
_CHUNK = re.compile(rf"(?:.*/)?({_PERSON})/({YOUTUBE_ID})/chunk_videos/\2#({_UTTERANCE})#[^/]*")
_FOMM = re.compile(rf"(?:.*/)?({_PERSON})#({YOUTUBE_ID})#({_FRAME})#({_FRAME})")
_ROW = re.compile(r"\s*([0-9]{1,15})" + rf"\s+({NUMBER})" * 4 + r"\s*")


class Row(NamedTuple):
    """A row of an utterance: the frame's number, and the box as it stands there."""

    frame: int
    box: tuple[float, ...]


def identify(path: PurePath) -> Name | None:
    """The clip of a file in one of the ``LAYOUTS``, wherever the tree begins; None for other names.

    The identity is the official person id.
    """
    text = path.with_suffix("").as_posix()
    if found := _TREE.fullmatch(text) or _CHUNK.fullmatch(text):
        return _utterance(*found.groups())
    if found := _FOMM.fullmatch(text):
        person, video, start, end = found.groups()
        return _cut(person, video, int(start), int(end))
    return None


def _utterance(person: str, video: str, utterance: str) -> Name:
    return Name(f"{person}-{video}-{utterance}", video, person)


def _cut(person: str, video: str, start: int, end: int) -> Name:
    return Name(f"{person}-{video}-{start:06d}-{end:06d}", video, person)


def clips(options: Mapping[str, Any], *, lines: int) -> Listing:
    """The clips on a disk, matched with the metadata where there is some, or those to be downloaded.

    Args:
        options: ``mode``, ``path``, ``metadata`` (None, a folder of utterances or a CSV file), ``terms``,
            ``seed``.
        lines: what the boxes of utterances are measured in; see
            :class:`~remime.sources.annotations.Annotation`.

    Raises:
        InputError: see :func:`~remime.sources.download.published`.
    """
    return download.published(options, identify, partial(read_metadata, lines=lines), LAYOUTS, "face")


def read_metadata(path: Path, *, lines: int) -> Iterator[Annotation | Problem]:
    """The annotations of a tree of utterances (a folder) or of ``vox-metadata.csv`` (a file), one at a time.

    Args:
        path: the folder or file.
        lines: what the boxes of utterances are measured in: 360 for VoxCeleb 1, 0 (fractions) for VoxCeleb 2.

    Raises:
        InputError: it is neither a folder nor a file, or a file without the needed columns.
    """
    if path.is_dir():
        return _read_tree(path, lines)
    if path.is_file():
        return _read_csv(path)
    raise InputError(
        f"metadata {path}",
        "is neither a folder nor a file",
        "name the folder of the unpacked txt files, or vox-metadata.csv",
    )


def _read_tree(root: Path, lines: int) -> Iterator[Annotation | Problem]:
    for path in sorted(path for path in tree_files(root) if path.endswith(".txt")):
        if found := _TREE.fullmatch(PurePath(path).with_suffix("").as_posix()):
            yield from read_utterance(Path(path), _utterance(*found.groups()), lines=lines)
        else:
            yield Problem("malformed", path, "is not named idNNNNN/YOUTUBEID/NNNNN.txt")


def read_utterance(path: Path, name: Name, *, lines: int) -> Iterator[Annotation | Problem]:
    """What a file of an utterance says: at most one annotation, and a problem for each malformed row.

    Args:
        path: the file.
        name: what its path tells; the header's identity and reference are not needed.
        lines: what its boxes are measured in: 360 for VoxCeleb 1, 0 (fractions) for VoxCeleb 2.
    """
    rows = []
    try:
        for entry in read_rows(path):
            if isinstance(entry, Row):
                rows.append(entry)
            else:
                yield entry
    except OSError as error:
        yield Problem("malformed", str(path), f"cannot be read ({error.strerror})")
        return
    if not rows:
        yield Problem("malformed", str(path), "has no row of a frame below FRAME X Y W H")
        return
    frames = [row.frame for row in rows]
    start, end = min(frames) / FPS, (max(frames) + 1) / FPS
    yield Annotation(name, name.video, start, end, _cover([row.box for row in rows]), lines)


def read_rows(path: Path) -> Iterator[Row | Problem]:
    """A row or a problem for every line below ``FRAME X Y W H`` that is not blank.

    Raises:
        OSError: the file cannot be read.
    """
    header = True
    for line, text in read_lines(path):
        if header:
            header = text.split()[:1] != ["FRAME"]
        elif not text.isspace():
            try:
                yield _row(text)
            except ValueError as error:
                yield Problem("malformed", f"{path}:{line}", str(error))


def _row(text: str) -> Row:
    # One expression for all five: there are hundreds of rows in each of a million files.
    if not (found := _ROW.fullmatch(text)):
        raise ValueError(f"{text.strip()[:80]!r} is not frame, x, y, width, height in plain numbers")
    frame, x, y, width, height = found.groups()
    return Row(int(frame), checked_box(float(x), float(y), float(width), float(height)))


def _cover(boxes: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """The smallest box around all boxes."""
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return (left, top, right - left, bottom - top)


def _read_csv(path: Path) -> Iterator[Annotation | Problem]:
    rows = read_lines(path)
    columns = [name.strip() for name in next(rows, (0, ""))[1].split(",")]
    if missing := [name for name in COLUMNS if name not in columns]:
        raise InputError(
            f"metadata {path}",
            f"lacks the columns {', '.join(missing)}",
            f"a file with {', '.join(COLUMNS)} and person_id is needed",
        )
    for line, text in rows:
        if not text.strip():
            continue
        try:
            yield _csv_row(columns, [value.strip() for value in text.split(",")])
        except ValueError as error:
            yield Problem("malformed", f"{path}:{line}", str(error))


def _csv_row(columns: Sequence[str], values: Sequence[str]) -> Annotation:
    if len(values) != len(columns):
        raise ValueError(f"{len(values)} values instead of {len(columns)}")
    row = dict(zip(columns, values, strict=True))
    video, _, person = row["video_id"].partition("#")
    person = row.get("person_id") or person
    if not re.fullmatch(YOUTUBE_ID, video):
        raise ValueError(f"video_id {video[:40]!r} is not an id on YouTube")
    if not re.fullmatch(_PERSON, person):
        raise ValueError(f"the person {person[:40]!r} is not idNNNNN")
    first, last, fps = whole(row["start"]), whole(row["end"]), number(row["fps"])
    if fps <= 0:
        raise ValueError(f"fps {fps:g} is not above 0")
    start, end = checked_times(first / fps, last / fps)
    box, lines = _csv_box(row["bbox"]), whole(row["height"])
    if not lines or not whole(row["width"]):
        raise ValueError("width and height are not above 0")
    return Annotation(_cut(person, video, first, last), video, start, end, box, lines)


def _csv_box(text: str) -> tuple[float, ...]:
    sides = [number(side) for side in text.split("-")]
    if len(sides) != 4:
        raise ValueError(f"bbox {text[:40]!r} is not left-top-right-bottom")
    left, top, right, bottom = sides
    return checked_box(left, top, right - left, bottom - top)

"""HDTF: speeches on YouTube in high definition (Zhang et al. 2021), in the groups RD, WDA and WRA.

Metadata is the published folder ``HDTF_dataset``, text files with a name and its values per line, separated
by blanks:

- ``{group}_annotion_time.txt`` (so spelled): ``Radio11.mp4 00:30-01:00 01:30-02:30``, the clips of a video as
  start and end in ``mm:ss`` (``hh:mm:ss`` is read as well). The n-th range, from 0, is ``Radio11_n``;
- ``{group}_video_url.txt``: ``Radio11 https://www.youtube.com/watch?v=…``, here without ``.mp4``;
- ``{group}_resolution.txt``: ``Radio11.mp4 720``, the height of the frame that the crops are measured in; for
  one video it is 0;
- ``{group}_crop_wh.txt``: ``Radio11_0.mp4 412 599 0 599``, the crop as x, width, y, height in pixels, x right
  and y down (the authors call them min_width, width, min_height, height);
- ``{group}_crop_ratio.txt`` (a zoom for another way of cropping) is not read: it tells no place.

Several published clips have no crop. They stay clips, with an empty box, and are reported as ``incomplete``,
as those are whose height or address is missing. No two groups share a name, so names do without the group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qs, urlsplit

from remime.errors import InputError
from remime.sources import Listing, Problem, download
from remime.sources.annotations import (
    YOUTUBE_ID,
    Annotation,
    Name,
    checked_box,
    checked_times,
    number,
    read_lines,
    whole,
)

collector = download.collector
GROUPS = ("RD", "WDA", "WRA")
LAYOUTS = (
    "NAME_N.mp4 (the authors' names, such as Radio11_0.mp4), GROUP_NAME_NNN.mp4 (such as RD_Radio11_000.mp4)"
)
_VIDEO = "[A-Za-z][A-Za-z0-9-]*"
_FILE = re.compile(rf"(?:(?:{'|'.join(GROUPS)})_)?({_VIDEO})_([0-9]{{1,4}})")
_RADIO = re.compile(r"Radio[0-9]*")


@dataclass(frozen=True)
class _Entry:
    """A line of one of the files: where it stands, and its values after the name."""

    where: str
    values: Sequence[str]


def clips(name: str, options: dict[str, Any], table: Path | None) -> Listing:
    """The clips of HDTF.

    Args:
        name: the dataset's name; not used.
        options: ``mode``, ``path``, ``metadata`` (None or the folder ``HDTF_dataset``), ``terms`` and
            ``seed``.
        table: not used.

    Raises:
        InputError: nothing usable is there, or the metadata does not fit.
    """
    return download.published(options, identify, read_metadata, LAYOUTS, "head")


def identify(path: PurePath) -> Name | None:
    """The clip of a file named in one of the ``LAYOUTS``; None for other names, also for uncut videos."""
    found = _FILE.fullmatch(path.stem)
    return _name(found.group(1), int(found.group(2))) if found else None


def _name(video: str, index: int) -> Name:
    return Name(f"{video}_{index}", video, person_of(video))


def person_of(video: str) -> str:
    """Who is seen in a video, as far as its name tells.

    No person ids are published. In WDA and WRA a number at the end counts the videos of one person
    (``AmyKlobuchar0``, ``AmyKlobuchar1``), so it is left out: nobody may be in two splits. The videos of RD
    are called ``Radio1`` … whoever speaks, so each of them is an identity of its own.
    """
    return video if _RADIO.fullmatch(video) else re.sub(r"[0-9]+$", "", video)


def read_metadata(folder: Path) -> Iterator[Annotation | Problem]:
    """The annotations of all groups that a folder has.

    Raises:
        InputError: it is no folder, or has the clip times of no group.
    """
    groups = [group for group in GROUPS if (folder / f"{group}_annotion_time.txt").is_file()]
    if not groups:
        raise InputError(
            f"metadata {folder}",
            "has no RD_, WDA_ or WRA_annotion_time.txt" if folder.is_dir() else "is not a folder",
            "name the folder HDTF_dataset of the published repository",
        )
    return (entry for group in groups for entry in _read_group(folder, group))


def _read_group(folder: Path, group: str) -> Iterator[Annotation | Problem]:
    tables: dict[str, dict[str, _Entry]] = {}
    for kind in ("annotion_time", "video_url", "resolution", "crop_wh"):
        table = tables[kind] = {}
        yield from _read_table(folder / f"{group}_{kind}.txt", table)
    for video, entry in tables["annotion_time"].items():
        youtube, lines = "", 0
        try:
            youtube = _youtube(tables["video_url"].get(video))
        except ValueError as error:
            yield Problem("incomplete", f"{group} {video}", str(error))
        try:
            lines = _lines(tables["resolution"].get(video))
        except ValueError as error:
            yield Problem("incomplete", f"{group} {video}", str(error))
        yield from _read_clips(video, entry, youtube, lines, tables["crop_wh"])


def _read_table(path: Path, table: dict[str, _Entry]) -> Iterator[Problem]:
    """Fill a table by name, without ``.mp4``; yields what is wrong with lines."""
    try:
        for line, text in read_lines(path):
            name, *values = text.split() or [""]
            name = name.removesuffix(".mp4")
            if not name:
                continue
            if not re.fullmatch(rf"{_VIDEO}(_[0-9]+)?", name) or not values:
                yield Problem(
                    "malformed", f"{path}:{line}", f"{text.strip()[:80]!r} is not a name with values"
                )
            elif name in table:
                yield Problem("repeated", f"{path}:{line}", f"{name} stands at {table[name].where} already")
            else:
                table[name] = _Entry(f"{path}:{line}", values)
    except OSError as error:
        yield Problem("malformed", str(path), f"cannot be read ({error.strerror})")


def _read_clips(
    video: str, entry: _Entry, youtube: str, lines: int, crops: Mapping[str, _Entry]
) -> Iterator[Annotation | Problem]:
    for index, text in enumerate(entry.values):
        name = _name(video, index)
        try:
            start, end = _times(text)
        except ValueError as error:
            yield Problem("malformed", entry.where, f"clip {index}: {error}")
            continue
        box: tuple[float, ...] = ()
        try:
            box = _crop(crops.get(name.clip)) if lines else ()
        except ValueError as error:
            yield Problem("incomplete", name.clip, str(error))
        yield Annotation(name, youtube, start, end, box, lines if box else 0)


def _times(text: str) -> tuple[float, float]:
    start, dash, end = text.partition("-")
    if not dash:
        raise ValueError(f"{text[:40]!r} is not mm:ss-mm:ss")
    return checked_times(_seconds(start), _seconds(end))


def _seconds(text: str) -> float:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3:
        raise ValueError(f"{text[:40]!r} is not mm:ss")
    return sum(number(part) * 60**power for power, part in enumerate(reversed(parts)))


def _youtube(entry: _Entry | None) -> str:
    """The id of an address such as ``https://www.youtube.com/watch?v=ID&t=6s`` or ``https://youtu.be/ID``."""
    if entry is None:
        raise ValueError("has no address")
    parts = urlsplit(entry.values[0])
    found = parse_qs(parts.query).get("v", [parts.path.rpartition("/")[2]])[0]
    if not re.fullmatch(YOUTUBE_ID, found):
        raise ValueError(f"{entry.values[0][:80]!r} is not a video on YouTube")
    return found


def _lines(entry: _Entry | None) -> int:
    if entry is None:
        raise ValueError("has no resolution, so its crops are not used")
    if not (lines := whole(entry.values[0])):
        raise ValueError("has the resolution 0, so its crops are not used")
    return lines


def _crop(entry: _Entry | None) -> tuple[float, ...]:
    if entry is None:
        raise ValueError("has no crop")
    if len(entry.values) != 4:
        raise ValueError(f"{len(entry.values)} values instead of x, width, y, height")
    x, width, y, height = map(number, entry.values)
    return checked_box(x, y, width, height)

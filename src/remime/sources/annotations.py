"""What the published datasets have in common: annotations of clips, and files that are already on a disk.

The metadata of a published dataset is a stream of :class:`Annotation` and :class:`~remime.sources.Problem`:
its parser never fails because of what stands in a line or an entry, and it holds one of them at a time, so
that a million clips cost no more memory than their manifest. An annotation has all that a download needs: the
id on YouTube, the time range and the box.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from remime.errors import InputError
from remime.layout import file_stamp, tree_files
from remime.shards import split_of
from remime.sources import VIDEO_SUFFIXES, Clip, Listing, Problem
from remime.sources.folder import is_text

YOUTUBE_ID = "[A-Za-z0-9_-]{11}"
# A plain decimal number; what else ``float`` takes (``nan``, ``1e3``, ``1_0``) stands in no published file.
NUMBER = r"[+-]?[0-9]{1,15}(?:\.[0-9]{0,15})?"


@dataclass(frozen=True, slots=True)
class Name:
    """What the name of a file tells about its clip.

    Args:
        clip: unique in the dataset and safe as a file name; equal to the clip of its annotation.
        video: what the clip was cut from; clips of one video share a shard.
        identity: who is seen, as far as the dataset says.
    """

    clip: str
    video: str
    identity: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """One clip as a dataset's metadata describes it.

    Args:
        name: the clip, its video and its identity.
        youtube: the id of the video on YouTube; empty when the metadata does not tell.
        start, end: seconds in the video; the frame at ``end`` is no longer part of the clip.
        box: x and y of the corner, width, height (x right, y down); empty when the metadata has none.
        lines: the height in pixels of the frame that the box is measured in, or 0 when x and width are
            fractions of the frame's width, y and height of its height.
    """

    name: Name
    youtube: str
    start: float
    end: float
    box: tuple[float, ...] = field(default=())
    lines: int = 0


def number(text: str) -> float:
    """A plain decimal number; ValueError for all else."""
    if not re.fullmatch(NUMBER, text):
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(text)


def whole(text: str) -> int:
    """A whole number of at least 0; ValueError for all else."""
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(text)


def checked_box(x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    """The four numbers as a box; ValueError when it is not finite or encloses nothing."""
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        raise ValueError(f"the box x {x:g}, y {y:g}, width {width:g}, height {height:g} encloses nothing")
    return (x, y, width, height)


def checked_times(start: float, end: float) -> tuple[float, float]:
    """The two times in seconds; ValueError when they are not finite or enclose nothing."""
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise ValueError(f"the times {start:g} s and {end:g} s enclose nothing")
    return start, end


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1; bytes that are no UTF-8 are replaced.

    Lines end with LF, CRLF or CR, and lines of more than a million characters are cut, so that a binary file
    does no harm.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as handle:
        count = 0
        while line := handle.readline(1_000_000):
            count += 1
            yield count, line


def local_clips(
    options: Mapping[str, Any],
    identify: Callable[[PurePath], Name | None],
    read_metadata: Callable[[Path], Iterable[Annotation | Problem]],
    layouts: str,
) -> Listing:
    """The clips of a published dataset whose files are on a disk, read in place.

    Files are cut clips already: no times and no boxes are applied to them. Where there is metadata, a clip
    has to be in it, which makes a published list of clips a choice of files; the metadata's identity counts.

    Args:
        options: ``path`` (the folder), ``metadata`` (where it lies; None takes every file), ``terms`` and
            ``seed``.
        identify: a file's path to what it tells; None when it is not one of the dataset's.
        read_metadata: the metadata's annotations.
        layouts: what names of files are known, for messages.

    Raises:
        InputError: the folder is none, has no such file, the metadata has no clip, or none of both fits.
    """
    where = options.get("metadata")
    # What cannot be metadata is said before a large folder is looked through.
    annotations = None if where is None else read_metadata(Path(where))
    found, problems = _find(Path(options["path"]), identify, options, layouts)
    if annotations is None:
        return Listing(found.values(), problems)
    clips, listed = _match(found, annotations, options.get("seed") or 0, problems)
    if not listed:
        first = next((f"{p.where}: {p.what}" for p in problems if p.kind == "malformed"), "it is empty")
        raise InputError(f"metadata {where}", f"no clip can be read from it ({first})", "name another one")
    if not clips:
        raise InputError(
            options["path"],
            f"none of its {len(found)} clips is among the {listed} of {where}; for instance {min(found)}",
            "name the metadata that belongs to these files, or set metadata to null",
        )
    return Listing(clips, problems)


def _find(
    root: Path, identify: Callable[[PurePath], Name | None], options: Mapping[str, Any], layouts: str
) -> tuple[dict[str, Clip], list[Problem]]:
    """The clips of a folder by name."""
    if not root.is_dir():
        raise InputError(root, "is not a folder", f"name the folder with {layouts}")
    found: dict[str, Clip] = {}
    problems, others = list[Problem](), Counter[str]()
    for path in sorted(tree_files(root)):
        relative = PurePath(os.path.relpath(path, root))
        if any(part.startswith(".") for part in relative.parts):
            continue
        if relative.suffix.lower() not in VIDEO_SUFFIXES:
            others[relative.suffix.lower() or "no suffix"] += 1
        elif (name := identify(PurePath(path))) is None or not is_text(path):
            problems.append(Problem("unknown_name", path, f"is none of {layouts}"))
        elif name.clip in found:
            problems.append(Problem("repeated", path, f"is the clip of {found[name.clip].path}"))
        else:
            found[name.clip] = _clip(path, name, options)
    if not found:
        seen = ", ".join(f"{n} × {suffix}" for suffix, n in others.most_common(5))
        seen = "; ".join(p for p in (seen, f"other videos: {len(problems)}" if problems else "") if p)
        raise InputError(root, f"no clip is in it (found: {seen or 'nothing'})", f"known: {layouts}")
    return found, problems


def _clip(path: str, name: Name, options: Mapping[str, Any]) -> Clip:
    return Clip(
        clip=name.clip,
        video=name.video,
        identity=name.identity,
        split=split_of(name.identity, options.get("seed") or 0),
        kind="video",
        path=path,
        terms=options.get("terms", "not stated"),
        stamp=file_stamp(Path(path).stat()),
    )


def _match(
    found: Mapping[str, Clip], annotations: Iterable[Annotation | Problem], seed: int, problems: list[Problem]
) -> tuple[list[Clip], int]:
    """The clips that have a file and an annotation, and how many annotations there are; adds problems."""
    clips: dict[str, Clip] = {}
    listed = 0
    for entry in annotations:
        if isinstance(entry, Problem):
            problems.append(entry)
            continue
        listed += 1
        name = entry.name
        if name.clip in clips:
            problems.append(Problem("repeated", name.clip, "is annotated more than once; the first counts"))
        elif (clip := found.get(name.clip)) is None:
            problems.append(Problem("no_file", name.clip, "is in the metadata, but no such file is there"))
        else:
            split = split_of(name.identity, seed)
            clips[name.clip] = replace(clip, video=name.video, identity=name.identity, split=split)
    for key, clip in found.items():
        if key not in clips:
            problems.append(Problem("no_metadata", clip.path, "is not in the metadata"))
    return list(clips.values()), listed

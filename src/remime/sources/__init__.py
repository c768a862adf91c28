"""Where clips come from: one module per source, each of them a :class:`Source`.

A source lists its clips for the manifest. Files that are on a disk are read where they lie; what has to be
rendered or downloaded first is written by the stage ``collect`` into one tar file per shard.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from remime.errors import InputError
from remime.files import write_text

KINDS = ("video", "image", "render", "download")
VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".flv",
    ".wmv",
    ".3gp",
    ".ogv",
    ".gif",
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of a dataset; the columns of the manifest, and of a shard's ``clips.tsv``.

    Args:
        clip: unique in the dataset and safe as a file name.
        video: what it is cut from; clips of one video share a shard.
        identity: who is seen.
        split: ``train``, ``val`` or ``test``.
        kind: ``video``, ``image``, ``render`` or ``download``.
        path: where the bytes lie, relative to the working directory; a render's or a download's JSON
            description.
        start, end: seconds in the video, or None for its beginning and end.
        box: crop x, y, width, height in pixels (x right, y down), or empty.
        terms: under which terms it may be used.
        stamp: changes when the file does, so that its shard runs again.
    """

    clip: str
    video: str
    identity: str
    split: str
    kind: str
    path: str
    start: float | None = None
    end: float | None = None
    box: tuple[float, ...] = field(default=())
    terms: str = ""
    stamp: str = ""

    def row(self) -> dict[str, Any]:
        """The clip as a row of the table ``manifest``."""
        return {**asdict(self), "box": list(self.box)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Clip:
        """The clip of a row of the table ``manifest``."""
        return cls(**{**row, "box": tuple(row["box"] or ())})


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a dataset's metadata or among its files that could not be used.

    Args:
        kind: ``malformed`` (a line or entry that cannot be read), ``incomplete`` (an entry that is used
            although something is missing), ``no_address`` (an entry that cannot be downloaded), ``no_file``
            (metadata without a file), ``no_metadata`` (a file without metadata), ``unknown_name`` (a video
            whose name is none of the dataset's) or ``repeated``.
        where: the file, with its line or entry.
        what: what is wrong, with the value that was found.
    """

    kind: str
    where: str
    what: str


class Listing(list[Clip]):
    """The clips of a dataset, and what could not be used of its metadata and files.

    Args:
        clips: the clips.
        problems: one for each line, entry or file at fault, in the order in which they were met.
    """

    def __init__(self, clips: Iterable[Clip] = (), problems: Iterable[Problem] = ()) -> None:
        super().__init__(clips)
        self.problems = list(problems)


class ClipError(InputError):
    """Why a clip cannot be had.

    Args:
        status: its status, one of ``remime.tables.STATUSES``.
        what: the clip or its video.
        problem: what is wrong with it.

    Attributes:
        temporary: whether it may be had another time.
    """

    temporary = False

    def __init__(self, status: str, what: str, problem: str) -> None:
        super().__init__(what, problem)
        self.status = status


# Writes a clip's files into a folder, first the video; InputError says why there are none. A JSON object in
# {clip}.json tells of the picture that it was cut from: ``lines``, and its ``seconds``.
Make = Callable[[Clip, Path], Sequence[Path]]


class Collector(Protocol):
    """Makes the clips of a source that have to be rendered or downloaded."""

    @property
    def options(self) -> Mapping[str, Any]:
        """All of the source's options on which the files' bytes depend."""

    def video(self, clips: Sequence[Clip], state: Path) -> AbstractContextManager[Make]:
        """What makes the clips of one video.

        Args:
            clips: all of them, in this shard.
            state: a folder for what is unfinished; it survives the end of a job.
        """


@dataclass(frozen=True)
class Single:
    """A collector whose clips have nothing in common."""

    options: Mapping[str, Any]
    make: Make

    def video(self, clips: Sequence[Clip], state: Path) -> AbstractContextManager[Make]:
        return nullcontext(self.make)


class Source(Protocol):
    """What a module of this package offers."""

    def clips(self, name: str, options: dict[str, Any], table: Path | None) -> list[Clip]:
        """All clips of the dataset ``name``, a :class:`Listing` where some may be unusable.

        Raises:
            InputError: there are none.
        """

    def collector(self, options: dict[str, Any], transport: dict[str, Any]) -> Collector | None:
        """What makes the clips, or None where their files are read in place.

        Args:
            options: of the configuration.
            transport: how downloads are done; no byte depends on it.
        """


def load_source(name: str) -> Source:
    """The module of a source by its name in the configuration."""
    try:
        return cast(Source, importlib.import_module(f"{__name__}.{name}"))
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise InputError("source", f"there is no source {name!r}", "see docs/configuration.md") from None


# Without what no clip's frames depend on: a new split or a new word in the terms recomputes no shard.
_FIELDS = [name for name in Clip.__dataclass_fields__ if name not in ("split", "terms")]


def write_clips(path: str | Path, clips: Iterable[Clip]) -> None:
    """Write a shard's ``clips.tsv``, without split and terms; the same clips always give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, dialect="excel-tab", lineterminator="\n")
    writer.writerow(_FIELDS)
    for clip in clips:
        values = asdict(clip) | {"box": json.dumps(clip.box) if clip.box else ""}
        writer.writerow(["" if values[name] is None else values[name] for name in _FIELDS])
    write_text(path, text.getvalue())


def read_clips(path: str | Path) -> list[Clip]:
    """Read a shard's ``clips.tsv``; split and terms are empty, the manifest has them.

    Raises:
        InputError: it is missing, or not such a file.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle, dialect="excel-tab")
            if reader.fieldnames != _FIELDS:
                raise InputError(path, f"has the columns {reader.fieldnames}", "run the stage split again")
            return [_clip(row) for row in reader]
    except (FileNotFoundError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(path, f"is not a list of clips ({error})", "run the stage split again") from None


def _clip(row: dict[str, str]) -> Clip:
    times = {name: float(row[name]) if row[name] else None for name in ("start", "end")}
    box = tuple(json.loads(row["box"])) if row["box"] else ()
    return Clip(**{**row, **times, "box": box, "split": ""})  # type: ignore[arg-type]


def member_of(tar: tarfile.TarFile, clip: str) -> tarfile.TarInfo | None:
    """The member that holds a collected clip's video or image, or None when it was not collected.

    Only plain files at the top of the archive count.
    """
    for member in tar.getmembers():
        name = PurePosixPath(member.name)
        known = name.suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES
        if member.isfile() and known and name.stem == clip and name.parent == PurePosixPath("."):
            return member
    return None

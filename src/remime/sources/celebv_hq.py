"""CelebV-HQ: celebrities in videos of YouTube (Zhu et al. 2022).

Metadata is the published ``celebvhq_info.json``. Of it is read::

    {"clips": {"M2Ohb0FAaJU_1": {"ytb_id": "M2Ohb0FAaJU",
                                 "duration": {"start_sec": 81.62, "end_sec": 86.17},
                                 "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922}}}}

Times are in seconds of the video; the sides of the box are fractions of the frame's height (top, bottom) and
width (left, right), x right and y down. The authors' script adds 0.02 on each side and makes it square.
Attributes are not read.

No person ids are published (the 15,653 identities were only counted). The identity is the video on YouTube:
the clips of one video stay in one split, but a person of several videos can be in several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TextIO

from remime.errors import InputError
from remime.sources import Listing, Problem, download
from remime.sources.annotations import YOUTUBE_ID, Annotation, Name, checked_box, checked_times

collector = download.collector
LAYOUTS = "YOUTUBEID_N.mp4 (such as M2Ohb0FAaJU_1.mp4)"
_CLIP = re.compile(rf"({YOUTUBE_ID})(?:_[0-9]+)+")
_SPACE = re.compile(r"[ \t\n\r]*")
_PIECE = 1 << 20


def clips(name: str, options: dict[str, Any], table: Path | None) -> Listing:
    """The clips of CelebV-HQ, one identity per video of YouTube.

    Args:
        name: the dataset's name; not used.
        options: ``mode``, ``path``, ``metadata`` (None or the JSON file), ``terms`` and ``seed``.
        table: not used.

    Raises:
        InputError: nothing usable is there, or the metadata does not fit.
    """
    return download.published(options, identify, read_metadata, LAYOUTS, "head")


def identify(path: PurePath) -> Name | None:
    """The clip of a file named ``YOUTUBEID_N``; None for other names."""
    found = _CLIP.fullmatch(path.stem)
    return Name(path.stem, found.group(1), found.group(1)) if found else None


def read_metadata(path: Path) -> Iterator[Annotation | Problem]:
    """The annotations of the JSON file, one at a time: it is never held as a whole.

    Where the text is no longer JSON, one problem says so and the rest of the file is lost.

    Raises:
        InputError: it is not a file.
    """
    if not path.is_file():
        raise InputError(f"metadata {path}", "is not a file", "name celebvhq_info.json")
    return _read_file(path)


def _read_file(path: Path) -> Iterator[Annotation | Problem]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as handle:
            json_text = _Json(handle)
            try:
                for key, value in _entries(json_text):
                    yield read_entry(f"{path}: {key[:80]}", key, value)
            except (ValueError, RecursionError) as error:
                what = f"is not the expected JSON ({error}); what follows is lost"
                yield Problem("malformed", f"{path}:{json_text.line}", what)
    except OSError as error:
        yield Problem("malformed", str(path), f"cannot be read ({error.strerror})")


def _entries(text: _Json) -> Iterator[tuple[str, Any]]:
    """The entries of ``clips``; what stands beside it is skipped."""
    found = False
    for key in text.members():
        if key == "clips":
            found = True
            for clip in text.members():
                yield clip, text.value()
        else:
            text.value()
    if not found:
        raise ValueError("it has no clips")


def read_entry(where: str, key: str, value: Any) -> Annotation | Problem:
    """One entry of ``clips``, or what is wrong with it.

    Args:
        where: what a problem calls it.
        key: the clip's name.
        value: what stands below it, any JSON value.
    """
    try:
        if not _CLIP.fullmatch(key):
            raise ValueError("its name is not YOUTUBEID_N")
        youtube = _part(value, "ytb_id")
        if not isinstance(youtube, str) or not re.fullmatch(YOUTUBE_ID, youtube):
            raise ValueError(f"ytb_id {str(youtube)[:40]!r} is not an id on YouTube")
        duration, bbox = _part(value, "duration"), _part(value, "bbox")
        start, end = checked_times(_number(duration, "start_sec"), _number(duration, "end_sec"))
        return Annotation(Name(key, youtube, youtube), youtube, start, end, _box(bbox), lines=0)
    except ValueError as error:
        return Problem("malformed", where, str(error))


def _box(sides: Any) -> tuple[float, ...]:
    top, bottom, left, right = (_number(sides, side) for side in ("top", "bottom", "left", "right"))
    if not all(0 <= side <= 1 for side in (top, bottom, left, right)):
        raise ValueError(f"bbox {top:g}, {bottom:g}, {left:g}, {right:g} is not within 0 and 1")
    return checked_box(left, top, right - left, bottom - top)


def _part(value: Any, key: str) -> Any:
    if not isinstance(value, Mapping) or key not in value:
        raise ValueError(f"it has no {key}")
    return value[key]


def _number(value: Any, key: str) -> float:
    found = _part(value, key)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{key} {str(found)[:40]!r} is not a number")
    try:
        return float(found)
    except OverflowError:
        raise ValueError(f"{key} is too large") from None


class _Json:
    """Reads a JSON text from its beginning, holding one value of it at a time.

    ``members`` steps into an object; its reader takes each member's ``value`` or steps into it. Everything
    raises ValueError where the text is not JSON.
    """

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle
        self._buffer, self._position = "", 0
        self._decoder = json.JSONDecoder()
        self.line = 1

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here."""
        self._expect("{")
        if self._peek() == "}":
            self._expect("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"{str(key)[:40]!r} is not a key")
            self._expect(":")
            yield key
            if self._peek() != ",":
                break
            self._expect(",")
        self._expect("}")

    def value(self) -> Any:
        """The whole value that begins here."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
                # A number at the end of the buffer might go on.
                if end < len(self._buffer) or not self._more():
                    self._advance(end)
                    return value
            except json.JSONDecodeError as error:
                # Cut off at the end of the buffer, or wrong in its midst.
                if len(self._buffer) - error.pos > _PIECE or not self._more():
                    raise ValueError(error.msg) from None

    def _expect(self, sign: str) -> None:
        if (found := self._peek()) != sign:
            raise ValueError(f"{found or 'its end'!r} instead of {sign!r}")
        self._advance(self._position + 1)

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._position)
            assert space is not None
            self._advance(space.end())
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def _advance(self, position: int) -> None:
        self.line += self._buffer.count("\n", self._position, position)
        self._position = position

    def _more(self) -> bool:
        """Read on, at least as much as is held; False at the end of the text."""
        kept = self._buffer[self._position :]
        piece = self._handle.read(max(_PIECE, len(kept)))
        self._buffer, self._position = kept + piece, 0
        return bool(piece)

"""Parts of a video, copied without decoding: all packets from the key frame before a range to its end.

A part is a small file of its own, in which the frames are as far apart as in the video; where it begins there
is noted beside it. So clips can be cut from it at exact times, see :mod:`remime.sources.cutting`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import IO, cast

import av

from remime.files import atomic, write_text
from remime.video import DEFAULT_FPS, OPEN_OPTIONS, VideoError

Range = tuple[float, float]
# Key frames are about five seconds apart; ranges that are closer would have the same packets twice.
_GAP = 5.0
_NOTE = "parts.json"
_MP4 = frozenset({"h264", "hevc", "vp9", "av1", "libdav1d", "libvpx-vp9", "libaom-av1", "mpeg4"})


@dataclass(frozen=True)
class Part:
    """A part of a video.

    Args:
        path: a file with the pictures alone.
        start, end: seconds of the video that it was copied for.
        offset: where in the video its first frame is, in seconds since the video's first frame.
        fps: frames per second of the whole video; of a variable rate the average.
        width, height: of the stored picture, in pixels.
        finished: whether the video is over before ``end``.
    """

    path: Path
    start: float
    end: float
    offset: float
    fps: float
    width: int
    height: int
    finished: bool


def merged(ranges: Sequence[Range]) -> list[Range]:
    """Ranges in order and apart from each other that cover all of the given ones."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start - found[-1][1] < _GAP:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def note_parts(folder: Path, parts: Sequence[Part]) -> None:
    """Note in their folder that all parts are complete."""
    write_text(folder / _NOTE, json.dumps([{**asdict(part), "path": part.path.name} for part in parts]))


def load_parts(folder: Path, ranges: Sequence[Range]) -> list[Part] | None:
    """The parts of these ranges that are noted in a folder, or None when they are not all there."""
    try:
        noted = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        parts = [Part(**{**row, "path": folder / row["path"]}) for row in noted]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    there = [(part.start, part.end) for part in parts] == [tuple(r) for r in ranges]
    return parts if there and all(part.path.is_file() for part in parts) else None


def copy_parts(
    file: IO[bytes] | io.RawIOBase,
    ranges: Sequence[Range],
    folder: Path,
    check: Callable[[int], None] = lambda lines: None,
) -> list[Part]:
    """Copy the ranges of a video into files of a folder.

    Args:
        file: the video, readable and seekable; little more than the ranges is read.
        ranges: seconds from and to, see :func:`merged`.
        folder: where the parts are written.
        check: is told the picture's height before anything is copied; it may raise.

    Raises:
        VideoError: it is no video, or nothing in it can be copied.
    """
    try:
        with av.open(file, options=dict(OPEN_OPTIONS), metadata_errors="replace") as opened:
            source = cast(av.container.InputContainer, opened)
            stream = _pictures(source)
            check(stream.height)
            parts = [_copy(source, stream, each, folder / f"part-{i}") for i, each in enumerate(ranges)]
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError("the video", f"cannot be read ({error})") from error
    return parts


def _pictures(source: av.container.InputContainer) -> av.VideoStream:
    covers = av.stream.Disposition.attached_pic
    for stream in source.streams.video:
        if not stream.disposition & covers:
            return stream
    raise VideoError("the video", "holds no pictures")


def _copy(source: av.container.InputContainer, stream: av.VideoStream, wanted: Range, stem: Path) -> Part:
    base = stream.time_base
    assert base is not None
    first = stream.start_time or 0
    begin, stop = (int(seconds / base) + first for seconds in wanted)
    packets = _from_key(source, stream, begin)
    key = next(packets, None)
    if key is None or key.pts is None:
        raise VideoError("the video", "holds no pictures")
    container, suffix = ("mp4", ".mp4") if stream.codec_context.name in _MP4 else ("matroska", ".mkv")
    path = stem.with_suffix(suffix)
    shown = key.pts
    last, finished, origin = shown, True, None
    with atomic(path) as temporary, av.open(str(temporary), "w", format=container) as target:
        copy = target.add_stream_from_template(stream)
        copy.time_base = base
        for packet, decoded in _decoding(chain((key,), packets)):
            assert packet.pts is not None
            origin = decoded if origin is None else origin
            # Packets come in the order of decoding; what is decoded after the end is shown after it.
            if decoded > stop:
                finished = False
                break
            last = max(last, packet.pts + (packet.duration or 0))
            # What an open group shows before its key frame needs frames that are not there.
            if packet.pts >= shown:
                packet.dts, packet.pts = decoded - origin, packet.pts - origin
                packet.stream = copy
                target.mux(packet)
    return Part(
        path=path,
        start=wanted[0],
        end=wanted[1],
        offset=float((shown - first) * base),
        fps=float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS),
        width=stream.width,
        height=stream.height,
        finished=finished and last < stop,
    )


def _decoding(packets: Iterable[av.Packet]) -> Iterator[tuple[av.Packet, int]]:
    """Packets, each with the moment at which it is decoded.

    Behind a search some containers do not tell it of the first few; any before the first known one will do.
    """
    waiting: list[av.Packet] = []
    known = False
    for packet in packets:
        if packet.dts is None and not known:
            waiting.append(packet)
            continue
        if not known:
            known = True
            assert packet.dts is not None
            yield from ((each, packet.dts - len(waiting) + i) for i, each in enumerate(waiting))
        yield packet, packet.pts if packet.dts is None else packet.dts  # type: ignore[misc]
    if not known:
        yield from ((each, each.pts) for each in waiting)  # type: ignore[misc]


def _from_key(source: av.container.InputContainer, stream: av.VideoStream, begin: int) -> Iterator[av.Packet]:
    """The packets from the last key frame before a moment, or from the first one where there is none."""
    # Some containers cannot be searched; they are read from their beginning.
    for target in (begin, 0):
        with suppress(av.error.FFmpegError):
            source.seek(target, stream=stream)
        packets = (p for p in source.demux(stream) if p.size and p.pts is not None)
        key = next((packet for packet in packets if packet.is_keyframe), None)
        if key is not None and (cast(int, key.pts) <= begin or not target):
            yield key
            yield from packets
            return

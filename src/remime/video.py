"""Frames out of video and image files, and H.264 files out of frames, in a stream.

Conventions: images are RGB uint8 ``[H, W, 3]``, x right, y down. Time is in seconds since the first
frame of the file, taken from the presentation timestamps. Rotation flags, EXIF orientation and
non-square pixels are applied, so sizes are always those of the upright picture with square pixels.
Transparency is composited on black. 10-bit and grey pictures become 8-bit RGB; HDR is not tone-mapped.

Files are hostile: only local files are opened, and only container formats that cannot point to others.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import cv2
import ffmpeg
import imageio_ffmpeg
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from remime.errors import InputError, RemimeError
from remime.files import atomic

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".ogv"}
    | {".3gp", ".gif"}
)
DEFAULT_FPS = 25.0

# No playlists and no concatenations: those name further files to read.
_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,h264,hevc,m4v,ivf,mjpeg,yuv4mpegpipe"
# How whatever comes from others is opened.
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
_COPIED_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
# The default conversion is 1.3 levels too dark on average, and more with every generation of a video.
_EXACT_COLOURS = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# For x264, where one shot is shown in one light: no search for cuts, fades and bursts of motion, and motion
# to whole pixels. A quarter less time than without, smaller and nearer to the frames (docs/benchmarks.md).
NO_CUTS = "weightp=0:b-adapt=0:scenecut=0:subme=0"
# What a written file says of its colours.
_COLOURS = {
    "range": "tv",
    "colorspace": "bt709",
    "color_primaries": "bt709",
    "color_trc": "bt709",
    "chroma_location": "center",
}
_TIME_TOLERANCE = 1e-6
_MAX_SIDE = 16384


class VideoError(InputError):
    """A file that holds no picture that can be read; ``status`` is its row in the status table."""

    status = "unreadable"


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about itself.

    Attributes:
        path: the file.
        width: pixels of the upright picture with square pixels.
        height: the same.
        fps: nominal frames per second; of a variable rate the average.
        frames: how many frames there are, where the file tells.
        duration: seconds, where the file tells.
        rotation: degrees counter-clockwise by which stored pictures are turned to be upright.
        has_audio: whether there is a sound track.
        audio_codec: its codec, or an empty string.
        is_image: a still, which is a video of one frame.
        codec: the codec of the pictures.
        start: seconds from the file's own beginning (the first sound or picture) to the first frame.
        metadata: the file's tags.
    """

    path: Path
    width: int
    height: int
    fps: float
    frames: int | None
    duration: float | None
    rotation: int = 0
    has_audio: bool = False
    audio_codec: str = ""
    is_image: bool = False
    codec: str = ""
    start: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> int | None:
        """How many frames there should be, as far as the file tells."""
        if self.frames is None and self.duration is not None:
            return round(self.duration * self.fps)
        return self.frames


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        index: position in the stream that was asked for, from 0.
        time: seconds since the first frame of the file, strictly increasing.
        image: ``[H, W, 3]`` uint8 RGB, contiguous and its own memory.
    """

    index: int
    time: float
    image: NDArray[np.uint8]


def is_image(path: str | Path) -> bool:
    """Whether a file is taken for a still, by its name."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _url(path: Path) -> str:
    """The name with its protocol, so that ``http:x.mp4`` is a file and nothing else."""
    return f"file:{path}"


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise VideoError(path, "is not a file", "name a video or an image that exists")
    if path.stat().st_size == 0:
        raise VideoError(path, "is empty (0 bytes)", "fetch or copy it again")
    return path


def _threads() -> int:
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class _Source:
    """An opened video file with the stream of its pictures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.container = av.open(_url(path), options=dict(OPEN_OPTIONS), metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(path, f"cannot be opened as a video ({_reason(error)})", _FIX) from error
        covers = [
            s for s in self.container.streams.video if s.disposition & av.stream.Disposition.attached_pic
        ]
        streams = [s for s in self.container.streams.video if s not in covers]
        if not streams:
            kind = "only sound" if self.container.streams.audio else "no pictures"
            self.container.close()
            raise VideoError(path, f"holds {kind}, no video stream", _FIX)
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        self.stream.codec_context.thread_count = _threads()
        self.time_base = self.stream.time_base or Fraction(1, 90000)
        self.first_pts = self.stream.start_time or 0

    def fps(self) -> float:
        for rate in (self.stream.average_rate, self.stream.guessed_rate, self.stream.base_rate):
            if rate is not None and 0 < rate <= 1000:
                return float(rate)
        return DEFAULT_FPS

    def duration(self) -> float | None:
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        return self.container.duration / av.time_base if self.container.duration else None

    def aspect(self) -> float:
        """Width of a pixel over its height."""
        ratio = self.stream.sample_aspect_ratio
        return float(ratio) if ratio and 0.1 < ratio < 10 else 1.0

    def close(self) -> None:
        self.container.close()


_FIX = "a video that ffmpeg can decode, or a png, jpg, webp, bmp or tiff image, is needed"


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text or type(error).__name__


def _upright_size(frame: av.VideoFrame, aspect: float) -> tuple[int, int]:
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """How often a stored picture is turned by 90° counter-clockwise to be upright."""
    return round(frame.rotation / 90) % 4


def _composite(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a picture with straight alpha on black."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _rgb(frame: av.VideoFrame, aspect: float, converter: VideoReformatter) -> NDArray[np.uint8]:
    """The upright RGB picture of a decoded frame, in memory of its own."""
    has_alpha = any(component.is_alpha for component in frame.format.components)
    kind = "rgba" if has_alpha else "rgb24"
    converted = converter.reformat(frame, format=kind, interpolation=_EXACT_COLOURS, threads=1)
    image = np.asarray(converted.to_ndarray(), np.uint8)
    if has_alpha:
        image = _composite(image)
    if aspect != 1.0:
        size = max(1, round(frame.width * aspect)), frame.height
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    image = np.rot90(image, _quarter_turns(frame))
    # A view into the decoder's buffer made dlib's detector answer differently for identical pixels.
    return np.array(image, dtype=np.uint8, order="C", copy=True)


def _crop(image: NDArray[np.uint8], box: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    if box is None:
        return image
    x, y, w, h = box
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
    if x1 <= x0 or y1 <= y0:
        raise InputError(
            "box",
            f"[{x}, {y}, {w}, {h}] lies outside of the {width}×{height} picture",
            "give x, y, w, h in pixels",
        )
    return np.ascontiguousarray(image[y0:y1, x0:x1])


def _shrink(image: NDArray[np.uint8], max_size: int | None) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if max_size is None or max(height, width) <= max_size:
        return image
    scale = max_size / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        with (
            warnings.catch_warnings(),
            Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP", "TIFF")) as file,
        ):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if max(file.size) > _MAX_SIDE:
                raise VideoError(path, f"is {file.width}×{file.height} pixels", f"at most {_MAX_SIDE} a side")
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16") or image.mode == "I":
                # Pillow's own conversion clips 16-bit grey at 255.
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
                return _composite(np.asarray(image.convert("RGBA")))
            return np.array(image.convert("RGB"), dtype=np.uint8, order="C")
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombWarning,
    ) as error:
        raise VideoError(path, f"cannot be read as an image ({_reason(error)})", _FIX) from error


def probe(path: str | Path) -> VideoInfo:
    """What a video or image file holds; the first picture is decoded, so that it is known to be readable.

    Raises:
        VideoError: no file, empty, not a video, only sound, or no picture can be decoded.
    """
    path = _existing(path)
    if is_image(path):
        image = _read_image(path)
        return VideoInfo(
            path,
            image.shape[1],
            image.shape[0],
            DEFAULT_FPS,
            1,
            1 / DEFAULT_FPS,
            is_image=True,
            codec="image",
        )
    with closing(_Source(path)) as source:
        frame = _first_frame(source)
        audio = source.container.streams.audio
        width, height = _upright_size(frame, source.aspect())
        begin = (source.container.start_time or 0) / av.time_base
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            fps=source.fps(),
            frames=source.stream.frames or None,
            duration=source.duration(),
            rotation=90 * _quarter_turns(frame),
            has_audio=bool(audio),
            audio_codec=audio[0].codec_context.name if audio else "",
            codec=source.stream.codec_context.name,
            start=max(0.0, float(source.first_pts * source.time_base) - begin),
            metadata=dict(source.container.metadata),
        )


def _first_frame(source: _Source) -> av.VideoFrame:
    for decoded, _ in _decode(source):
        if decoded is not None:
            return decoded
    raise VideoError(source.path, "no picture in it can be decoded", _FIX)


def _decode(source: _Source) -> Iterator[tuple[av.VideoFrame | None, int]]:
    """Yield ``(frame, 0)``, or ``(None, n)`` where n packets or frames turned out to be damaged."""
    packets = source.container.demux(source.stream)
    seen = 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError:
            yield None, max(1, source.stream.frames - seen)
            return
        seen += packet.size > 0
        try:
            for frame in packet.decode():
                yield (None, 1) if frame.is_corrupt else (frame, 0)
        except av.error.EOFError:
            break
        except av.error.FFmpegError:
            yield None, 1
    if source.stream.frames > seen:
        yield None, source.stream.frames - seen


class FrameStream(Iterator[Frame]):
    """The frames of a file in order, decoded as they are asked for.

    Attributes:
        info: what the file says about itself.
        failed: frames that could not be decoded so far; final once the stream is exhausted. A truncated
            file yields the frames that it still has.
    """

    def __init__(
        self,
        path: str | Path,
        start: float | None = None,
        end: float | None = None,
        box: tuple[int, int, int, int] | None = None,
        max_size: int | None = None,
    ) -> None:
        self.info = probe(path)
        self.failed = 0
        self._start, self._end = start or 0.0, float("inf") if end is None else end
        if self._end <= self._start:
            raise InputError(
                path, f"a cut from {self._start} s to {end} s is empty", "the end lies after the start"
            )
        self._box, self._max_size = box, max_size
        self._frames = self._image() if self.info.is_image else self._video()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Stop decoding and close the file."""
        self._frames.close()

    def _image(self) -> Generator[Frame, None, None]:
        image = _shrink(_crop(_read_image(self.info.path), self._box), self._max_size)
        yield Frame(0, 0.0, image)

    def _video(self) -> Generator[Frame, None, None]:
        index, last, converter = 0, -1.0, VideoReformatter()
        try:
            for time, frame, aspect in self._cut():
                # Broken files repeat timestamps; users of a stream rely on their order.
                time = max(time, last + 1e-4) if index else time
                last = time
                image = _shrink(_crop(_rgb(frame, aspect, converter), self._box), self._max_size)
                yield Frame(index, time, image)
                index += 1
        finally:
            if self.failed:
                logger.warning("%s: %d frame(s) could not be decoded", self.info.path, self.failed)

    def _cut(self) -> Iterator[tuple[float, av.VideoFrame, float]]:
        """Frames with ``start <= time < end``, decoded from the key frame before the start."""
        if self._start > 0:
            with closing(_Source(self.info.path)) as source:
                if self._seek(source):
                    yield from self._timed(source)
                    return
        with closing(_Source(self.info.path)) as source:
            yield from self._timed(source)

    def _seek(self, source: _Source) -> bool:
        """Go to the key frame before the start; False where the file's index cannot be trusted."""
        target = int(self._start / source.time_base) + source.first_pts
        try:
            source.container.seek(target, stream=source.stream)
            first = next(frame for frame, _ in _decode(source) if frame is not None)
            exact = first.pts is not None and first.pts <= target
            source.container.seek(target, stream=source.stream)
        except (StopIteration, av.error.FFmpegError):
            return False
        return exact

    def _timed(self, source: _Source) -> Iterator[tuple[float, av.VideoFrame, float]]:
        step, aspect, time = 1 / self.info.fps, source.aspect(), -1 / self.info.fps
        whole = self._start == 0 and self._end == float("inf")
        pending = delivered = 0
        for frame, damaged in _decode(source):
            if frame is None:
                pending += damaged
                continue
            if frame.pts is None:
                time += step
            else:
                time = float((frame.pts - source.first_pts) * source.time_base)
            if time >= self._end - _TIME_TOLERANCE:
                return
            if time >= self._start - _TIME_TOLERANCE:
                self.failed += pending
                delivered += 1
                yield time, frame, aspect
            pending = 0
        # Behind the last frame nothing tells how much of what is missing belongs to the cut.
        self.failed += pending if whole else min(pending, 1)
        if whole and self.failed:
            # A decoder may swallow what a damaged packet held without a word.
            self.failed = max(self.failed, source.stream.frames - delivered)


def read(
    path: str | Path,
    start: float | None = None,
    end: float | None = None,
    box: tuple[int, int, int, int] | None = None,
    max_size: int | None = None,
) -> FrameStream:
    """Read a video or an image frame by frame, in constant memory.

    Args:
        path: the file.
        start: first moment in seconds, or None for the beginning.
        end: first moment that is not wanted any more, or None for the end.
        box: crop x, y, w, h in pixels of the upright picture; what lies outside of it is left off.
        max_size: shrink so that the longer side has at most this many pixels.

    Raises:
        VideoError: the file cannot be read at all.
        InputError: the cut is empty or the box lies outside.
    """
    return FrameStream(path, start, end, box, max_size)


class Writer:
    """Encode frames as H.264 (yuv420p, BT.709, MP4 with its index in front), atomically.

    A context manager: the file appears when the block ends without an error. Odd sizes get their last row
    or column twice, because 4:2:0 needs even ones.

    Args:
        path: the MP4 file.
        fps: frames per second.
        size: width, height in pixels.
        audio_from: a file whose first sound track is copied (converted to AAC where MP4 cannot hold it).
        audio_start: seconds in that file, as ``Frame.time`` counts them, where the first frame lies.
        audio_duration: seconds of sound at most; None: to its end.
        metadata: JSON values that say where the video comes from; kept in the tag ``comment``.
        crf: constant rate factor of x264, lower is better.
        preset: speed preset of x264.
        pixel_format: what ``write`` is given: ``rgb24`` or ``yuv420p`` (``remime.yuv``; even sizes only).
        threads: of x264, or None for one and a half per core.
        x264: more of x264's own options, ``name=value`` joined by colons.

    Raises:
        RemimeError: ffmpeg failed, or no frame was written.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        size: tuple[int, int],
        audio_from: str | Path | None = None,
        audio_start: float = 0.0,
        audio_duration: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        crf: int = 18,
        preset: str = "superfast",
        pixel_format: str = "rgb24",
        threads: int | None = None,
        x264: str = "",
    ) -> None:
        if not 0 < fps <= 1000:
            raise ValueError(f"fps: {fps} is not in (0, 1000]")
        width, height = size
        shapes = {"rgb24": (height, width, 3), "yuv420p": (height * 3 // 2, width)}
        if pixel_format not in shapes:
            raise ValueError(f"pixel_format: {pixel_format!r} is none of {', '.join(shapes)}")
        if pixel_format == "yuv420p" and (width % 2 or height % 2):
            raise ValueError(f"size: {width}x{height} is odd, yuv420p needs even sides")
        self.path, self.fps, self.size = Path(path), fps, size
        self.count = 0
        self._audio = (Path(audio_from), audio_start) if audio_from is not None else None
        self._audio_duration = audio_duration
        self._metadata = dict(metadata or {})
        self._crf, self._preset, self._threads, self._x264 = crf, preset, threads, x264
        self._pixel_format, self._shape = pixel_format, shapes[pixel_format]
        self._last: NDArray[np.uint8] | None = None
        self._stack = ExitStack()

    def _command(self, output: Path) -> list[str]:
        width, height = (side + side % 2 for side in self.size)
        rate = Fraction(self.fps).limit_denominator(1001)
        frames = ffmpeg.input(
            "pipe:0",
            format="rawvideo",
            pix_fmt=self._pixel_format,
            s=f"{width}x{height}",
            framerate=f"{rate}",
        )
        picture = frames.video
        if self._pixel_format == "rgb24":
            picture = picture.filter("scale", out_color_matrix="bt709", out_range="tv")
        streams = [picture.filter("setparams", **_COLOURS)]
        options: dict[str, Any] = {
            "vcodec": "libx264",
            "pix_fmt": "yuv420p",
            "crf": self._crf,
            "preset": self._preset,
            "movflags": "+faststart",
            "metadata": f"comment={json.dumps(self._metadata, sort_keys=True)}",
        }
        if self._threads is not None:
            options["threads"] = self._threads
        if self._x264:
            options["x264-params"] = self._x264
        if self._audio is not None:
            streams += self._sound(options)
        graph = ffmpeg.output(*streams, _url(output), **options).global_args("-nostats", "-loglevel", "error")
        return ffmpeg.compile(graph.overwrite_output(), cmd=imageio_ffmpeg.get_ffmpeg_exe())

    def _sound(self, options: dict[str, Any]) -> list[Any]:
        assert self._audio is not None
        path, begin = self._audio
        info = probe(path)
        if not info.has_audio:
            return []
        options["acodec"] = "copy" if info.audio_codec in _COPIED_AUDIO else "aac"
        skip = begin + info.start
        where = {"ss": f"{skip:.6f}"} if skip > 0 else {}
        # Not `-shortest`: it would also cut the picture where the sound is shorter.
        if self._audio_duration is not None:
            where["t"] = f"{self._audio_duration:.6f}"
        safe = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        return [ffmpeg.input(_url(path), **where, **safe)["a:0"]]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic(self.path))
            # A pipe for messages could fill up and stop both processes; a file cannot.
            self._messages = stack.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                self._command(temporary),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
            )
            self._stack = stack.pop_all()
        return self

    def write(self, image: NDArray[np.uint8], time: float | None = None) -> None:
        """Append a frame, uint8 ``[H, W, 3]`` RGB or ``[3 H / 2, W]`` yuv420p.

        With ``time`` (seconds since the first frame) frames of a variable rate keep their moments: the
        previous frame is repeated, or this one replaces it, as the constant rate needs.
        """
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(f"image: expected uint8 {self._shape}, got {image.dtype} {image.shape}")
        slot = self.count if time is None else round(time * self.fps)
        while self._last is not None and self.count < slot:
            self._send(self._last)
        if slot >= self.count:
            self._send(image)
        self._last = image

    def _send(self, image: NDArray[np.uint8]) -> None:
        width, height = self.size
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(image).data)
        except (BrokenPipeError, ValueError) as error:
            raise self._failure() from error
        self.count += 1

    def _failure(self) -> RemimeError:
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        said = "; ".join(lines[-3:]) or f"exit code {self._process.returncode}"
        return RemimeError(
            f"{self.path}: cannot be encoded ({said})\n  check its folder's free space and rights"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        if kind is not None:
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        with self._stack:
            if error is not None:
                raise error
            if self._process.returncode != 0:
                raise self._failure()
            if self.count == 0:
                raise RemimeError(f"{self.path}: no frame was written\n  a video needs at least one")


def provenance(path: str | Path) -> dict[str, Any]:
    """The metadata that ``Writer`` put into a file; empty where there is none."""
    try:
        found = json.loads(probe(path).metadata.get("comment", "{}"))
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}

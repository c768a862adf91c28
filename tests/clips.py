"""Tiny clips for tests: a real face (NASA's portrait of Eileen Collins, public domain) panned and zoomed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def ffmpeg(*arguments: object, stdin: bytes | None = None) -> None:
    """Run the bundled ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run([c for c in command if stdin is None or c != "-nostdin"], input=stdin, check=True)


@cache
def portrait() -> Image:
    """The still, 512×512."""
    skimage_data = __import__("pytest").importorskip("skimage.data")
    return skimage_data.astronaut()[..., :3].copy()


def view(scale: float, angle: float = 0.0, shift: tuple[float, float] = (0, 0), size: int = 256) -> Image:
    """The portrait around the face: zoomed, rolled (degrees) and shifted (pixels of the view)."""
    matrix = cv2.getRotationMatrix2D((222.0, 118.0), angle, scale)
    matrix[:, 2] += np.array([size / 2 + shift[0] - 222.0, size / 2 + shift[1] - 118.0])
    return np.asarray(
        cv2.warpAffine(portrait(), matrix, (size, size), borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def moving_face(n: int, size: int = 256, scale: float = 1.2, swing: float = 12.0) -> list[Image]:
    """Frames in which the face moves to and fro, rolls and comes nearer."""
    phase = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return [
        view(
            scale * (1 + 0.1 * np.sin(p)), 8 * np.sin(p), (swing * np.sin(p), swing * np.cos(p) - swing), size
        )
        for p in phase
    ]


def no_face(n: int, size: int = 256, seed: int = 0) -> list[Image]:
    """Smooth coloured noise that drifts: nothing in it is a face."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(
        rng.integers(0, 255, (6, 6, 3)).astype(np.uint8), (size * 2, size), interpolation=cv2.INTER_CUBIC
    )
    return [np.ascontiguousarray(base[:, i % size : i % size + size]) for i in range(n)]


def encode(
    path: Path,
    frames: Iterable[Image],
    fps: float = 25,
    codec: Sequence[object] = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", 12),
    pixels: str = "rgb24",
    audio: bool = False,
) -> Path:
    """Write a clip; ``codec`` holds ffmpeg's output options."""
    listed = list(frames)
    height, width = listed[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = (
        ("-f", "lavfi", "-t", len(listed) / fps, "-i", "sine=frequency=440:sample_rate=44100")
        if audio
        else ()
    )
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}", "-r", fps, "-i", "pipe:0"),
        *tone,
        *codec,
        *(("-c:a", "aac") if audio else ()),
        path,
        stdin=b"".join(np.ascontiguousarray(frame).tobytes() for frame in listed),
    )
    return path


def tone(path: Path, seconds: float = 1.0) -> Path:
    """A file with sound only."""
    ffmpeg("-f", "lavfi", "-t", seconds, "-i", "sine=frequency=440", "-c:a", "aac", path)
    return path


def numbered(n: int, size: int = 64) -> list[Image]:
    """Frames that tell their number: ``read_number`` finds it again after lossy coding."""
    frames = []
    for i in range(n):
        frame = np.zeros((size, size, 3), np.uint8)
        for bit in range(8):
            if i >> bit & 1:
                frame[:, bit * size // 8 : (bit + 1) * size // 8] = 255
        frames.append(frame)
    return frames


def read_number(image: Image) -> int:
    """The number that ``numbered`` drew."""
    columns = np.array_split(image.mean(axis=(0, 2)), 8)
    return sum(int(column[len(column) // 2] > 127) << bit for bit, column in enumerate(columns))

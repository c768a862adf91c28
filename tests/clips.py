"""Tiny clips for tests: a real face (NASA's portrait of Eileen Collins, public domain) panned and zoomed."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# Of the still, found by dlib.
# fmt: off
LANDMARKS = np.array([
    (179.4, 104.2), (179.8, 115.4), (180.8, 126.8), (181.6, 138.2), (184.7, 149.9), (190.7, 159.9),
    (199.7, 168.1), (208.9, 175.7), (220.1, 178.3), (231.9, 176.9), (242.7, 171.1), (252.7, 163.5),
    (260.1, 153.9), (264.7, 142.7), (267.5, 131.4), (269.9, 120.0), (271.3, 108.0), (186.3, 94.0),
    (192.1, 88.4), (200.1, 87.2), (208.1, 88.6), (215.9, 92.2), (236.3, 93.6), (243.7, 90.8),
    (251.7, 90.2), (259.5, 92.0), (264.7, 98.2), (225.7, 102.2), (225.5, 110.6), (225.1, 118.8),
    (225.1, 127.2), (214.3, 131.0), (219.1, 132.8), (224.1, 134.6), (229.3, 133.2), (234.1, 131.6),
    (195.1, 101.0), (200.5, 97.8), (207.1, 98.6), (212.5, 103.8), (206.1, 104.2), (199.5, 103.8),
    (237.7, 105.2), (243.3, 100.4), (249.7, 100.4), (255.1, 104.0), (249.9, 106.4), (243.7, 106.2),
    (200.3, 139.2), (208.7, 139.2), (217.5, 139.4), (223.3, 140.6), (229.1, 140.0), (237.1, 140.0),
    (245.5, 140.8), (237.1, 150.9), (228.7, 155.1), (222.1, 155.5), (215.9, 154.5), (207.5, 149.5),
    (203.3, 140.4), (217.1, 142.9), (222.7, 144.1), (228.9, 143.5), (242.5, 141.9), (228.7, 149.9),
    (222.7, 150.5), (216.5, 149.5),
])
# fmt: on


def ffmpeg(*arguments: object, stdin: bytes | None = None) -> None:
    """Run the bundled ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    subprocess.run([c for c in command if stdin is None or c != "-nostdin"], input=stdin, check=True)


def has_portrait() -> bool:
    """Whether the still can be had, for tests that are made while they are collected."""
    return importlib.util.find_spec("skimage") is not None


@cache
def portrait() -> Image:
    """The still, 512×512."""
    data = pytest.importorskip("skimage.data")
    return data.astronaut()[..., :3].copy()


def view_matrix(
    scale: float, angle: float = 0.0, shift: tuple[float, float] = (0, 0), size: int = 256
) -> NDArray[np.float64]:
    """The map ``[2, 3]`` from the still to a view of it."""
    matrix = cv2.getRotationMatrix2D((222.0, 118.0), angle, scale)
    matrix[:, 2] += np.array([size / 2 + shift[0] - 222.0, size / 2 + shift[1] - 118.0])
    return matrix


def view_landmarks(
    scale: float, angle: float = 0.0, shift: tuple[float, float] = (0, 0), size: int = 256
) -> NDArray[np.float64]:
    """``LANDMARKS`` in a view of the still."""
    matrix = view_matrix(scale, angle, shift, size)
    return LANDMARKS @ matrix[:, :2].T + matrix[:, 2]


def view(scale: float, angle: float = 0.0, shift: tuple[float, float] = (0, 0), size: int = 256) -> Image:
    """The portrait around the face: zoomed, rolled (degrees) and shifted (pixels of the view)."""
    matrix = view_matrix(scale, angle, shift, size)
    return np.asarray(
        cv2.warpAffine(portrait(), matrix, (size, size), borderMode=cv2.BORDER_REFLECT), np.uint8
    )


View = tuple[float, float, tuple[float, float], int]


def movement(n: int, size: int = 256, scale: float = 1.2, swing: float = 12.0) -> list[View]:
    """Arguments of ``view``: the face moves to and fro, rolls and comes nearer."""
    phase = np.linspace(0, 2 * np.pi, n, endpoint=False)
    zoom, angle = scale * (1 + 0.1 * np.sin(phase)), 8 * np.sin(phase)
    x, y = swing * np.sin(phase), swing * np.cos(phase) - swing
    return [(float(zoom[i]), float(angle[i]), (float(x[i]), float(y[i])), size) for i in range(n)]


def moving_face(n: int, size: int = 256, scale: float = 1.2, swing: float = 12.0) -> list[Image]:
    """The frames of ``movement``."""
    return [view(*how) for how in movement(n, size, scale, swing)]


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

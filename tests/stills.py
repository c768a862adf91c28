"""Photos of the sample list, aligned by the FFHQ formula, for tests of the face networks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from remime.errors import RemimeError
from remime.faces import alignment
from remime.sources.samples import fetch_sample, read_samples
from remime.weights import ensure, original

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("obama", "obama-2", "obama-3", "biden")


def _path(name: str) -> Path:
    (row,) = [r for r in read_samples(ROOT / "workflow" / "samples.tsv") if r["name"] == name]
    try:
        return fetch_sample(row, ROOT / "resources" / "samples", ROOT / "resources" / "cache")
    except RemimeError as error:
        pytest.skip(f"no sample {name}: {error}")


def _landmarks(image: np.ndarray) -> np.ndarray:
    dlib = pytest.importorskip("dlib")
    try:
        ensure("dlib-landmarks-68")
    except RemimeError as error:
        pytest.skip(f"no landmark predictor: {error}")
    predictor = dlib.shape_predictor(str(original("dlib-landmarks-68")))
    box = max(dlib.get_frontal_face_detector()(image), key=lambda r: r.width())
    return np.array([[p.x, p.y] for p in predictor(image, box).parts()], np.float64)


@cache
def _aligned(name: str, size: int) -> tuple[Tensor, Tensor]:
    image = Image.open(_path(name)).convert("RGB")
    image.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
    pixels = np.array(image)
    landmarks = _landmarks(pixels)
    frame, transform = alignment.warp(pixels, alignment.quad(landmarks), size)
    points = alignment.apply(transform, landmarks)
    return torch.from_numpy(frame).permute(2, 0, 1) / 127.5 - 1, torch.from_numpy(points)


def aligned(*names: str, size: int = 256) -> tuple[Tensor, Tensor]:
    """Frames [n, 3, size, size] in [-1, 1] and their landmarks [n, 68, 2]; skips where they cannot be had."""
    pairs = [_aligned(name, size) for name in names or NAMES]
    return torch.stack([p[0] for p in pairs]), torch.stack([p[1] for p in pairs])

"""Fitting the puppets' motion directions: measure generated faces, then a closed-form regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from remime.faces.mesh import load_mesh
from remime.faces.pose import load_pose
from remime.generators.base import Generator
from remime.images import to_tensor
from remime.progress import track
from remime.sources.directions import ROWS, Directions, fit_directions
from remime.training.generated import GeneratedPool

CHUNK = 16


@torch.no_grad()
def measure(pool: GeneratedPool, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Pose and blendshapes [n, 3 + 52] of a pool's images, and which images show a face [n]."""
    pose, mesh = load_pose("hopenet-lite").to(device), load_mesh().to(device)
    values, faces = [], []
    for start in track(range(0, pool.count, CHUNK), "measuring samples", unit="batches"):
        images = to_tensor(pool.images[start : start + CHUNK]).to(device)
        result = mesh(images)
        values.append(torch.cat([pose(images), result.blendshapes], 1).cpu().numpy())
        faces.append((result.score > 0.5).cpu().numpy())
    return np.concatenate(values), np.concatenate(faces)


def fit(options: dict[str, Any], generator: Generator, state: Path) -> Directions:
    """Directions from ``pool`` samples of a generator.

    Args:
        options: ``pool`` (samples), ``seed`` and ``size`` (of the images).
        generator: makes them.
        state: the training's own directory; the pool lies beside it, as an inverter's does.
    """
    device = generator.mean_latent.device
    pool = GeneratedPool(
        state.parent / "pool",
        generator,
        lambda images: images[:, :, :1, :1],
        options["pool"],
        options["seed"],
        options["size"],
    )
    measured, faces = measure(pool, device)
    latents = pool.all_latents()[:, :ROWS].float().mean(1).cpu().numpy()
    return fit_directions(latents[faces], measured[faces])

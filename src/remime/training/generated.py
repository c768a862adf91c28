"""Generator samples with known latents, as cached features: what the small encoders learn most from.

The pool is a directory of two memory-mapped arrays. It fills in chunks and continues where a killed run stopped; every
sample depends on its index and the seed alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from remime.files import write_text
from remime.generators.base import Generator
from remime.progress import Progress
from remime.shards import stable_hash

CHUNK = 8


def sample_latents(
    generator: Generator, count: int, seed: int, mixing: float = 0.0, truncation: tuple[float, float] = (0.4, 1.0)
) -> Tensor:
    """Latents W+ [count,rows,512] of random faces.

    Args:
        generator: whose latents.
        count: how many.
        seed: the draws depend on it alone, not on the device.
        mixing: probability of style mixing (rows from a random one on come from a second w).
        truncation: psi is uniform between these.
    """
    source = torch.Generator().manual_seed(seed)
    z = torch.randn(2, count, 512, generator=source)
    low, high = truncation
    psi = torch.rand(2, count, 1, generator=source) * (high - low) + low
    crossover = torch.randint(1, generator.rows, (count,), generator=source)
    mixed = torch.rand(count, generator=source) < mixing
    mean = generator.mean_latent
    w = [torch.lerp(mean, generator.mapping(z[i].to(mean)), psi[i].to(mean)) for i in (0, 1)]
    rows = torch.arange(generator.rows)
    second = mixed[:, None] & (rows[None] >= crossover[:, None])  # [count, rows]
    return torch.where(second[..., None].to(mean.device), generator.broadcast(w[1]), generator.broadcast(w[0]))


def degrade(images: Tensor, seed: int) -> Tensor:
    """Make clean generator samples look like video: half of them lose resolution, contrast and colour cast vary.

    Args:
        images: [B,3,R,R] in [-1,1].
        seed: of the choices.
    """
    source = torch.Generator().manual_seed(seed)
    out = []
    for image in images.split(1):
        if torch.rand((), generator=source) < 0.5:
            size = int(torch.randint(64, image.shape[-1], (), generator=source))
            small = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
            image = F.interpolate(small, size=image.shape[-1], mode="bilinear", align_corners=False)
        noise = 0.03 * torch.rand((), generator=source) * torch.randn(image.shape, generator=source)
        out.append((image + noise.to(image)).clamp(-1, 1))
    return torch.cat(out)


class GeneratedPool:
    """Samples of a generator with their W+ and the features of their images.

    Args:
        directory: where the arrays lie; they survive a kill at any moment.
        generator: makes the images, at ``resolution``.
        describe: images [B,3,R,R] in [-1,1] to features [B,...].
        count: samples.
        seed: of the samples.
        resolution: a resolution of the generator.
    """

    def __init__(
        self,
        directory: Path,
        generator: Generator,
        describe: Callable[[Tensor], Tensor],
        count: int,
        seed: int,
        resolution: int,
    ) -> None:
        self.count, self.seed = count, seed
        self._generator, self._describe, self._resolution = generator, describe, resolution
        directory.mkdir(parents=True, exist_ok=True)
        self._done = directory / f"done-{count}-{seed}-{resolution}.json"
        done = json.loads(self._done.read_text())["count"] if self._done.exists() else 0
        first = None if done else self._make(0)
        if first is not None:
            shapes = [list(a.shape[1:]) for a in first]
            self._shapes = shapes
        else:
            self._shapes = json.loads(self._done.read_text())["shapes"]
        self.latents, self.features = (
            np.lib.format.open_memmap(
                directory / f"{name}-{count}-{seed}-{resolution}.npy",
                mode="r+" if done else "w+",
                dtype=np.float16,
                shape=(count, *shape),
            )
            for name, shape in zip(("latents", "features"), self._shapes, strict=True)
        )
        self._fill(done)

    def _make(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        count = min(CHUNK, self.count - start)
        seed = stable_hash(f"{self.seed}:{start}") % 2**62
        with torch.no_grad():
            w_plus = sample_latents(self._generator, count, seed, mixing=0.3)
            images = torch.cat(
                [self._generator.synthesize(w, resolution=self._resolution) for w in w_plus.split(1)]
            ).clamp(-1, 1)
            features = self._describe(degrade(images, seed))
        return w_plus.cpu().numpy().astype(np.float16), features.cpu().numpy().astype(np.float16)

    def _fill(self, done: int) -> None:
        if done >= self.count:
            return
        with Progress(self.count, "generator samples", "images", done=done) as progress:
            while done < self.count:
                latents, features = self._make(done)
                stop = done + len(latents)
                self.latents[done:stop], self.features[done:stop] = latents, features
                done = stop
                progress.update(len(latents))
                if done % (32 * CHUNK) == 0 or done == self.count:
                    self.latents.flush()
                    self.features.flush()
                    write_text(self._done, json.dumps({"count": done, "shapes": self._shapes}))

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B,rows,512] and features [B,...] of some samples, float32."""
        rows = indices.numpy()
        return (
            torch.from_numpy(self.latents[rows].astype(np.float32)),
            torch.from_numpy(self.features[rows].astype(np.float32)),
        )

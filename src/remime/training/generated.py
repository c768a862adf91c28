"""Generator samples with known latents, as cached features: what the small encoders learn most from.

The pool is a directory of two memory-mapped arrays. It fills in chunks and continues where a killed run
stopped; every sample depends on its index and the seed alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from remime.files import write_text
from remime.generators.base import Generator
from remime.images import fit, to_image, to_tensor
from remime.progress import Progress
from remime.shards import stable_hash
from remime.training.processes import Processes

CHUNK = 8
EVERY = slice(None)


def sample_latents(
    generator: Generator,
    count: int,
    seed: int,
    mixing: float = 0.0,
    truncation: tuple[float, float] = (0.4, 1.0),
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
    return torch.where(
        second[..., None].to(mean.device), generator.broadcast(w[1]), generator.broadcast(w[0])
    )


def degrade(images: Tensor, seed: int, total: int | None = None, rows: slice = EVERY) -> Tensor:
    """Make clean generator samples look like video: half of them lose resolution, all get a little noise.

    Args:
        images: [B,3,R,R] in [-1,1].
        seed: of the choices.
        total, rows: the images are these rows of a batch of ``total``; choices are made for all of it.
    """
    source = torch.Generator().manual_seed(seed)
    total, shape, side = total or len(images), (1, *images.shape[1:]), images.shape[-1]
    given = {row: images[i : i + 1] for i, row in enumerate(range(total)[rows])}
    out = []
    for row in range(total):
        blurred = bool(torch.rand((), generator=source) < 0.5)
        size = int(torch.randint(side // 4, side, (), generator=source)) if blurred else side
        noise = 0.03 * torch.rand((), generator=source) * torch.randn(shape, generator=source)
        if row not in given:
            continue
        image = given[row]
        if blurred:
            small = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
            image = F.interpolate(small, size=side, mode="bilinear", align_corners=False)
        out.append((image + noise.to(image)).clamp(-1, 1))
    return torch.cat(out) if out else images


def vary(
    images: Tensor, seed: int, total: int | None = None, rows: slice = EVERY, mirror: bool = True
) -> Tensor:
    """Take the same faces with another camera: mirrored, shifted, turned, scaled, in other light and colours.

    Generated faces are all lit and framed alike. What is varied here is wanted of the reconstruction too, so
    that an inverter learns more of W+ than the generator's own samples show.

    Args:
        images: [B,3,R,R] in [-1,1].
        seed: of the choices.
        total, rows: the images are these rows of a batch of ``total``; choices are made for all of it.
        mirror: half of them; a mirrored face shows another motion.
    """
    source = torch.Generator().manual_seed(seed)
    total = total or len(images)
    if not len(images):
        return images

    def uniform(*bounds: float) -> Tensor:
        low, high = bounds
        return (torch.rand(total, generator=source) * (high - low) + low)[rows]

    angle, scale = uniform(-0.06, 0.06), uniform(0.93, 1.07)  # radians; about 3 degrees
    mirrored = torch.where(uniform(0, 1) < (0.5 if mirror else 0.0), -1.0, 1.0)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    affine = [
        torch.stack([mirrored * cosine, -sine, uniform(-0.06, 0.06)], 1),
        torch.stack([mirrored * sine, cosine, uniform(-0.06, 0.06)], 1),
    ]
    grid = F.affine_grid(torch.stack(affine, 1).to(images), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)
    gains = 1 + 0.15 * (torch.rand(total, 3, 1, 1, generator=source)[rows] * 2 - 1)
    contrast, gamma = uniform(0.7, 1.2)[:, None, None, None], uniform(0.7, 1.5)[:, None, None, None]
    grey = moved.mean(1, keepdim=True)
    colour = uniform(0.4, 1.2)[:, None, None, None].to(images)
    light = ((grey + colour * (moved - grey)) * gains.to(images) / 2 + 0.5).clamp(1e-4, 1)
    return ((light ** gamma.to(images) - 0.5) * 2 * contrast.to(images)).clamp(-1, 1)


class _Filled:
    """A memory-mapped array that is computed in chunks, once, and continues where a killed run stopped."""

    def __init__(
        self, path: Path, count: int, dtype: type, make: Callable[[int, int], np.ndarray], label: str
    ) -> None:
        note = path.with_suffix(".json")
        done = self._continued(path, note, count, dtype)
        if not done:
            first = make(0, min(CHUNK, count))
            done = len(first)
            shape = (count, *first.shape[1:])
            self.array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            self.array[:done] = first
        if done == count:
            return
        with Progress(count, label, "images", done=done) as progress:
            while done < count:
                stop = min(done + CHUNK, count)
                self.array[done:stop] = make(done, stop)
                progress.update(stop - done)
                done = stop
                if done % (16 * CHUNK) == 0 or done == count:
                    self.array.flush()
                    write_text(note, json.dumps({"done": done}))

    def _continued(self, path: Path, note: Path, count: int, dtype: type) -> int:
        """How much there is, 0 when there is nothing or it is damaged."""
        try:
            done = json.loads(note.read_text())["done"]
            self.array = np.lib.format.open_memmap(path, mode="r+")
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return 0
        fits = self.array.dtype == dtype and len(self.array) == count
        return done if fits and isinstance(done, int) else 0


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """One process at a time; trainings of the same options share a pool."""
    with (directory / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _digest(*modules: object) -> str:
    """What the weights of some networks are; nothing of what is no network."""
    found = hashlib.sha256()
    for module in modules:
        if isinstance(module, torch.nn.Module):
            for tensor in module.state_dict().values():
                found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


class GeneratedPool:
    """Samples of a generator: W+, images and features of the (degraded) images, as memory-mapped arrays.

    Args:
        directory: where the arrays lie.
        generator: makes the images.
        describe: images [B,3,size,size] in [-1,1] to features [B,...].
        count: samples.
        seed: of the samples.
        size: height and width of the stored images.
        resolution: what the generator decodes; None for its full resolution, whose images are its real ones.
        processes: those that use it; the main one makes it while the others wait.
        mixing: probability of style mixing.
    """

    def __init__(
        self,
        directory: Path,
        generator: Generator,
        describe: Callable[[Tensor], Tensor],
        count: int,
        seed: int,
        size: int,
        resolution: int | None = None,
        processes: Processes | None = None,
        mixing: float = 0.3,
    ) -> None:
        self.count, self.seed, self.size, self.resolution = count, seed, size, resolution
        self.mixing = mixing
        self._generator, self._describe = generator, describe
        directory.mkdir(parents=True, exist_ok=True)
        with (processes or Processes()).main_first(), _exclusive(directory):
            self._fill(directory)

    def _fill(self, directory: Path) -> None:
        seed, size, resolution, count = self.seed, self.size, self.resolution, self.count
        networks = _digest(self._generator, self._describe)
        stem = f"{count}-{seed}-{size}-{resolution or 'full'}-{self.mixing:g}-{networks}"
        self.images = _Filled(
            directory / f"images-{stem}.npy", count, np.uint8, self._decode, "generator samples"
        ).array
        self.features = _Filled(
            directory / f"features-{stem}.npy", count, np.float16, self._features, "features of the samples"
        ).array

    def latents(self, start: int, stop: int) -> Tensor:
        """W+ [stop-start,rows,512] of consecutive samples; they are quick to draw, so they are not stored."""
        return torch.cat([self._chunk(c) for c in range(start // CHUNK, -(-stop // CHUNK))])[start % CHUNK :][
            : stop - start
        ]

    def _chunk(self, chunk: int) -> Tensor:
        seed = stable_hash(f"{self.seed}:{chunk}") % 2**62
        with torch.no_grad():
            return sample_latents(self._generator, CHUNK, seed, self.mixing)

    @torch.no_grad()
    def _decode(self, start: int, stop: int) -> np.ndarray:
        images = [
            fit(self._generator.synthesize(w, resolution=self.resolution), self.size)
            for w in self.latents(start, stop).split(1)
        ]
        return to_image(torch.cat(images))

    @torch.no_grad()
    def _features(self, start: int, stop: int) -> np.ndarray:
        images = to_tensor(self.images[start:stop]).to(self._generator.mean_latent.device)
        degraded = degrade(images, stable_hash(f"degrade:{self.seed}:{start}") % 2**62)
        return self._describe(degraded).cpu().numpy().astype(np.float16)

    def all_latents(self) -> Tensor:
        """W+ [count,rows,512] of all samples, half precision."""
        return torch.cat(
            [self.latents(i, min(i + 512, self.count)).half() for i in range(0, self.count, 512)]
        )

"""Inverters around an encoder: ReStyle's iteration (Alaluf et al. 2021) and the single pass of pSp and e4e.

Both take aligned faces N×3×H×W, RGB in [-1, 1], of any size, and give W+ [N, rows, 512].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from remime.batches import Batches
from remime.encoders.e4e import Encoder4Editing, ProgressiveBackboneEncoder
from remime.encoders.irse import load_tensors
from remime.encoders.psp import BackboneEncoder, GradualStyleEncoder
from remime.encoders.small import SmallEncoder
from remime.errors import WeightsError
from remime.generators.base import Generator
from remime.generators.stylegan2 import StyleGAN2
from remime.images import fit

PUBLISHED: dict[str, Callable[..., nn.Module]] = {
    "psp": GradualStyleEncoder,
    "e4e": Encoder4Editing,
    "restyle-psp": BackboneEncoder,
    "restyle-e4e": ProgressiveBackboneEncoder,
}


class Inverter(nn.Module, ABC):
    """What all inverters share: an encoder, the generator that shows what a latent is, and where W+ starts.

    The generator is only read: freeze it unless its gradients are wanted. Save `encoder` and `latent_avg`;
    the generator has its own file.

    Args:
        encoder: images [B, C, size, size] to offsets of W+ [B, rows, 512].
        generator: decodes W+; must have its weights already.
        latent_avg: [512] or [rows, 512]; None for the generator's mean latent.
        size: height = width of the encoder's input, pixels.
        decode_resolution: one of `generator.resolutions` for reconstructions; None for full.
    """

    latent_avg: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        generator: Generator,
        latent_avg: Tensor | None = None,
        size: int = 256,
        decode_resolution: int | None = None,
    ):
        super().__init__()
        self.encoder, self.generator = encoder, generator
        self.size, self.decode_resolution = size, decode_resolution
        start = generator.mean_latent if latent_avg is None else latent_avg
        self._batches = Batches()
        self.register_buffer("latent_avg", start.detach().expand(generator.rows, -1).clone())

    def decode(self, w_plus: Tensor) -> Tensor:
        """Reconstructions [B, 3, size, size] of W+ [B, rows, 512], with the stored noise."""
        resolution = self.decode_resolution or self.generator.resolution
        # Large images one by one where memory is a job's: on a GPU a batch is faster, on a CPU slower.
        alone = resolution > self.size and w_plus.device.type == "cpu"
        parts = w_plus.split(1) if alone else [w_plus]
        images = [fit(self.generator.synthesize(part, resolution=resolution), self.size) for part in parts]
        return torch.cat(images)

    @abstractmethod
    def iterate(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For training: after each step W+ and its reconstruction, with gradients through this step only.

        Call backward on the loss of each pair before the next one is taken, to keep one step in memory.
        """

    @abstractmethod
    def _invert(self, images: Tensor) -> Tensor:
        """W+ of one batch."""

    @torch.no_grad()
    def invert(self, images: Tensor, batch_size: int = 8) -> Tensor:
        """W+ [N, rows, 512] of images [N, 3, H, W]; `batch_size` bounds the memory, not the result.

        Raises:
            InputError: the GPU's memory is too small for one image.
        """
        return torch.cat(list(self._batches(self._invert, images, batch_size)))

    @torch.no_grad()
    def error(self, images: Tensor, w_plus: Tensor) -> Tensor:
        """Mean squared error [N] of the reconstructions at `size`, for values in [-1, 1]."""
        return (self.decode(w_plus) - fit(images, self.size)).square().mean((1, 2, 3))


class ReStyle(Inverter):
    """Refine W+ in a few steps: w ← w + E(image ⊕ current reconstruction), from the mean latent.

    Args:
        encoder: [B, 6, size, size] → [B, rows, 512].
        generator: see `Inverter`; the mean image is decoded here.
        latent_avg: see `Inverter`.
        steps: refinements.
        size: see `Inverter`.
        decode_resolution: see `Inverter`.
    """

    average_image: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        generator: Generator,
        latent_avg: Tensor | None = None,
        steps: int = 5,
        size: int = 256,
        decode_resolution: int | None = None,
    ):
        super().__init__(encoder, generator, latent_avg, size, decode_resolution)
        self.steps = steps
        with torch.no_grad():
            average = self.decode(self.latent_avg[None])
        self.register_buffer("average_image", average, persistent=False)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """The mean latent [batch, rows, 512] and its image [batch, 3, size, size]."""
        return self.latent_avg.expand(batch, -1, -1), self.average_image.expand(batch, -1, -1, -1)

    def _refiner(self, images: Tensor) -> Callable[[Tensor], Tensor]:
        """The encoder with these images [B, 3, size, size] put in: reconstructions to offsets of W+.

        Encoders that look at the image on its own (``prepare``, ``refine``) do so once for all refinements.
        """
        if isinstance(self.encoder, SmallEncoder):
            features = self.encoder.prepare(images)
            return lambda estimate: self.encoder.refine(features, estimate)  # type: ignore[operator]
        return lambda estimate: self.encoder(torch.cat([images, estimate], 1))

    def iterate(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        images = fit(images, self.size)
        refine = self._refiner(images)
        w_plus, estimate = self.start(len(images))
        for _ in range(self.steps):
            w_plus = w_plus.detach() + refine(estimate.detach())
            estimate = self.decode(w_plus)
            yield w_plus, estimate

    def _invert(self, images: Tensor) -> Tensor:
        images = fit(images, self.size)
        refine = self._refiner(images)
        w_plus, estimate = self.start(len(images))
        for i in range(self.steps):
            w_plus = w_plus + refine(estimate)
            if i + 1 < self.steps:
                estimate = self.decode(w_plus)
        return w_plus


class SinglePass(Inverter):
    """Invert in one pass, w = mean latent + E(image), as pSp and e4e do; arguments as of `Inverter`."""

    def forward(self, images: Tensor) -> Tensor:
        """W+ [B, rows, 512] of images [B, 3, H, W], differentiable."""
        return self.latent_avg + self.encoder(fit(images, self.size))

    def iterate(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        w_plus = self(images)
        yield w_plus, self.decode(w_plus)

    def _invert(self, images: Tensor) -> Tensor:
        return self(images)


def load_published(kind: str, tensors: Mapping[str, Tensor], steps: int = 5) -> tuple[Inverter, StyleGAN2]:
    """An inverter and its generator from the tensors of a published pSp, e4e or ReStyle checkpoint.

    Args:
        kind: "psp", "e4e", "restyle-psp" or "restyle-e4e".
        tensors: keys `encoder.*`, `decoder.*` (StyleGAN2 in rosinality's layout) and `latent_avg`.
        steps: ReStyle's refinements.

    Raises:
        WeightsError: the tensors do not form this kind of checkpoint.
    """
    if "latent_avg" not in tensors:
        raise WeightsError(f"{kind} checkpoint: the key 'latent_avg' is missing")
    average = tensors["latent_avg"]
    decoder = {k.removeprefix("decoder."): v for k, v in tensors.items() if k.startswith("decoder.")}
    generator = StyleGAN2.from_tensors({**decoder, "latent_avg": average})
    own = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
    iterative = kind.startswith("restyle-")
    encoder = PUBLISHED[kind](generator.rows, 6 if iterative else 3)
    load_tensors(encoder, own, f"{kind} encoder")
    encoder.eval().requires_grad_(False)
    if iterative:
        return ReStyle(encoder, generator, average, steps), generator
    return SinglePass(encoder, generator, average), generator


def load_imported(name: str, steps: int = 5) -> tuple[Inverter, StyleGAN2]:
    """An inverter and its generator from a checkpoint that ``remime weights import`` took in.

    Args:
        name: what it was called there.
        steps: ReStyle's refinements.

    Raises:
        WeightsError: there is nothing of that name, or it is no inverter.
    """
    from remime import weights

    held = weights.load(name)
    kind = held.meta.get("kind")
    if kind not in PUBLISHED:
        raise WeightsError(f"weights {name!r} are {kind or 'no inverter'}\n  needed: {', '.join(PUBLISHED)}")
    return load_published(kind, held.tensors, steps)

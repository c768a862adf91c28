"""Reenactment as a stream: aligned driving frames in, frames of the target out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remime import yuv
from remime.batches import Batches
from remime.encoders.restyle import Inverter
from remime.errors import InputError
from remime.generators.base import Generator
from remime.images import fit, to_image, to_tensor
from remime.methods import Driving, Identity, Method
from remime.shards import stable_hash

FLIPS = 16  # frames per clip whose mirror images are inverted for the mean latent of the linear baseline
RANDOM_TRUNCATION = 0.7
T = TypeVar("T")
_LEVELS = {"rgb24": to_image, "yuv420p": yuv.from_tensor}
REST_FRAMES = 32  # frames per clip by which it is told how a face rests
SIZE = 256  # at least this large is the image from which a method reads a target


def invert(inverter: Inverter, images: NDArray[np.uint8], batch: int = 8) -> Tensor:
    """W+ [n, rows, 512] of aligned frames uint8 [n, R, R, 3]."""
    device = inverter.latent_avg.device
    parts = []
    for start in range(0, len(images), batch):
        parts.append(inverter.invert(to_tensor(images[start : start + batch], device), batch))
    return torch.cat(parts)


def spaced(total: int, count: int) -> list[int]:
    """Positions of ``count`` evenly spaced items of ``total``, of fewer all."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def mean_latent(inverter: Inverter, images: NDArray[np.uint8], latents: Tensor) -> Tensor:
    """The mean latent [rows, 512] of a clip's frames and of their horizontal flips (P1, Sec. 4.1).

    Args:
        inverter: for the flips.
        images: some of the clip's aligned frames, uint8 [n, R, R, 3]; at most ``FLIPS`` evenly spaced ones
            are used.
        latents: [m, rows, 512], those of all frames that were inverted.
    """
    flipped = invert(inverter, np.ascontiguousarray(images[spaced(len(images), FLIPS), :, ::-1]))
    return (latents.mean(0) + flipped.mean(0)) / 2


@torch.no_grad()
def random_face(generator: Generator, seed: int, size: int) -> NDArray[np.uint8]:
    """The frame uint8 [size, size, 3] of a random identity: z → w (truncated) → G."""
    source = torch.Generator().manual_seed(stable_hash(f"random:{seed}") % 2**62)
    z = torch.randn(1, 512, generator=source).to(generator.mean_latent)
    w = generator.truncate(generator.mapping(z), RANDOM_TRUNCATION)
    return to_image(fit(generator.synthesize(generator.broadcast(w)), size))[0]


def compiled(network: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The same network, which ``torch.compile`` translates when it is first called with a shape.

    Raises:
        InputError: nothing can be compiled for the device here.
    """
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except Exception as error:  # what the compilers raise has no common class
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        needed = "Triton" if device.type == "cuda" else "a C++ compiler"
        fix = f"install {needed}, which it needs, or leave it off"
        raise InputError("--compile", f"torch.compile fails here ({reason})", fix) from error
    return torch.compile(network)


class Decoder:
    """A generator, ready to make frames.

    Args:
        generator: decodes.
        resolution: height and width of the output; decoded at the next resolution that the generator has.
        batch: images at once, on a GPU; fewer once its memory was too small for so many.
        pixel_format: of the frames that come out: ``rgb24``, uint8 [resolution, resolution, 3], or
            ``yuv420p``, uint8 [3 resolution / 2, resolution] (``remime.yuv``).
        precision: ``float32``, ``bfloat16`` or ``float16``, in which the generator computes, by autocast.
        compile: whether the generator is compiled, at once, for whole batches.

    Raises:
        InputError: the generator cannot be compiled here.
    """

    def __init__(
        self,
        generator: Generator,
        resolution: int,
        batch: int = 8,
        pixel_format: str = "rgb24",
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        self.generator, self.resolution, self.batch = generator, resolution, batch
        self.device = generator.mean_latent.device
        self.decode_at = generator.decode_resolution(resolution)
        self._batches = Batches()
        self._levels = _LEVELS[pixel_format]
        kind: torch.dtype = getattr(torch, precision)
        self._autocast = partial(torch.autocast, self.device.type, kind, enabled=precision != "float32")
        self._synthesize, self._padded = generator.synthesize, compile
        if compile:
            self._synthesize = compiled(generator.synthesize, self.device)
            whole = generator.mean_latent.expand(self.decode_batch, -1)
            list(self.decode(generator.broadcast(whole)))

    @property
    def decode_batch(self) -> int:
        """Images at once: one is fastest on a CPU, a GPU wants the whole batch."""
        return self._batches.size(self.batch) if self.device.type == "cuda" else 1

    @torch.inference_mode()
    def decode(self, w_plus: Tensor) -> Iterator[NDArray[np.uint8]]:
        """Frames of W+ [B, rows, 512].

        Raises:
            InputError: the GPU's memory is too small for one image.
        """
        for levels in self.in_batches(self._levels_of, w_plus):
            yield from levels

    def in_batches(self, compute: Callable[[Tensor], T], w_plus: Tensor) -> Iterator[T]:
        """What is computed of W+ [B, rows, 512] in batches as they are decoded.

        Raises:
            InputError: the GPU's memory is too small for one image.
        """
        yield from self._batches(compute, w_plus, self.decode_batch, self._padded)

    def _levels_of(self, w_plus: Tensor) -> NDArray[np.uint8]:
        return self._levels(self.synthesize(w_plus))

    @torch.inference_mode()
    def synthesize(self, w_plus: Tensor) -> Tensor:
        """Images [B,3,resolution,resolution] of W+ [B,rows,512], as ``decode`` makes them, about -1 to 1."""
        count = len(w_plus)
        if self._padded and count < self.decode_batch:
            # Another shape would be translated anew.
            w_plus = torch.cat([w_plus, w_plus[-1:].expand(self.decode_batch - count, -1, -1)])
        with self._autocast():
            images = self._synthesize(w_plus, resolution=self.decode_at)
        return fit(images[:count].float(), self.resolution)


class Reenactor(Decoder):
    """A method with its generator, ready to make frames.

    Args:
        generator: decodes.
        method: moves, in full precision.
        resolution, batch, pixel_format, precision, compile: as of ``Decoder``; the batch is of frames per
            pass through the method, too.

    Raises:
        InputError: the generator cannot be compiled here.
    """

    def __init__(
        self,
        generator: Generator,
        method: Method,
        resolution: int,
        batch: int = 8,
        pixel_format: str = "rgb24",
        precision: str = "float32",
        compile: bool = False,
    ) -> None:
        super().__init__(generator, resolution, batch, pixel_format, precision, compile)
        self.method = method

    @torch.inference_mode()
    def identify(self, latent: Tensor) -> Identity:
        """Prepare a target from its latent W+ [rows, 512] (its clip's mean if the method needs latents)."""
        image = self.generator.synthesize(latent[None], resolution=self.generator.decode_resolution(SIZE))
        return self.method.identify(latent, image[0].clamp(-1, 1))

    @torch.inference_mode()
    def at_rest(self, images: Sequence[NDArray[np.uint8]]) -> Driving:
        """How a driving face rests; nothing is known of it where the method does not ask.

        Args:
            images: aligned frames uint8 [R, R, 3] from all over the clip; of one alone nothing can be told.
        """
        if len(images) < 2 or not self.method.needs_rest:
            return Driving()
        parts = [images[i : i + self.batch] for i in range(0, len(images), self.batch)]
        seen = [self.method.observe(to_tensor(part, self.device)) for part in parts]
        return Driving(rest=self.method.rest(torch.cat(seen)))

    @torch.inference_mode()
    def drive(
        self,
        identity: Identity,
        images: Sequence[NDArray[np.uint8]],
        latents: Iterator[Tensor] | None = None,
        driving: Driving | None = None,
    ) -> Tensor:
        """The latents [n, rows, 512] of the target with the motion of some aligned driving frames.

        Args:
            identity: from ``identify``.
            images: uint8 [R, R, 3] each, one at least.
            latents: their inversions [rows, 512] are taken from it, when the method needs them.
            driving: what is known of the whole clip, when the method needs it.

        Raises:
            ValueError: there are fewer latents than frames.
        """
        known = None
        if latents is not None:
            listed = list(islice(latents, len(images)))
            if len(listed) < len(images):
                raise ValueError(f"the last {len(images)} frames have {len(listed)} latents")
            known = torch.stack(listed).to(self.device)
        return self.method.drive(identity, to_tensor(images, self.device), known, driving)

    def frames(
        self,
        identity: Identity,
        images: Iterable[NDArray[np.uint8]],
        latents: Iterable[Tensor] | None = None,
        driving: Driving | None = None,
    ) -> Iterator[NDArray[np.uint8]]:
        """The target with the motion of a stream of aligned driving frames, one frame out for each in.

        Args and errors: as of ``drive``, for all frames.
        """
        stream, companions = iter(images), iter(latents) if latents is not None else None
        while chunk := list(islice(stream, self.batch)):
            yield from self.decode(self.drive(identity, chunk, companions, driving))

"""The interface that every generator has, whatever its architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from remime.errors import shape_error

Noise = Literal["const", "random"] | Sequence[Tensor] | None


@dataclass(frozen=True)
class StyleLayer:
    """One modulated convolution: where its style comes from and how wide it is."""

    name: str  # module path inside the generator
    kind: Literal["conv", "rgb"]  # feature convolution, or output (toRGB / wavelet image) convolution
    row: int  # W+ row that drives it
    channels: int  # width of the style vector = input channels of the convolution
    resolution: int  # height = width of the layer's output


class Generator(nn.Module, ABC):
    """A style-based generator: z → w → W+ → styles (StyleSpace S) → image.

    Images are B×3×R×R, RGB in [-1, 1]; x to the right, y down. W and W+ have 512 columns. Row i of W+
    drives the layers of `style_layers` whose `row` is i. Latents given to `synthesize` are never truncated
    implicitly; apply `truncate` first.

    Attributes:
        rows: rows of W+.
        resolution: height = width of the full image, pixels.
        resolutions: resolutions that `synthesize` can stop at, ascending; the last is `resolution`.
        scaled: those of them at which the image is the full one, scaled down; the last is `resolution`.
        style_layers: all modulated convolutions in the order of execution, the order of `styles`.
        mean_latent: buffer [512], the mean of W; computed once and stored with the weights.
    """

    rows: int
    resolution: int
    resolutions: tuple[int, ...]
    scaled: tuple[int, ...]
    style_layers: tuple[StyleLayer, ...]
    mean_latent: Tensor

    @abstractmethod
    def mapping(self, z: Tensor) -> Tensor:
        """Map normal noise z [B, 512] to W [B, 512]."""

    @abstractmethod
    def styles(self, w_plus: Tensor) -> list[Tensor]:
        """Affine images of W+ [B, rows, 512] in StyleSpace: [B, channels] for each of `style_layers`."""

    @abstractmethod
    def synthesize(
        self,
        w_plus: Tensor | None = None,
        styles: Sequence[Tensor] | None = None,
        noise: Noise = None,
        resolution: int | None = None,
    ) -> Tensor:
        """Generate images [B, 3, R, R] in about [-1, 1] (not clamped).

        Args:
            w_plus: latents [B, rows, 512]; give either these or `styles`.
            styles: StyleSpace vectors as `styles` returns them.
            noise: None or "const" for the stored buffers, "random" for fresh normal noise, or explicit
                tensors that broadcast to B×1×r×r, one per noise input.
            resolution: one of `resolutions`; None for the full image. Lower ones stop early.
        """

    @abstractmethod
    def features(self, w_plus: Tensor, size: int) -> Tensor:
        """Activations [B, C, size, size] of the last feature convolution at resolution `size`."""

    def decode_resolution(self, size: int) -> int:
        """The cheapest resolution from `size` up that shows the full image; the largest if there is none."""
        return next((r for r in self.scaled if r >= size), self.resolution)

    def drop_previews(self) -> None:
        """Keep the full image alone: lower outputs that were fitted to it do not fit changed weights."""

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Pull W [B, 512] or W+ [B, rows, 512] towards the mean latent: psi 1 is w, psi 0 the mean."""
        return w if psi == 1 else torch.lerp(self.mean_latent.to(w), w, psi)

    def broadcast(self, w: Tensor) -> Tensor:
        """Repeat W [B, 512] over all rows: W+ [B, rows, 512]."""
        if w.ndim != 2:
            raise shape_error("w", "[B, 512]", w.shape)
        return w[:, None].expand(-1, self.rows, -1)

    def conv_layers(self) -> list[int]:
        """Indices into `style_layers` of the feature convolutions, in order (S_F of the hybrid method)."""
        return [i for i, layer in enumerate(self.style_layers) if layer.kind == "conv"]


@torch.no_grad()
def estimate_mean_latent(generator: Generator, samples: int = 10_000, seed: int = 0) -> Tensor:
    """The mean of W [512] over `samples` draws of z; the draws depend on `seed` alone, not on the device."""
    source = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(generator.mean_latent, dtype=torch.float64)
    for start in range(0, samples, 1000):
        z = torch.randn(min(1000, samples - start), 512, generator=source)
        total += generator.mapping(z.to(generator.mean_latent)).double().sum(0)
    return (total / samples).to(generator.mean_latent)


def noise_list(noise: Noise, buffers: Sequence[Tensor], batch: int) -> list[Tensor]:
    """Resolve a noise argument into one tensor per stored buffer of shape [1, 1, r, r].

    Raises:
        ValueError: an unknown name, or a number or shapes of tensors other than the buffers'.
    """
    if noise is None or noise == "const":
        return list(buffers)
    if isinstance(noise, str):
        if noise == "random":
            return [torch.randn(batch, *b.shape[1:], dtype=b.dtype, device=b.device) for b in buffers]
        raise ValueError(f'noise: got {noise!r}, allowed are None, "const", "random" or a list of tensors')
    if len(noise) != len(buffers):
        raise ValueError(f"noise: got {len(noise)} tensors, this generator has {len(buffers)} noise inputs")
    for given, buffer in zip(noise, buffers, strict=True):
        if given.shape[1:] != buffer.shape[1:] or given.shape[0] not in (1, batch):
            raise shape_error("noise", f"[{batch} or 1, *{tuple(buffer.shape[1:])}]", given.shape)
    return list(noise)

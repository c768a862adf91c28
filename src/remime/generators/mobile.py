"""MobileStyleGAN (FFHQ, 1024²) in native PyTorch: the embedded generator.

A 4² styled convolution, seven blocks (8² … 512²) of [inverse Haar wavelet, two depthwise-separable styled
convolutions], and a 1×1 convolution to the twelve wavelet coefficients of the 1024² image. Demodulation and
the noise strength are folded into the weights, as in the exported network.

W+ has 16 rows, the layout of a 512² StyleGAN2: row 0 drives the 4² convolution, block ``i`` takes row
``1 + 2i`` for its upsampling and first convolution and row ``2 + 2i`` for its second, row 15 is the image's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import shape_error
from remime.generators.base import Generator, Noise, StyleLayer, noise_list

BLOCKS = 7
ROWS = 2 * BLOCKS + 2
WIDTH = 512
CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)  # of the features at 4², 8² … 512²
PREVIEWS = (128, 256, 512)  # resolutions that a preview head can be fitted for


def mapping_network(z: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """StyleGAN2's mapping, z [B,512] to w [B,512]: PixelNorm, linear layers, leaky ReLU 0.2 · √2."""
    x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
    for weight, bias in layers:
        x = F.leaky_relu(F.linear(x, weight, bias), 0.2) * 2**0.5
    return x


class _Haar(torch.autograd.Function):
    """The unnormalised inverse Haar wavelet on channels-last tensors.

    Written out because it is a large part of the decode on a CPU: each output phase is stored once, where it
    belongs; ``stack`` and ``pixel_shuffle`` write everything twice and leave the layout that the next
    convolution wants.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        b, channels, h, w = x.shape
        c = channels // 4
        x = x.permute(0, 2, 3, 1)
        low = x[..., :c]
        vertical, horizontal, diagonal = x[..., c:].unflatten(-1, (c, 3)).unbind(-1)
        plus, minus = low + vertical, low - vertical
        across, against = horizontal + diagonal, horizontal - diagonal
        out = x.new_empty(b, h, 2, w, 2, c)
        torch.add(plus, across, out=out[:, :, 0, :, 0])
        torch.sub(plus, across, out=out[:, :, 0, :, 1])
        torch.add(minus, against, out=out[:, :, 1, :, 0])
        torch.sub(minus, against, out=out[:, :, 1, :, 1])
        return out.view(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        b, c, h2, w2 = grads[0].shape
        phases = grads[0].permute(0, 2, 3, 1).reshape(b, h2 // 2, 2, w2 // 2, 2, c)
        top, bottom = phases[:, :, 0], phases[:, :, 1]
        top_sum, top_difference = top[:, :, :, 0] + top[:, :, :, 1], top[:, :, :, 0] - top[:, :, :, 1]
        low_sum, low_difference = (
            bottom[:, :, :, 0] + bottom[:, :, :, 1],
            bottom[:, :, :, 0] - bottom[:, :, :, 1],
        )
        detail = torch.stack(
            (top_sum - low_sum, top_difference + low_difference, top_difference - low_difference), -1
        )
        return torch.cat((top_sum + low_sum, detail.flatten(-2)), -1).permute(0, 3, 1, 2)


def haar_up(x: Tensor) -> Tensor:
    """Twice the inverse Haar wavelet: coefficients [B,4C,H,W] to an image [B,C,2H,2W], channels last.

    The first C channels are the low band; the other 3C hold, for each output channel in turn, the vertical,
    the horizontal and the diagonal detail. The wavelet's factor 1/2 is left to the caller, who has a smaller
    tensor to scale. First derivatives only.
    """
    return _Haar.apply(x)


class Affine(nn.Linear):
    """A style: one scale per input channel of a layer, from a row of W+."""

    def __init__(self, channels: int) -> None:
        super().__init__(WIDTH, channels)


class Upsample(nn.Module):
    """Modulated inverse wavelet: [B,C,H,W] to [B,C/4,2H,2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = Affine(channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        return haar_up(x * (style * 0.5)[:, :, None, None])


class SeparableConv(nn.Module):
    """Modulated depthwise 3×3 and pointwise convolution, noise, bias and leaky ReLU 0.2."""

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.affine = Affine(in_channels)
        self.depthwise = nn.Parameter(torch.zeros(in_channels, 1, 3, 3))
        self.pointwise = nn.Parameter(torch.zeros(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise", torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        channels = x.shape[1]
        if x.shape[0] == 1:
            # One image: scaling the 9 weights of a channel is cheaper than scaling its whole feature map.
            weight = self.depthwise * style.reshape(channels, 1, 1, 1)
            x = F.conv2d(x, weight, padding=1, groups=channels)
        else:
            x = F.conv2d(x * style[:, :, None, None], self.depthwise, padding=1, groups=channels)
        x = F.conv2d(x, self.pointwise, self.bias)
        # In place: convolution gradients do not need their output, and fresh large buffers cost the most.
        return F.leaky_relu_(x.add_(self.noise if noise is None else noise), 0.2)


class Block(nn.Module):
    """One resolution: upsampling and two convolutions, driven by two rows of W+."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.up = Upsample(in_channels)
        self.conv1 = SeparableConv(in_channels // 4, out_channels, size)
        self.conv2 = SeparableConv(out_channels, out_channels, size)

    def styles(self, first: Tensor, second: Tensor) -> list[Tensor]:
        return [self.up.affine(first), self.conv1.affine(first), self.conv2.affine(second)]

    def forward(self, x: Tensor, styles: Sequence[Tensor], noise: Sequence[Tensor | None]) -> Tensor:
        x = self.up(x, styles[0])
        return self.conv2(self.conv1(x, styles[1], noise[0]), styles[2], noise[1])


class Stem(nn.Module):
    """The 4² styled convolution on the learned constant."""

    noise: Tensor

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.affine = Affine(channels)
        self.weight = nn.Parameter(torch.zeros(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.zeros(1, 1, 4, 4))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        x = F.conv2d(x * style[:, :, None, None], self.weight, self.bias, padding=1)
        return F.leaky_relu_(x.add_(self.noise if noise is None else noise), 0.2)


class ToImage(nn.Module):
    """A modulated 1×1 convolution to wavelet coefficients, and the wavelet: [B,C,H,W] to [B,3,2H,2W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = Affine(channels)
        self.weight = nn.Parameter(torch.zeros(12, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight, bias = self.weight * 0.5, self.bias * 0.5
        if x.shape[0] == 1:
            return haar_up(F.conv2d(x, weight * style.reshape(1, -1, 1, 1), bias))
        return haar_up(F.conv2d(x * style[:, :, None, None], weight, bias))


class PreviewHead(nn.Module):
    """Features [B,C,H,W] to a downsampled image [B,3,2H,2W].

    A modulated 1×1 convolution, a 3×3 one, and a 1×1 one to wavelet coefficients.
    """

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.affine = Affine(channels)
        self.reduce = nn.Conv2d(channels, width, 1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 12, 1)
        # Styles near 1 at first: it starts as a plain convolution.
        nn.init.normal_(self.affine.weight, std=0.01)
        nn.init.ones_(self.affine.bias)

    @staticmethod
    def for_resolution(resolution: int) -> PreviewHead:
        """The head whose output has this height and width."""
        if resolution not in PREVIEWS:
            raise ValueError(f"preview resolution {resolution}: allowed are {PREVIEWS}")
        return PreviewHead(CHANNELS[(resolution // 2).bit_length() - 3])

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        """Features [B,C,H,W] and the row of W+ [B,512] that drove their last convolution, to [B,3,2H,2W]."""
        x = x * self.affine(row)[:, :, None, None]
        x = F.leaky_relu(self.reduce(x), 0.2)
        x = F.leaky_relu(self.middle(x), 0.2)
        return haar_up(self.out(x))


class MobileGenerator(Generator):
    """MobileStyleGAN with 16 rows of W+ at 1024², and fast lower-resolution decodes through preview heads.

    The exported network has one output, at 1024². ``PreviewHead``s (trained by ``remime.training.preview``)
    decode lower resolutions from the features of half that size; ``resolutions`` tells which ones the weights
    contain.
    """

    rows = ROWS
    resolution = 1024

    def __init__(self, previews: Sequence[int] = ()) -> None:
        super().__init__()
        self.map = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(8))
        self.register_buffer("mean_latent", torch.zeros(WIDTH))
        self.input = nn.Parameter(torch.zeros(1, CHANNELS[0], 4, 4))
        self.stem = Stem(CHANNELS[0])
        self.blocks = nn.ModuleList(Block(CHANNELS[k], CHANNELS[k + 1], 8 << k) for k in range(BLOCKS))
        self.to_img = ToImage(CHANNELS[-1])
        self.previews = nn.ModuleDict({str(r): PreviewHead.for_resolution(r) for r in sorted(previews)})
        # The preview heads were fitted to the full image.
        self.resolutions = self.scaled = (*sorted(previews), self.resolution)
        self.style_layers = self._style_layers()

    def drop_previews(self) -> None:
        self.previews = nn.ModuleDict()
        self.resolutions = self.scaled = (self.resolution,)

    @staticmethod
    def _style_layers() -> tuple[StyleLayer, ...]:
        layers = [StyleLayer("stem", "conv", 0, CHANNELS[0], 4)]
        for k in range(BLOCKS):
            wide, narrow, out = CHANNELS[k], CHANNELS[k] // 4, CHANNELS[k + 1]
            layers += [
                StyleLayer(f"blocks.{k}.up", "conv", 1 + 2 * k, wide, 8 << k),
                StyleLayer(f"blocks.{k}.conv1", "conv", 1 + 2 * k, narrow, 8 << k),
                StyleLayer(f"blocks.{k}.conv2", "conv", 2 + 2 * k, out, 8 << k),
            ]
        return (*layers, StyleLayer("to_img", "rgb", ROWS - 1, CHANNELS[-1], 1024))

    def mapping(self, z: Tensor) -> Tensor:
        """Map normal noise z [B,512] to W [B,512]."""
        layers = [cast(nn.Linear, layer) for layer in self.map]
        return mapping_network(z, [(layer.weight, layer.bias) for layer in layers])

    def styles(self, w_plus: Tensor) -> list[Tensor]:
        """The 23 style vectors of W+ [B,16,512], in the order of ``style_layers``."""
        self._check(w_plus)
        out = [self.stem.affine(w_plus[:, 0])]
        for k, block in enumerate(self._blocks()):
            out += block.styles(w_plus[:, 1 + 2 * k], w_plus[:, 2 + 2 * k])
        return [*out, self.to_img.affine(w_plus[:, -1])]

    def _check(self, w_plus: Tensor) -> None:
        if w_plus.ndim != 3 or w_plus.shape[1:] != (ROWS, WIDTH):
            raise shape_error("w_plus", f"[B, {ROWS}, {WIDTH}]", w_plus.shape)

    def _blocks(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]

    def _noise_buffers(self) -> list[Tensor]:
        return [self.stem.noise] + [c.noise for b in self._blocks() for c in (b.conv1, b.conv2)]

    def _noise(self, noise: Noise, batch: int) -> list[Tensor]:
        buffers = self._noise_buffers()
        resolved = noise_list(noise, buffers, batch)
        if noise == "random":
            # The stored images are noise times a learned strength; their spread is that strength.
            return [n * b.std() for n, b in zip(resolved, buffers, strict=True)]
        return resolved

    def start(self, styles: Sequence[Tensor], noise: Tensor | None = None) -> Tensor:
        """Features [B,512,4,4] of the first convolution."""
        # Depthwise and 1×1 convolutions run several times faster with the channels innermost.
        x = self.input.expand(styles[0].shape[0], -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.stem(x, styles[0], noise)

    def block(
        self, k: int, x: Tensor, styles: Sequence[Tensor], noise: Sequence[Tensor | None] = (None, None)
    ) -> Tensor:
        """Features [B,C,8·2^k,8·2^k] of block ``k`` from those before; ``styles`` are all of them."""
        return self.blocks[k](x, styles[1 + 3 * k : 4 + 3 * k], noise)

    def _run(self, styles: Sequence[Tensor], blocks: int, noise: Noise) -> Tensor:
        images = self._noise(noise, styles[0].shape[0])
        x = self.start(styles, images[0])
        for k in range(blocks):
            x = self.block(k, x, styles, images[1 + 2 * k : 3 + 2 * k])
        return x

    def features(self, w_plus: Tensor, size: int) -> Tensor:
        """Features [B,C,size,size] after the second convolution of a block, for W+ [B,16,512]."""
        if size < 4 or size > 512 or size & (size - 1):
            raise ValueError(f"feature size {size}: allowed are powers of two from 4 to 512")
        return self._run(self.styles(w_plus), size.bit_length() - 3, None)

    def synthesize(
        self,
        w_plus: Tensor | None = None,
        styles: Sequence[Tensor] | None = None,
        noise: Noise = None,
        resolution: int | None = None,
    ) -> Tensor:
        """Generate images [B,3,R,R]; see ``Generator.synthesize``.

        With ``styles``, a preview head takes the row of W+ of its own features' second convolution, so
        previews need ``w_plus``.
        """
        resolution = resolution or self.resolution
        if resolution not in self.resolutions:
            raise ValueError(f"resolution {resolution}: these weights offer {self.resolutions}")
        if (w_plus is None) == (styles is None):
            raise ValueError("give either w_plus or styles")
        full = resolution == self.resolution
        if not full and w_plus is None:
            raise ValueError(
                f"resolution {resolution} is a preview: give w_plus, or ask for {self.resolution}"
            )
        if styles is None:
            assert w_plus is not None
            styles = self.styles(w_plus)
        blocks = BLOCKS if full else (resolution // 2).bit_length() - 3
        x = self._run(styles, blocks, noise)
        if w_plus is None or full:
            return self.to_img(x, styles[-1])
        return self.previews[str(resolution)](x, w_plus[:, 2 * blocks])

"""StyleGAN2 (Karras et al. 2020, config E/F with skip toRGB) in native PyTorch operations.

Parameter names and shapes are those of rosinality's state dicts, in which converted NVIDIA weights and the
pSp, e4e and ReStyle decoders are distributed; see `StyleGAN2.from_tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import WeightsError, shape_error
from remime.generators.base import Generator, Noise, StyleLayer, estimate_mean_latent, noise_list

LATENT = 512
BLUR_TAPS = (1.0, 3.0, 3.0, 1.0)


def channel_widths(resolution: int, multiplier: float = 2, cap: int = 512) -> dict[int, int]:
    """Channels at 4², 8², … resolution²: 512 to 32², then 16·1024·multiplier / resolution, never above `cap`.

    `multiplier` 2 is config-f (1024²); 1 is the VoxCeleb-256 generator of Bounareli et al.
    """
    widths = {}
    for k in range(2, int(math.log2(resolution)) + 1):
        full = 512 if k <= 5 else int(16 * 1024 / 2**k * multiplier)
        widths[2**k] = min(full, cap)
    return widths


class EqualLinear(nn.Module):
    """Linear layer with the run-time weight scale lr_mul/√in of Karras et al. 2018, Sec. 4.1."""

    def __init__(
        self, inputs: int, outputs: int, bias: float = 0.0, lr_mul: float = 1.0, activate: bool = False
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.lr_mul, self.activate = lr_mul / math.sqrt(inputs), lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return F.leaky_relu(y, 0.2) * math.sqrt(2) if self.activate else y


class PixelNorm(nn.Module):
    """Scale each vector of [B, C] to a root mean square of one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


class Blur(nn.Module):
    """Low-pass filter between a stride-2 transposed convolution and what follows: odd size 2H+1 → 2H."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", _blur_kernel())

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.to(x).expand(channels, 1, -1, -1), padding=1, groups=channels)


class Upsample(nn.Module):
    """Double the size of an image: zeros in between, then the low-pass filter; zeros beyond the border."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", _blur_kernel())

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x).expand(channels, 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels a style [B, in] scales (Karras et al. 2020, Eq. 1-3).

    Scaling the input, then the output by `demodulation`, equals modulating and demodulating the weights, and
    needs no copy of the weights for each sample.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, upsample: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.modulation = EqualLinear(LATENT, inputs, bias=1.0)
        self.blur = Blur() if upsample else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Not yet demodulated: [B, in, H, W] → [B, out, H, W], or [B, out, 2H, 2W] when upsampling."""
        weight = self.weight[0]
        x = x * (style * self.scale)[:, :, None, None]
        if self.blur is None:
            return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))

    def demodulation(self, style: Tensor) -> Tensor:
        """1 / standard deviation of the output per channel [B, out], for inputs of unit variance (Eq. 3)."""
        energy = self.weight[0].square().sum((2, 3))  # [out, in]
        return torch.rsqrt((style * self.scale).square() @ energy.T + 1e-8)


class NoiseInjection(nn.Module):
    """Holds the strength of the noise that a layer adds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


class ChannelBias(nn.Module):
    """Holds the bias of a layer's activation."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))


class StyledConv(nn.Module):
    """3×3 modulated convolution, noise, bias, leaky ReLU 0.2 times √2; `upsample` doubles the size."""

    def __init__(self, inputs: int, outputs: int, upsample: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = ChannelBias(outputs)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        # The gain is taken into the factors: passes over full-size activations are what costs here.
        gain = math.sqrt(2)
        demodulation = self.conv.demodulation(style)[:, :, None, None]
        x = torch.addcmul(gain * self.activate.bias[:, None, None], self.conv(x, style), gain * demodulation)
        x = torch.addcmul(x, noise, gain * self.noise.weight)
        return F.leaky_relu(x, 0.2)


class ToRGB(nn.Module):
    """Features to the RGB skip image; the 1/√in of NVIDIA's style scale lies in the convolution here."""

    def __init__(self, inputs: int, upsample: bool = True):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, 3, 1)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Upsample() if upsample else None

    def forward(self, x: Tensor, style: Tensor, skip: Tensor | None) -> Tensor:
        # Three output channels: weights per sample are smaller here than one more pass over x.
        weight = self.conv.weight[0, :, :, 0, 0] * (style * self.conv.scale)[:, None]  # [B, 3, in]
        rgb = torch.bmm(weight, x.flatten(2)).unflatten(2, x.shape[2:]).to(self.bias) + self.bias
        if skip is None or self.upsample is None:
            return rgb
        # Images are summed in full precision: half has too few steps near ±1 for 256 grey levels.
        with torch.autocast(x.device.type, enabled=False):
            return rgb + self.upsample(skip)


class ConstantInput(nn.Module):
    """The learned 4² input."""

    def __init__(self, channels: int):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))


class StyleGAN2(Generator):
    """StyleGAN2 generator at any power-of-two resolution from 8 up.

    W+ rows: 4² conv = 0, 4² toRGB = 1; at 2^k, k ≥ 3: first conv 2k-5, second conv 2k-4, toRGB 2k-3.

    Activations follow the memory format of `input`; for channels-last convert that module alone, since the
    published convolution weights have five dimensions.

    Args:
        resolution: output size in pixels, a power of two.
        channels: channels for every resolution from 4 up; None for config-f (`channel_widths`).
        mapping_layers: fully connected layers from z to w.
    """

    def __init__(
        self, resolution: int, channels: Mapping[int, int] | None = None, mapping_layers: int = 8
    ) -> None:
        super().__init__()
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError(f"resolution: got {resolution}, allowed are powers of two from 8 up")
        widths = dict(channels or channel_widths(resolution))
        last = int(math.log2(resolution))
        self.resolution = resolution
        self.resolutions = tuple(2**k for k in range(2, last + 1))
        # The image is a sum over sizes: without the larger ones' share it is another image.
        self.scaled = (resolution,)
        self.rows = 2 * last - 2

        mapping = [EqualLinear(LATENT, LATENT, lr_mul=0.01, activate=True) for _ in range(mapping_layers)]
        self.style = nn.Sequential(PixelNorm(), *mapping)
        self.input = ConstantInput(widths[4])
        self.conv1 = StyledConv(widths[4], widths[4])
        self.to_rgb1 = ToRGB(widths[4], upsample=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for size in self.resolutions[1:]:
            self.convs.append(StyledConv(widths[size // 2], widths[size], upsample=True))
            self.convs.append(StyledConv(widths[size], widths[size]))
            self.to_rgbs.append(ToRGB(widths[size]))
        self.noises = nn.Module()
        for i in range(2 * last - 3):
            size = 2 ** ((i + 5) // 2)
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, size, size))
        self.register_buffer("mean_latent", torch.zeros(LATENT))
        self.style_layers = tuple(self._describe_layers())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> StyleGAN2:
        """Build a generator from a state dict in rosinality's layout (its `g_ema`); shapes give the sizes.

        The optional key `mean_latent` or `latent_avg`, [512] or [rows, 512] with equal rows, holds the mean
        of W; without it, it is estimated from 10,000 seeded draws. The result is in eval mode and frozen.

        Raises:
            WeightsError: keys or shapes do not form a StyleGAN2 generator.
        """
        state = dict(tensors)
        mean = state.pop("latent_avg", None)
        mean = state.pop("mean_latent", mean)
        try:
            blocks = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("to_rgbs."))
            layers = max(int(k.split(".")[1]) for k in state if k.startswith("style."))
            widths = {4: state["input.input"].shape[1]}
            for i in range(blocks):
                widths[2 ** (i + 3)] = state[f"convs.{2 * i + 1}.conv.weight"].shape[1]
            model = cls(2 ** (blocks + 2), widths, layers)
            missing, unexpected = model.load_state_dict(state, strict=False)
        except (KeyError, ValueError, IndexError, RuntimeError) as error:
            raise WeightsError(f"not a StyleGAN2 generator in rosinality's layout: {error}") from error
        missing = [key for key in missing if key != "mean_latent"]
        if missing or unexpected:
            raise WeightsError(f"StyleGAN2 state dict: missing keys {missing}, unexpected keys {unexpected}")
        model.eval().requires_grad_(False)
        if mean is None:
            mean = estimate_mean_latent(model)
        model.mean_latent.copy_(mean.reshape(-1, LATENT)[0])
        return model

    def mapping(self, z: Tensor) -> Tensor:
        return self.style(z)

    def styles(self, w_plus: Tensor) -> list[Tensor]:
        if w_plus.ndim != 3 or w_plus.shape[1:] != (self.rows, LATENT):
            raise shape_error("w_plus", f"[B, {self.rows}, {LATENT}]", w_plus.shape)
        convs = self._modulated()
        return [
            conv.modulation(w_plus[:, layer.row])
            for conv, layer in zip(convs, self.style_layers, strict=True)
        ]

    def synthesize(
        self,
        w_plus: Tensor | None = None,
        styles: Sequence[Tensor] | None = None,
        noise: Noise = None,
        resolution: int | None = None,
    ) -> Tensor:
        if (w_plus is None) == (styles is None):
            raise ValueError("synthesize: give either w_plus or styles")
        if w_plus is not None:
            styles = self.styles(w_plus)
        assert styles is not None
        return self._run(styles, noise, self.resolution if resolution is None else resolution)[1]

    def features(self, w_plus: Tensor, size: int) -> Tensor:
        return self._run(self.styles(w_plus), None, size)[0]

    def _run(self, styles: Sequence[Tensor], noise: Noise, resolution: int) -> tuple[Tensor, Tensor]:
        """Features after the last convolution at `resolution`, and the RGB image there."""
        if resolution not in self.resolutions:
            raise ValueError(f"resolution: got {resolution}, allowed are {self.resolutions}")
        if len(styles) != len(self.style_layers):
            raise ValueError(f"styles: got {len(styles)} vectors, expected {len(self.style_layers)}")
        batch = styles[0].shape[0]
        noises = noise_list(noise, list(self.noises.buffers()), batch)
        x = self.conv1(self.input.input.expand(batch, -1, -1, -1), styles[0], noises[0])
        rgb = self.to_rgb1(x, styles[1], None)
        for i in range(self.resolutions.index(resolution)):
            x = self.convs[2 * i](x, styles[3 * i + 2], noises[2 * i + 1])
            x = self.convs[2 * i + 1](x, styles[3 * i + 3], noises[2 * i + 2])
            rgb = self.to_rgbs[i](x, styles[3 * i + 4], rgb)
        return x, rgb

    def _modulated(self) -> Iterator[ModulatedConv2d]:
        yield from (self.get_submodule(layer.name) for layer in self.style_layers)  # type: ignore[misc]

    def _describe_layers(self) -> Iterator[StyleLayer]:
        width = self.input.input.shape[1]
        yield StyleLayer("conv1.conv", "conv", 0, width, 4)
        yield StyleLayer("to_rgb1.conv", "rgb", 1, width, 4)
        for i, size in enumerate(self.resolutions[1:]):
            for name, kind, row in (
                (f"convs.{2 * i}.conv", "conv", 2 * i + 1),
                (f"convs.{2 * i + 1}.conv", "conv", 2 * i + 2),
                (f"to_rgbs.{i}.conv", "rgb", 2 * i + 3),
            ):
                weight = self.get_parameter(f"{name}.weight")
                yield StyleLayer(name, kind, row, weight.shape[2], size)  # type: ignore[arg-type]


def is_same(tensors: Mapping[str, Tensor], generator: Generator) -> bool:
    """Whether a state dict in rosinality's layout is this generator; noise and mean latent do not count."""
    own = generator.state_dict()
    return all(
        k in tensors
        and tensors[k].shape == own[k].shape
        and torch.allclose(tensors[k].to(own[k]), own[k], rtol=1e-3, atol=1e-4)
        for k in own
        if k != "mean_latent" and not k.startswith("noises.") and not k.endswith(".kernel")
    )


def _blur_kernel() -> Tensor:
    """The 4×4 filter with gain 4, which makes up for the zeros that upsampling by two inserts."""
    taps = torch.tensor(BLUR_TAPS)
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum() * 4

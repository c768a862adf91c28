"""IR-SE50, the residual squeeze-and-excitation network of ArcFace (Deng et al. 2019), and its identity head.

Parameter names and shapes are those of the published `model_ir_se50` and of the pSp family's encoders.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import WeightsError, shape_error

STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # (channels, blocks); each stage halves the size
TAPS = (6, 20, 23)  # last blocks of the stages with 128, 256 and 512 channels


class SqueezeExcite(nn.Module):
    """Scale channels by a sigmoid gate from their means, through a bottleneck of a sixteenth of the width."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class Bottleneck(nn.Module):
    """Residual block: BN, conv, PReLU, conv with the stride, BN, SE; [B, in, H, W] → [B, out, H/s, W/s]."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcite(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


def input_layer(channels: int = 3) -> nn.Sequential:
    """The first convolution, `channels` → 64 at full size."""
    return nn.Sequential(nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))


def body() -> nn.Sequential:
    """The 24 blocks: [B, 64, H, W] → [B, 512, H/16, W/16]."""
    blocks, width = [], 64
    for channels, count in STAGES:
        for i in range(count):
            blocks.append(Bottleneck(width, channels, 2 if i == 0 else 1))
            width = channels
    return nn.Sequential(*blocks)


def pyramid(x: Tensor, blocks: nn.Sequential) -> list[Tensor]:
    """Run the body and return c1 [B, 128, H/4, W/4], c2 [B, 256, H/8, W/8] and c3 [B, 512, H/16, W/16]."""
    taps = []
    for i, block in enumerate(blocks):
        x = block(x)
        if i in TAPS:
            taps.append(x)
    return taps


class ArcFace(nn.Module):
    """IR-SE50 with the embedding head: aligned faces [B, 3, 112, 112] in [-1, 1] → unit vectors [B, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = input_layer()
        self.body = body()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, 512),
            nn.BatchNorm1d(512),
        )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ArcFace:
        """The network with `model_ir_se50`'s tensors, in eval mode and frozen; WeightsError on misfits."""
        model = cls()
        load_tensors(model, tensors, "ArcFace IR-SE50")
        return model.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (3, 112, 112):
            raise shape_error("images", "[B, 3, 112, 112]", images.shape)
        return F.normalize(self.output_layer(self.body(self.input_layer(images))))


def load_arcface(name: str = "ir-se50") -> ArcFace:
    """The identity network from a ``model_ir_se50`` that ``remime weights import`` took in.

    Raises:
        WeightsError: there is nothing of that name, or it is another network.
    """
    from remime import weights

    return ArcFace.from_tensors(weights.load(name).tensors)


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict that must fit exactly, except for batch-norm counters, which old files lack.

    Raises:
        WeightsError: with every missing, unexpected or misshapen key.
    """
    try:
        missing, unexpected = module.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as error:
        raise WeightsError(f"{what}: {error}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(f"{what}: missing keys {missing}, unexpected keys {unexpected}")


def start_from_arcface(encoder: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Initialise an encoder's `input_layer` and `body` from ArcFace IR-SE50, as the pSp family does.

    Input channels beyond RGB (ReStyle's current estimate) keep their own initial weights.

    Raises:
        WeightsError: the tensors are not those of an IR-SE50.
    """
    trunk = {k: v for k, v in tensors.items() if k.startswith(("input_layer.", "body."))}
    first = encoder.get_parameter("input_layer.0.weight").detach().clone()
    if "input_layer.0.weight" in trunk:
        first[:, :3] = trunk["input_layer.0.weight"]
    trunk["input_layer.0.weight"] = first
    holder = nn.Module()
    holder.input_layer = encoder.get_submodule("input_layer")
    holder.body = encoder.get_submodule("body")
    load_tensors(holder, trunk, "ArcFace IR-SE50 trunk")

"""Head pose of aligned frames by networks of Hopenet's kind (Ruiz et al., CVPR Workshops 2018).

Each angle is a distribution over 66 bins of 3°, and its expectation is the answer:
Σ softmaxᵢ · 3i − 99°.

Signs: yaw is positive when the nose points to the left of the image (the person turns to their own right),
pitch is positive when the person looks up, roll is positive when the head is turned clockwise on the screen.
So mirroring a frame negates yaw and roll, up to a constant: over generated faces ``hopenet-lite`` answers
-1.7° of yaw, -6° of pitch and -1.6° of roll on average, which cancels in differences between frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from remime.errors import InputError, WeightsError, shape_error
from remime.faces.template import HOPENET, HOPENET_LITE, Template
from remime.graph import GraphNetwork

NETWORKS: tuple[str, ...] = ("hopenet-lite", "hopenet")
BINS, BIN_WIDTH, FIRST_BIN = 66, 3.0, -99.0

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Hopenet(nn.Module):
    """Hopenet: torchvision's ResNet-50 with three heads of 66 bins, with the names of its published files."""

    def __init__(self) -> None:
        super().__init__()
        from remime._torchvision import torchvision

        torchvision()
        from torchvision.models import resnet50

        trunk = resnet50(weights=None)
        for name, module in trunk.named_children():
            if name != "fc":
                self.add_module(name, module)
        self.fc_yaw = nn.Linear(2048, BINS)
        self.fc_pitch = nn.Linear(2048, BINS)
        self.fc_roll = nn.Linear(2048, BINS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ImageNet-normalised crops [B, 3, 224, 224] to the logits of yaw, pitch and roll, each [B, 66]."""
        x = images
        for name, module in self.named_children():
            if not name.startswith("fc_"):
                x = module(x)
        x = x.flatten(1)
        return self.fc_yaw(x), self.fc_pitch(x), self.fc_roll(x)


class PoseNetwork(nn.Module):
    """Yaw, pitch and roll of faces; frozen, differentiable in its images.

    Args:
        name: what the network is called in tables and reports.
        network: normalised crops to the logits of yaw, pitch and roll, each [B, 66].
        template: the crop that it was trained with.
    """

    def __init__(self, name: str, network: nn.Module, template: Template) -> None:
        super().__init__()
        self.name, self.network, self._template = name, network, template
        self.mean: Tensor
        self.std: Tensor
        self.angles: Tensor
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("angles", torch.arange(BINS) * BIN_WIDTH + FIRST_BIN, persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Estimate the pose.

        Args:
            images: [B, 3, R, R] FFHQ-aligned frames in [-1, 1], any R.

        Returns:
            [B, 3]: yaw, pitch, roll in degrees, within [-99, 96]. Alignment turns the eyes level, so roll is
            that of the aligned frame, near zero.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise shape_error("images", "[B, 3, R, R]", images.shape)
        crops = (self._template(images) + 1) / 2
        logits = torch.stack(self.network((crops - self.mean) / self.std), 1)
        return logits.float().softmax(-1) @ self.angles


def _read_hopenet(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(
            path, "there is no such file", "give the path of Hopenet's .pkl state dict"
        ) from None
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise WeightsError(f"{path}: not a file of tensors that torch reads safely ({error})") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: not a state dict (names to tensors)")
    # Saved from DataParallel; fc_finetune is a layer of the training script that the network never uses.
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc_finetune.")}


def _load_hopenet(path: Path) -> Hopenet:
    return _hopenet(_read_hopenet(path), str(path))


def _hopenet(state: dict[str, Tensor], path: str) -> Hopenet:
    network = Hopenet()
    expected = {n: t.shape for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    problems = [f"{n} is missing" for n in expected if n not in state]
    problems += [f"{n} is unknown" for n in state if n not in network.state_dict()]
    problems += [
        f"{n} has shape {list(state[n].shape)}, not {list(shape)}"
        for n, shape in expected.items()
        if n in state and state[n].shape != shape
    ]
    if problems:
        listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise WeightsError(f"{path}: not Hopenet's weights: {listed}")
    # Files of torch before 0.4.1 do not count batches.
    network.load_state_dict(state, strict=False)
    return network


def load_pose(name: str = "hopenet-lite", path: str | Path | None = None) -> PoseNetwork:
    """A pose network.

    Args:
        name: ``hopenet-lite``, or the name of an imported Hopenet (``remime weights import``).
        path: Hopenet's published state dict, e.g. ``hopenet_robust_alpha1.pkl``, in place of an imported one.

    Raises:
        InputError: it is another network.
        WeightsError: the weights are not there, or the file holds something else.
    """
    if path is not None:
        return PoseNetwork(name, _load_hopenet(Path(path)), HOPENET)
    from remime import weights

    held = weights.load(name)
    if name == "hopenet-lite":
        return PoseNetwork(name, GraphNetwork(held.meta["graph"], held.tensors), HOPENET_LITE)
    if held.meta.get("kind") != "hopenet":
        known = f"allowed: {', '.join(NETWORKS)}, and imported ones of the kind hopenet"
        raise InputError("pose network", f"{name!r} is {held.meta.get('kind', 'no pose network')}", known)
    return PoseNetwork(name, _hopenet(held.tensors, f"weights {name!r}"), HOPENET)

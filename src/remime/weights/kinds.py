"""The kinds of checkpoints that are known, and what a recognised one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from remime.weights import unpickle
from remime.weights.unpickle import Namespace

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Args:
        name: what it is called.
        role: what it is for, as in ``workflow/weights.tsv``.
        use: what can be done with it here.
        anchors: names and shapes that tell a state dict of this kind; None is any size.
        unique: whether there is one such network in the world, so that its kind is its name.
    """

    name: str
    role: str
    use: str
    anchors: Mapping[str, Shape] = field(default_factory=dict)
    unique: bool = True


_INIT = "in a configuration: init: {name}, preset: paper"
_LOAD = f"{_INIT}; in Python: remime.encoders.restyle.load_imported({{name!r}})"
_LATER = "its tensors, with remime.weights.load({name!r}); the method comes with a later version"
_STORED = "its tensors, with remime.weights.load({name!r}); no network of the project reads them yet"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "stylegan2",
            "generator",
            "in a configuration: generator: {name}; in Python: remime.generators.load_generator({name!r})",
            {"input.input": (1, None, 4, 4), "conv1.conv.weight": (1, None, None, 3, 3)},
            unique=False,
        ),
        Kind("psp", "inverter", _LOAD, unique=False),
        Kind("e4e", "inverter", _LOAD, unique=False),
        Kind("restyle-psp", "inverter", _LOAD, unique=False),
        Kind("restyle-e4e", "inverter", _LOAD, unique=False),
        Kind("mapping", "method", f"{_INIT}, method: mapping", unique=False),
        Kind("directions", "method", _LATER, unique=False),
        Kind("directions-e4e", "inverter", _LATER, unique=False),
        Kind(
            "ir-se50",
            "identity",
            "in a configuration: identity: {name} of train, measure or score; in Python: "
            "remime.faces.identity.load_identity({name!r})",
            {"input_layer.0.weight": (64, 3, 3, 3), "output_layer.3.weight": (512, 25088)},
        ),
        Kind(
            "hopenet",
            "pose",
            "in a configuration: pose: {name}; in Python: remime.faces.pose.load_pose({name!r})",
            {"conv1.weight": (64, 3, 7, 7), "fc_yaw.weight": (66, 2048), "fc_pitch.weight": (66, 2048)},
        ),
        Kind(
            "bisenet",
            "parsing",
            _STORED,
            {
                "cp.resnet.conv1.weight": (64, 3, 7, 7),
                "ffm.convblk.conv.weight": (256, 256, 1, 1),
                "conv_out.conv_out.weight": (19, 256, 1, 1),
            },
        ),
        Kind(
            "deca",
            "face model",
            _STORED,
            {
                "E_flame.encoder.conv1.weight": (64, 3, 7, 7),
                "E_flame.layers.0.weight": (1024, 2048),
                "E_flame.layers.2.weight": (236, 1024),
            },
        ),
        Kind("flame", "face model", _STORED),
        Kind(
            "lpips-heads",
            "perceptual",
            _STORED,
            {f"lin{i}.model.1.weight": (1, None, 1, 1) for i in range(5)},
        ),
        Kind(
            "inception",
            "perceptual",
            _STORED,
            {
                "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
                "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
                "fc.weight": (1008, 2048),
            },
        ),
        Kind(
            "i3d",
            "perceptual",
            _STORED,
            {
                "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
                "Mixed_5c.b3b.conv3d.weight": (128, 832, 1, 1, 1),
                "logits.conv3d.weight": (400, 1024, 1, 1, 1),
            },
        ),
        Kind(
            "arcface",
            "identity",
            "in a configuration: identity: {name} of train, measure or score; in Python: "
            "remime.faces.identity.load_identity({name!r})",
            unique=False,
        ),
        Kind("dlib-resnet", "identity", "remime.faces.dlib_resnet.DlibResNet.from_tensors of its tensors"),
        Kind("dlib-shape", "landmarks", "its tensors; dlib itself needs the original file"),
        Kind("onnx", "network", "remime.graph.GraphNetwork of its graph and tensors", unique=False),
    )
}

PSP_FAMILY = {
    "GradualStyleEncoder": "psp",
    "Encoder4Editing": "e4e",
    "BackboneEncoder": "restyle-psp",
    "ProgressiveBackboneEncoder": "restyle-e4e",
}
"""Kinds by the ``encoder_type`` of their ``opts``."""

ALLOWED = (
    "allowed: StyleGAN2 (rosinality .pt, NVIDIA .pkl), pSp, e4e and ReStyle .pt, P1's best_model.pt, P2's "
    "A_matrix.pt and e4e, model_ir_se50.pth, Hopenet .pkl, BiSeNet 79999_iter.pth, deca_model.tar, FLAME "
    "generic_model.pkl, LPIPS heads .pth, Inception and I3D .pth, dlib .dat, .onnx"
)


@dataclass(frozen=True)
class Recognised:
    """A checkpoint that was understood.

    Args:
        kind: what it is.
        tensors: its parameters under the names that the project uses.
        meta: more about it, as JSON: ``options`` of its training, ``notes`` on what was changed, ``graph``.
    """

    kind: Kind
    tensors: dict[str, Tensor] = field(repr=False)
    meta: dict[str, Any]


def state_of(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """All tensors of nested dictionaries by dotted names, without the prefix of ``DataParallel``."""
    # Copies, since tensors of a file may share their data, which safetensors does not store.
    found = {name: value.detach().clone() for name, value in unpickle.leaves(content)}
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def options_of(value: Any) -> dict[str, dict[str, Any]]:
    """The plain values among training options, for the description."""
    if isinstance(value, Namespace):
        value = value.state
    if not isinstance(value, Mapping):
        return {"options": {}}
    plain = {str(k): v for k, v in value.items() if isinstance(v, (str, int, float, type(None)))}
    return {"options": {k: v for k, v in sorted(plain.items()) if len(str(v)) < 1000}}


def counted(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in float32 with the counters of batch norms, which files of old versions of torch lack."""
    counters = {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}
    return counters | {k: v if k in counters else v.float() for k, v in state.items()}


def misshapen(expected: Mapping[str, Shape], state: Mapping[str, Any]) -> list[str]:
    """Which of these tensors are not there in this shape."""
    return [
        f"{name} has shape {list(state[name].shape)}, not {['any' if n is None else n for n in shape]}"
        for name, shape in expected.items()
        if len(shape) != len(state[name].shape)
        or any(n is not None and n != m for n, m in zip(shape, state[name].shape, strict=True))
    ]

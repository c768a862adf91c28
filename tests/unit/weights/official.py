"""Checkpoints in the formats of their authors, with random values.

Names and shapes are written here by hand, from the published files' layouts and independently of the modules
that read them. ``render`` computes a StyleGAN2 image step by step from NVIDIA's names.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FILTER = torch.tensor([[1, 3, 3, 1], [3, 9, 9, 3], [3, 9, 9, 3], [1, 3, 3, 1]]) / 64.0


# --- StyleGAN2


def nvidia_generator(
    resolution: int = 32, width: int = 5, layers: int = 2, seed: int = 0
) -> dict[str, Tensor]:
    """The parameters and buffers of a StyleGAN2-ADA generator by NVIDIA's names."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source)

    widths = {4: width, 8: width, 16: width - 1}
    p: dict[str, Tensor] = {}
    for i in range(layers):
        p[f"mapping.fc{i}.weight"] = 100 * normal(512, 512)
        p[f"mapping.fc{i}.bias"] = normal(512)
    p["mapping.w_avg"] = normal(512)
    p["synthesis.b4.const"] = normal(widths[4], 4, 4)
    size = 4
    while size <= resolution:
        outputs, inputs = widths.get(size, width - 2), widths.get(max(size // 2, 4), width - 2)
        block = f"synthesis.b{size}"
        p[f"{block}.resample_filter"] = FILTER.clone()
        for layer, channels in (("conv0", inputs), ("conv1", outputs)):
            if size == 4 and layer == "conv0":
                continue
            p[f"{block}.{layer}.weight"] = normal(outputs, channels, 3, 3)
            p[f"{block}.{layer}.bias"] = 0.1 * normal(outputs)
            p[f"{block}.{layer}.noise_strength"] = 0.1 * normal()
            p[f"{block}.{layer}.noise_const"] = normal(size, size)
            p[f"{block}.{layer}.resample_filter"] = FILTER.clone()
            p[f"{block}.{layer}.affine.weight"] = normal(channels, 512)
            p[f"{block}.{layer}.affine.bias"] = 1 + 0.1 * normal(channels)
        p[f"{block}.torgb.weight"] = normal(3, outputs, 1, 1)
        p[f"{block}.torgb.bias"] = 0.1 * normal(3)
        p[f"{block}.torgb.affine.weight"] = normal(outputs, 512)
        p[f"{block}.torgb.affine.bias"] = 1 + 0.1 * normal(outputs)
        size *= 2
    return p


def render(p: dict[str, Tensor], w_plus: Tensor) -> Tensor:
    """The image [3, R, R] of one W+ [rows, 512] by NVIDIA's definition, convolution by convolution."""
    p = {name: value.double() for name, value in p.items()}
    w_plus = w_plus.double()

    def zeros_between(x: Tensor) -> Tensor:
        wide = x.new_zeros(len(x), 2 * x.shape[1], 2 * x.shape[2])
        wide[:, ::2, ::2] = x
        return wide

    def filtered(x: Tensor, before: int, after: int) -> Tensor:
        # A true convolution with the (symmetric) filter, with the gain that makes up for the zeros.
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x[:, None], 4 * p["synthesis.b4.resample_filter"][None, None])[:, 0]

    def style(layer: str, row: int) -> Tensor:
        return p[f"{layer}.affine.weight"] @ w_plus[row] / math.sqrt(512) + p[f"{layer}.affine.bias"]

    def convolved(layer: str, x: Tensor, row: int, up: bool) -> Tensor:
        weight = p[f"{layer}.weight"] * style(layer, row)[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            # Zeros between pixels, true convolution with the kernel, low-pass filter.
            wide = F.pad(zeros_between(x), (2, 1, 2, 1))
            y = filtered(F.conv2d(wide[None], weight.flip(2, 3))[0], 1, 1)
        else:
            y = F.conv2d(x[None], weight, padding=1)[0]
        y = y + p[f"{layer}.noise_const"] * p[f"{layer}.noise_strength"] + p[f"{layer}.bias"][:, None, None]
        return torch.where(y > 0, y, 0.2 * y) * math.sqrt(2)

    def colours(layer: str, x: Tensor, row: int) -> Tensor:
        scaled = style(layer, row) / math.sqrt(len(x))
        weight = p[f"{layer}.weight"] * scaled[None, :, None, None]
        return F.conv2d(x[None], weight)[0] + p[f"{layer}.bias"][:, None, None]

    x = convolved("synthesis.b4.conv1", p["synthesis.b4.const"], 0, up=False)
    image = colours("synthesis.b4.torgb", x, 1)
    size, row = 8, 1
    while f"synthesis.b{size}.conv1.weight" in p:
        x = convolved(f"synthesis.b{size}.conv0", x, row, up=True)
        x = convolved(f"synthesis.b{size}.conv1", x, row + 1, up=False)
        image = filtered(zeros_between(image), 2, 1) + colours(f"synthesis.b{size}.torgb", x, row + 2)
        size, row = 2 * size, row + 2
    return image


def mapped(p: dict[str, Tensor], z: Tensor) -> Tensor:
    """W [B, 512] of z [B, 512]."""
    x = z.double()
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    i = 0
    while f"mapping.fc{i}.weight" in p:
        weight, bias = p[f"mapping.fc{i}.weight"].double(), p[f"mapping.fc{i}.bias"].double()
        y = x @ weight.T * 0.01 / math.sqrt(512) + 0.01 * bias
        x, i = torch.where(y > 0, y, 0.2 * y) * math.sqrt(2), i + 1
    return x


def rosinality_state(p: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same generator by rosinality's names (``g_ema``)."""
    state: dict[str, Tensor] = OrderedDict()
    i = 0
    while f"mapping.fc{i}.weight" in p:
        state[f"style.{i + 1}.weight"] = p[f"mapping.fc{i}.weight"]
        state[f"style.{i + 1}.bias"] = p[f"mapping.fc{i}.bias"]
        i += 1
    state["input.input"] = p["synthesis.b4.const"].unsqueeze(0)

    def styled(name: str, layer: str, up: bool) -> None:
        state[f"{name}.conv.weight"] = p[f"{layer}.weight"].unsqueeze(0)
        if up:
            state[f"{name}.conv.blur.kernel"] = 4 * FILTER
        state[f"{name}.conv.modulation.weight"] = p[f"{layer}.affine.weight"]
        state[f"{name}.conv.modulation.bias"] = p[f"{layer}.affine.bias"]
        state[f"{name}.noise.weight"] = p[f"{layer}.noise_strength"].view(1)
        state[f"{name}.activate.bias"] = p[f"{layer}.bias"]

    def rgb(name: str, layer: str, up: bool) -> None:
        state[f"{name}.bias"] = p[f"{layer}.bias"].view(1, 3, 1, 1)
        if up:
            state[f"{name}.upsample.kernel"] = 4 * FILTER
        state[f"{name}.conv.weight"] = p[f"{layer}.weight"].unsqueeze(0)
        state[f"{name}.conv.modulation.weight"] = p[f"{layer}.affine.weight"]
        state[f"{name}.conv.modulation.bias"] = p[f"{layer}.affine.bias"]

    styled("conv1", "synthesis.b4.conv1", up=False)
    rgb("to_rgb1", "synthesis.b4.torgb", up=False)
    noises = [p["synthesis.b4.conv1.noise_const"]]
    size, block = 8, 0
    while f"synthesis.b{size}.conv1.weight" in p:
        styled(f"convs.{2 * block}", f"synthesis.b{size}.conv0", up=True)
        styled(f"convs.{2 * block + 1}", f"synthesis.b{size}.conv1", up=False)
        rgb(f"to_rgbs.{block}", f"synthesis.b{size}.torgb", up=True)
        noises += [p[f"synthesis.b{size}.{layer}.noise_const"] for layer in ("conv0", "conv1")]
        size, block = 2 * size, block + 1
    for i, noise in enumerate(noises):
        state[f"noises.noise_{i}"] = noise[None, None]
    return state


@contextmanager
def modules_called(**members: Any) -> Iterator[None]:
    """Foreign modules for the time of pickling: ``torch_utils__persistence=[function]``."""
    before = dict(sys.modules)
    for name, contents in members.items():
        dotted = name.replace("__", ".")
        for end in [i for i, c in enumerate(dotted) if c == "."]:
            sys.modules.setdefault(dotted[:end], types.ModuleType(dotted[:end]))
        module = sys.modules[dotted] = types.ModuleType(dotted)
        for member in contents:
            member.__module__ = dotted
            setattr(module, member.__name__, member)
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


class EasyDict(dict):
    """NVIDIA's dictionary."""


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("pickled source was about to be executed")


_reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"


class Persistent(nn.Module):
    """A module as ``torch_utils.persistence`` pickles it."""

    source = ""

    def __init__(self) -> None:
        super().__init__()
        self._init_args = ()
        self._init_kwargs = EasyDict()

    def __reduce__(self) -> Any:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": type(self).source,
            "class_name": "Generator",
            "state": self.__dict__,
        }
        return _reconstruct_persistent_obj, (meta,), None


def persistent(tensors: dict[str, Tensor], **attributes: Any) -> Persistent:
    """A tree of modules that holds these tensors; attributes go to its root."""
    root = Persistent()
    for name, value in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Persistent())
            module = module._modules[part]
        if last in ("noise_const", "resample_filter", "w_avg"):
            module.register_buffer(last, value)
        else:
            module.register_parameter(last, nn.Parameter(value))
    for name, value in attributes.items():
        setattr(root, name, value)
    return root


def nvidia_pickle(
    path: Path, p: dict[str, Tensor], source: str = "", protocol: int = 3, **attributes: Any
) -> Path:
    """``network-snapshot-….pkl`` of StyleGAN2-ADA."""
    Persistent.source = source
    network = persistent(p, **{"c_dim": 0, "z_dim": 512, "img_resolution": 32, **attributes})
    data = {
        "G": None,
        "D": None,
        "G_ema": network,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="x"),
    }
    with modules_called(torch_utils__persistence=[_reconstruct_persistent_obj], dnnlib__util=[EasyDict]):
        path.write_bytes(pickle.dumps(data, protocol))
    return path


class Network:
    """NVIDIA's network of TensorFlow."""

    def __init__(self, variables: dict[str, np.ndarray], components: Any = None, **settings: Any) -> None:
        self.__dict__.update(
            version=4,
            name="Gs",
            static_kwargs=EasyDict(settings),
            components=EasyDict(components or {}),
            build_module_src="raise AssertionError",
            build_func_name="G_main",
            variables=list(variables.items()),
        )


def tensorflow_pickle(path: Path, p: dict[str, Tensor], **settings: Any) -> Path:
    """``stylegan2-ffhq-config-f.pkl``: (G, D, Gs), height × width × in × out."""
    a = {name: value.numpy() for name, value in p.items()}
    mapping, synthesis = {}, {"lod": np.float32(0)}
    i = 0
    while f"mapping.fc{i}.weight" in a:
        mapping[f"Dense{i}/weight"] = a[f"mapping.fc{i}.weight"].T
        mapping[f"Dense{i}/bias"] = a[f"mapping.fc{i}.bias"]
        i += 1
    synthesis["4x4/Const/const"] = a["synthesis.b4.const"][None]
    noise = 0
    for size in (4, 8, 16, 32):
        for layer, name in (
            ("conv0", "Conv0_up"),
            ("conv1", "Conv" if size == 4 else "Conv1"),
            ("torgb", "ToRGB"),
        ):
            prefix = f"synthesis.b{size}.{layer}"
            if f"{prefix}.weight" not in a:
                continue
            kernel = a[f"{prefix}.weight"].transpose(2, 3, 1, 0)
            out = f"{size}x{size}/{name}"
            synthesis[f"{out}/weight"] = np.rot90(kernel, 2) if layer == "conv0" else kernel
            synthesis[f"{out}/bias"] = a[f"{prefix}.bias"]
            synthesis[f"{out}/mod_weight"] = a[f"{prefix}.affine.weight"].T
            synthesis[f"{out}/mod_bias"] = a[f"{prefix}.affine.bias"] - 1
            if layer != "torgb":
                # TensorFlow gives variables without axes as numpy scalars.
                synthesis[f"{out}/noise_strength"] = np.float32(a[f"{prefix}.noise_strength"])
                synthesis[f"noise{noise}"] = a[f"{prefix}.noise_const"][None, None]
                noise += 1
    with modules_called(dnnlib__tflib__network=[Network], dnnlib__util=[EasyDict]):
        parts = {"synthesis": Network(synthesis), "mapping": Network(mapping)}
        top = {"lod": np.zeros((), np.float32), "dlatent_avg": a["mapping.w_avg"]}
        network = Network(top, parts, resolution=32, **settings)
        path.write_bytes(pickle.dumps((Network({}), Network({}), network), 3))
    return path


# --- IR-SE50 and the encoders on it


def normalisation(name: str, channels: int) -> dict[str, Tensor]:
    """A batch norm that passes values through."""
    return {
        f"{name}.weight": torch.ones(channels),
        f"{name}.bias": torch.zeros(channels),
        f"{name}.running_mean": torch.zeros(channels),
        f"{name}.running_var": torch.ones(channels),
        f"{name}.num_batches_tracked": torch.tensor(1),
    }


def ir_se50(channels: int = 3) -> dict[str, Tensor]:
    """The trunk: input layer and 24 blocks."""
    state = {"input_layer.0.weight": torch.zeros(64, channels, 3, 3), **normalisation("input_layer.1", 64)}
    state["input_layer.2.weight"] = torch.zeros(64)
    inputs, block = 64, 0
    for depth, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for _ in range(count):
            name = f"body.{block}"
            if inputs != depth:
                state[f"{name}.shortcut_layer.0.weight"] = torch.zeros(depth, inputs, 1, 1)
                state |= normalisation(f"{name}.shortcut_layer.1", depth)
            state |= normalisation(f"{name}.res_layer.0", inputs)
            state[f"{name}.res_layer.1.weight"] = torch.zeros(depth, inputs, 3, 3)
            state[f"{name}.res_layer.2.weight"] = torch.zeros(depth)
            state[f"{name}.res_layer.3.weight"] = torch.zeros(depth, depth, 3, 3)
            state |= normalisation(f"{name}.res_layer.4", depth)
            state[f"{name}.res_layer.5.fc1.weight"] = torch.zeros(depth // 16, depth, 1, 1)
            state[f"{name}.res_layer.5.fc2.weight"] = torch.zeros(depth, depth // 16, 1, 1)
            inputs, block = depth, block + 1
    return state


def arcface() -> dict[str, Tensor]:
    """``model_ir_se50.pth``."""
    state = ir_se50() | normalisation("output_layer.0", 512)
    state["output_layer.3.weight"] = torch.zeros(512, 512 * 7 * 7)
    state["output_layer.3.bias"] = torch.randn(512, generator=torch.Generator().manual_seed(1))
    return state | normalisation("output_layer.4", 512)


def encoder(pyramid: bool, rows: int) -> dict[str, Tensor]:
    """pSp's and e4e's encoder, or ReStyle's; zero but for the biases of the last layers."""
    state = ir_se50(3 if pyramid else 6)
    source = torch.Generator().manual_seed(2)
    for row in range(rows):
        convolutions = 4 if row < 3 or not pyramid else 5 if row < 7 else 6
        for i in range(convolutions):
            state[f"styles.{row}.convs.{2 * i}.weight"] = torch.zeros(512, 512, 3, 3)
            state[f"styles.{row}.convs.{2 * i}.bias"] = torch.zeros(512)
        state[f"styles.{row}.linear.weight"] = torch.zeros(512, 512)
        state[f"styles.{row}.linear.bias"] = torch.randn(512, generator=source)
    if pyramid:
        for name, channels in (("latlayer1", 256), ("latlayer2", 128)):
            state[f"{name}.weight"] = torch.zeros(512, channels, 1, 1)
            state[f"{name}.bias"] = torch.zeros(512)
    return state


def resnet50(prefix: str = "") -> dict[str, Tensor]:
    """The trunk of Hopenet: torchvision's ResNet-50 without its last layer."""
    state = {"conv1.weight": torch.zeros(64, 3, 7, 7), **normalisation("bn1", 64)}
    inputs = 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            shapes = ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for i, shape in enumerate(shapes, start=1):
                state[f"{name}.conv{i}.weight"] = torch.zeros(shape)
                state |= normalisation(f"{name}.bn{i}", shape[0])
            if block == 0:
                state[f"{name}.downsample.0.weight"] = torch.zeros(4 * width, inputs, 1, 1)
                state |= normalisation(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return {f"{prefix}{name}": value for name, value in state.items()}


def randomised(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The same names and shapes with random values, of a size that a deep network passes on."""
    source = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=source) if value.is_floating_point() else value
        if name.endswith("running_var"):
            noise = 1 + 0.2 * noise.abs()
        elif f"{name.rpartition('.')[0]}.running_mean" in state and name.endswith(".weight"):
            noise = 1 + 0.1 * noise
        elif value.ndim > 1:
            noise = noise / math.sqrt(value[0].numel())
        elif value.is_floating_point():
            noise = 0.2 + 0.1 * noise
        found[name] = noise
    return found


def normalise(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """A batch norm in use, of [B, C, ...]."""
    shape = (1, -1, *(1 for _ in x.shape[2:]))
    mean, var, weight, bias = (
        p[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """A leaky ReLU with a slope for each channel."""
    return torch.where(x > 0, x, slope.view(1, -1, 1, 1) * x)


def run_ir_se50(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """The trunk of ``ir_se50``, layer by layer: [B, C, H, W] → [B, 512, H/16, W/16]."""
    x = prelu(
        normalise(p, "input_layer.1", F.conv2d(x, p["input_layer.0.weight"], padding=1)),
        p["input_layer.2.weight"],
    )
    for block in range(24):
        name, stride = f"body.{block}", 2 if block in (0, 3, 7, 21) else 1
        short = x[:, :, ::stride, ::stride]
        if f"{name}.shortcut_layer.0.weight" in p:
            short = normalise(
                p, f"{name}.shortcut_layer.1", F.conv2d(short, p[f"{name}.shortcut_layer.0.weight"])
            )
        x = normalise(p, f"{name}.res_layer.0", x)
        x = prelu(F.conv2d(x, p[f"{name}.res_layer.1.weight"], padding=1), p[f"{name}.res_layer.2.weight"])
        x = F.conv2d(x, p[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
        x = normalise(p, f"{name}.res_layer.4", x)
        gate = F.conv2d(x.mean((2, 3), keepdim=True), p[f"{name}.res_layer.5.fc1.weight"]).clamp_min(0)
        x = x * torch.sigmoid(F.conv2d(gate, p[f"{name}.res_layer.5.fc2.weight"])) + short
    return x


# --- the papers' models


def p1_model(rows: int, generator: dict[str, Tensor]) -> dict[str, Any]:
    """P1's ``best_model.pt``: encoder, mapping_net, decoder; options, no mean latent."""
    encoder = ir_se50() | normalisation("output_layer_2.0", 512)
    encoder["output_layer_2.3.weight"] = torch.zeros(512, 512 * 7 * 7)
    encoder["output_layer_2.3.bias"] = torch.zeros(512)
    encoder["linear.weight"] = torch.zeros(512 * rows, 512)
    encoder["linear.bias"] = torch.zeros(512 * rows)
    mapping = {
        "linear_relu.0.weight": torch.zeros(512 * rows, 2 * 512 * rows),
        "linear_relu.0.bias": torch.zeros(512 * rows),
    }
    state = {f"encoder.{k}": v for k, v in randomised(encoder).items()}
    state |= {f"mapping_net.{k}": v for k, v in randomised(mapping, 1).items()}
    state |= {f"decoder.{k}": v for k, v in rosinality_state(generator).items()}
    return {"state_dict": state, "opts": {"output_size": 1024, "input_nc": 3, "train_decoder": False}}


def run_p1(state: dict[str, Tensor], identity: Tensor, frame: Tensor) -> Tensor:
    """W+ [rows, 512] of P1 for a target's latent [rows, 512] and a driving frame [3, 256, 256]."""
    p = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    x = normalise(p, "output_layer_2.0", run_ir_se50(p, frame[None]))[0]
    side = x.shape[1]
    edges = [(i * side // 7, -(-(i + 1) * side // 7)) for i in range(7)]
    pooled = torch.stack(
        [torch.stack([x[:, a:b, c:d].mean((1, 2)) for c, d in edges], 1) for a, b in edges], 1
    )
    code = p["output_layer_2.3.weight"] @ pooled.flatten() + p["output_layer_2.3.bias"]
    motion = p["linear.weight"] @ code / math.sqrt(512) + p["linear.bias"]
    both = torch.cat([identity.flatten(), motion])
    mapped = state["mapping_net.linear_relu.0.weight"] @ both + state["mapping_net.linear_relu.0.bias"]
    return mapped.view_as(identity)


def p2_directions(directions: int = 15, rows: int = 8) -> dict[str, Any]:
    """P2's ``A_matrix.pt``."""
    source = torch.Generator().manual_seed(3)
    return {
        "step": 150_000,
        "A_matrix": {
            "linear.weight": torch.randn(512 * rows, directions, generator=source),
            "linear.bias": torch.randn(512 * rows, generator=source),
        },
        "learned_directions": directions,
        "shift_scale": 6,
        "w_plus": True,
        "num_layers_shift": rows,
        "shift_dim": 512,
    }


def save(path: Path, content: Any, legacy: bool = False) -> Path:
    """``torch.save`` in the zip format, or in that before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def bytes_of(content: Any, legacy: bool = False) -> bytes:
    """The bytes of ``torch.save``."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


# --- FLAME


class Ch:
    """A variable of chumpy."""

    def __init__(self, x: np.ndarray) -> None:
        self.__dict__.update(x=x, _dirty_vars=[], _itr=None)


class csc_matrix:
    """A sparse matrix of scipy, by column."""

    def __init__(self, dense: np.ndarray) -> None:
        columns, rows = np.nonzero(dense.T)
        starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=dense.shape[1]))])
        self.__dict__.update(
            _shape=dense.shape,
            maxprint=50,
            indices=rows.astype(np.int32),
            indptr=starts.astype(np.int32),
            data=dense[rows, columns],
        )


def flame(vertices: int = 11, joints: int = 5) -> dict[str, Any]:
    """The contents of ``generic_model.pkl``, with fewer vertices."""
    rng = np.random.default_rng(0)
    regressor = rng.normal(size=(joints, vertices)) * (rng.random((joints, vertices)) < 0.4)
    return {
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "v_template": Ch(rng.normal(size=(vertices, 3))),
        "f": rng.integers(0, vertices, (6, 3)).astype(np.uint32),
        "shapedirs": Ch(rng.normal(size=(vertices, 3, 400))),
        "posedirs": rng.normal(size=(vertices, 3, 9 * (joints - 1))),
        "weights": rng.random((vertices, joints)),
        "J": rng.normal(size=(joints, 3)),
        "J_regressor": csc_matrix(regressor),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
    }


def flame_pickle(path: Path, content: dict[str, Any], protocol: int = 2) -> Path:
    """Written under the names of chumpy and scipy."""
    with modules_called(chumpy__ch=[Ch], scipy__sparse__csc=[csc_matrix]):
        path.write_bytes(pickle.dumps(content, protocol))
    return path

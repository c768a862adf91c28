"""StyleGAN2 generators from published files, under the names of ``remime.generators.stylegan2``.

Those are rosinality's names. NVIDIA's parameters are the same numbers in other shapes, because both
multiply a stored weight of unit variance by 1/√inputs while the network runs; what differs:

* NVIDIA's ToRGB scales its styles by 1/√inputs, rosinality's its weight. Nothing is rescaled for that: the
  image of W+ is the same, only the style vectors of ToRGB (StyleSpace) are √inputs times NVIDIA's.
* rosinality stores the low-pass filter with the gain 4 of upsampling, NVIDIA without.
* In TensorFlow the axes are height × width × in × out, the kernels of upsampling convolutions are turned by
  180°, and the bias of an affine layer is stored without its initial 1.
* The mean of W is ``latent_avg`` beside ``g_ema``, ``mapping.w_avg`` or ``dlatent_avg``. Where a file has
  none it is estimated once and stored, so that truncation never depends on a run.
* Noise buffers are part of the network: without them another image comes out. Where a file has none (old
  training runs of rosinality's), they are drawn once with a fixed seed and stored.

Every function raises ``ValueError`` (or what a missing part raises) where a file is not such a generator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remime.generators.stylegan2 import LATENT, StyleGAN2
from remime.weights import unpickle

SMALLEST, LARGEST = 3, 11  # log2 of the resolution
_MOST_LAYERS = 16  # of the mapping; published ones have 8 or 2
_FILTER = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0]))


def misfits(expected: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors from fitting a layout of names to tensors; counters of batch norms may be absent."""
    problems = [f"{n} is missing" for n in expected if n not in tensors and "num_batches_tracked" not in n]
    problems += [f"{n} is unknown" for n in tensors if n not in expected]
    problems += [
        f"{n} has shape {list(tensors[n].shape)}, not {list(e.shape)}"
        for n, e in expected.items()
        if n in tensors and tensors[n].shape != e.shape
    ]
    return problems


def listed(problems: list[str], most: int = 4) -> str:
    """Problems in one line, not all of them where there are many."""
    rest = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problem[:200] for problem in problems[:most]) + rest


def complete(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Check a generator in rosinality's layout and add what it may lack.

    Args:
        state: its state dict; ``latent_avg`` or ``mean_latent`` ([512] or [rows, 512]) is optional, as are
            the noise buffers if all are absent.

    Returns:
        The full state dict of ``StyleGAN2`` in float32 with ``mean_latent`` [512]; notes on what was added.

    Raises:
        ValueError: names or shapes do not form a generator, or it filters in another way.
    """
    tensors = {key: value.float() for key, value in state.items()}
    mean = tensors.pop("latent_avg", tensors.pop("mean_latent", None))
    expected, resolution = _layout(tensors)
    notes = []
    # Constants: a file without them lacks nothing.
    tensors = {key: _FILTER / 16 for key in expected if key.endswith(".kernel")} | tensors
    noises = [key for key in expected if key.startswith("noises.")]
    if not any(key in tensors for key in noises):
        source = torch.Generator().manual_seed(0)
        tensors |= {key: torch.randn(expected[key].shape, generator=source) for key in noises}
        notes.append("the file has no noise buffers; they were drawn with seed 0")
    if problems := misfits(expected, tensors):
        raise ValueError(f"it is no StyleGAN2 of {resolution}²: {listed(problems)}")
    for key in (k for k in expected if k.endswith(".kernel")):
        if not torch.allclose(tensors[key], _FILTER / 16, atol=1e-4):
            raise ValueError(f"{key} is another low-pass filter than [1, 3, 3, 1]")
    if mean is not None:
        tensors["latent_avg"] = _mean(mean, 2 * resolution.bit_length() - 4)
    else:
        notes.append("the file has no mean latent; it was estimated from 10,000 draws with seed 0")
    return StyleGAN2.from_tensors(tensors).state_dict(), notes


def fingerprint(tensors: Mapping[str, Tensor]) -> list[float]:
    """A few numbers that tell generators apart: the resolution, and values of the first and the last layers.

    Args:
        tensors: a full state dict, as :func:`complete` returns it.
    """
    last = max(_numbers(tensors, "to_rgbs."))
    parts = (
        tensors["style.1.bias"][:4],
        tensors["input.input"].flatten()[:4],
        tensors[f"to_rgbs.{last}.bias"],
    )
    return [float(2 ** (last + 3)), *(round(float(x), 6) for part in parts for x in part.flatten())]


def _mean(value: Tensor, rows: int) -> Tensor:
    """The mean latent [512] of a stored [512], [1, 512] or [rows, 512] whose rows are equal."""
    if value.shape[-1:] != (LATENT,) or value.numel() not in (LATENT, rows * LATENT):
        raise ValueError(f"the mean latent has shape {list(value.shape)}, not [512] or [{rows}, 512]")
    return value.reshape(-1, LATENT)[0]


def _layout(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Names and shapes (on the meta device) of the generator that these tensors would be, and its size."""
    blocks = 1 + max(_numbers(tensors, "to_rgbs."), default=-1)
    layers = max(_numbers(tensors, "style."), default=0)
    if not SMALLEST <= blocks + 2 <= LARGEST or not 1 <= layers <= _MOST_LAYERS:
        raise ValueError(f"it has {blocks + 1} resolutions and {layers} mapping layers")
    try:
        widths = {4: tensors["input.input"].shape[1]}
        for i in range(blocks):
            widths[2 ** (i + 3)] = tensors[f"convs.{2 * i + 1}.conv.weight"].shape[1]
    except (KeyError, IndexError) as error:
        raise ValueError(f"{error} is missing or has too few axes") from None
    resolution = 2 ** (blocks + 2)
    with torch.device("meta"):
        expected = StyleGAN2(resolution, widths, layers).state_dict()
    del expected["mean_latent"]
    return expected, resolution


def _numbers(tensors: Mapping[str, Tensor], prefix: str) -> list[int]:
    found = (
        re.fullmatch(r"(\d{1,6})\..*", key.removeprefix(prefix)) for key in tensors if key.startswith(prefix)
    )
    return [int(match.group(1)) for match in found if match]


def from_rosinality(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """A checkpoint of rosinality's training or converter: ``g_ema``, ``latent_avg``; or the state alone."""
    state = content.get("g_ema", content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError("g_ema is no state dict")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    average = content.get("latent_avg")
    if isinstance(average, Tensor):
        state["latent_avg"] = average
    return complete(state)


# --- NVIDIA, PyTorch

_LAYER = {
    "weight": ("conv.weight", lambda t: t[None]),
    "bias": ("activate.bias", lambda t: t),
    "noise_strength": ("noise.weight", lambda t: t.reshape(1)),
    "affine.weight": ("conv.modulation.weight", lambda t: t),
    "affine.bias": ("conv.modulation.bias", lambda t: t),
}
_TO_RGB = {
    "weight": ("conv.weight", lambda t: t[None]),
    "bias": ("bias", lambda t: t.reshape(1, -1, 1, 1)),
    "affine.weight": ("conv.modulation.weight", lambda t: t),
    "affine.bias": ("conv.modulation.bias", lambda t: t),
}


def from_nvidia(generator: Any) -> tuple[dict[str, Tensor], list[str]]:
    """``G_ema`` of StyleGAN2-ADA or later, as pickled by ``torch_utils.persistence``; its source is not read.

    Args:
        generator: the record of the module.
    """
    notes = _check_settings(generator)
    return _finish(_rename(unpickle.module_tensors(generator)), notes)


def _finish(renamed: dict[str, Tensor], notes: list[str]) -> tuple[dict[str, Tensor], list[str]]:
    tensors, more = complete(renamed)
    return tensors, notes + more


def _check_settings(generator: Any) -> list[str]:
    """Refuse what our network does not compute; notes on what it leaves out."""
    notes: list[str] = []
    top = unpickle.attributes(generator)
    if top.get("c_dim"):
        raise ValueError(f"it is a conditional generator (c_dim {top['c_dim']!r}), which is not supported")
    for name, inside in unpickle.modules(generator):
        for key, wanted in (("architecture", "skip"), ("activation", "lrelu"), ("use_noise", True)):
            found = inside.get(key, wanted)
            if found != wanted and ".affine" not in name:
                raise ValueError(f"{name}{key} is {found!r}; only {wanted!r} is supported")
        clamp = inside.get("conv_clamp")
        if isinstance(clamp, (int, float)) and not notes:
            notes.append(f"activations were clamped to ±{clamp} (for half precision); here they are not")
    return notes


def _rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """NVIDIA's names and shapes to rosinality's."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name == "mapping.w_avg":
            renamed["latent_avg"] = value
        elif match := re.fullmatch(r"mapping\.fc(\d{1,3})\.(weight|bias)", name):
            renamed[f"style.{int(match.group(1)) + 1}.{match.group(2)}"] = value
        elif name == "synthesis.b4.const":
            renamed["input.input"] = value[None]
        elif match := re.fullmatch(r"synthesis\.b(\d{1,4})\.(conv0|conv1|torgb)\.(.+)", name):
            renamed |= _rename_layer(int(match.group(1)), match.group(2), match.group(3), value)
        elif re.fullmatch(r"synthesis\.b\d{1,4}\.resample_filter", name):
            _check_filter(name, value)
        else:
            raise ValueError(f"{name} is no part of a StyleGAN2 generator" + _hint(name))
    for prefix in {key.rpartition(".conv.weight")[0] for key in renamed if key.endswith("conv.weight")}:
        # The first convolution at each resolution upsamples, and so does every toRGB but the first.
        block, _, number = prefix.partition(".")
        if block == "convs" and int(number) % 2 == 0:
            renamed[f"{prefix}.conv.blur.kernel"] = _FILTER / 16
        elif block == "to_rgbs":
            renamed[f"{prefix}.upsample.kernel"] = _FILTER / 16
    return renamed


def _hint(name: str) -> str:
    return " (StyleGAN3 is not supported)" if "synthesis.input." in name or "magnitude_ema" in name else ""


def _rename_layer(resolution: int, layer: str, part: str, value: Tensor) -> dict[str, Tensor]:
    k = resolution.bit_length() - 1
    if resolution != 2**k or not 2 <= k <= LARGEST or (k == 2 and layer == "conv0"):
        raise ValueError(f"it has a block {layer} of {resolution}²")
    if part == "resample_filter":
        _check_filter(f"b{resolution}.{layer}.{part}", value)
        return {}
    if layer == "torgb":
        place = "to_rgb1" if k == 2 else f"to_rgbs.{k - 3}"
        table: Mapping[str, Any] = _TO_RGB
    else:
        second = int(layer == "conv1")
        place = "conv1" if k == 2 else f"convs.{2 * (k - 3) + second}"
        if part == "noise_const":
            return {f"noises.noise_{2 * k - 5 + second if k > 2 else 0}": value[None, None]}
        table = _LAYER
    if part not in table:
        raise ValueError(f"b{resolution}.{layer}.{part} is no part of a StyleGAN2 generator" + _hint(part))
    name, reshape = table[part]
    return {f"{place}.{name}": reshape(value)}


def _check_filter(name: str, value: Tensor) -> None:
    if value.shape != (4, 4) or not torch.allclose(value, _FILTER / 64, atol=1e-4):
        raise ValueError(f"{name} is another low-pass filter than [1, 3, 3, 1]")


# --- NVIDIA, TensorFlow


def from_tensorflow(network: Any) -> tuple[dict[str, Tensor], list[str]]:
    """``Gs`` of StyleGAN2 in TensorFlow (``dnnlib.tflib``); its source is not read.

    Args:
        network: the record of the network.
    """
    settings = unpickle.attributes(network).get("static_kwargs") or {}
    for key, wanted in (
        ("label_size", (0, None)),
        ("architecture", ("skip", None)),
        ("resample_kernel", ([1, 3, 3, 1], None)),
        ("use_noise", (True, None)),
        ("nonlinearity", ("lrelu", None)),
        ("mapping_nonlinearity", ("lrelu", None)),
    ):
        if settings.get(key) not in wanted:
            raise ValueError(f"{key} is {settings[key]!r}; only {wanted[0]!r} is supported")
    renamed: dict[str, Tensor] = {}
    for name, value in _variables(network).items():
        renamed |= _from_variable(name, value)
    return _finish(_rename(renamed), [])


def _variables(network: Any) -> dict[str, np.ndarray]:
    """All variables of a network and its components (synthesis, mapping), which are networks themselves."""
    found: dict[str, np.ndarray] = {}
    parts = [("", network)]
    for key, part in (unpickle.attributes(network).get("components") or {}).items():
        parts.append((f"{key}/", part))
    for prefix, part in parts:
        for name, value in unpickle.attributes(part)["variables"]:
            found[f"{prefix}{name}"] = unpickle.array(value)
    return found


def _from_variable(name: str, value: np.ndarray) -> dict[str, Tensor]:
    """A variable of TensorFlow under the name and in the shape of NVIDIA's PyTorch version."""
    if name == "dlatent_avg":
        return {"mapping.w_avg": _float(value)}
    if name in ("lod", "synthesis/lod"):  # the progress of training
        return {}
    if match := re.fullmatch(r"mapping/Dense(\d{1,3})/(weight|bias)", name):
        return {f"mapping.fc{match.group(1)}.{match.group(2)}": _float(value.T)}
    if match := re.fullmatch(r"synthesis/noise(\d{1,3})", name):
        number = int(match.group(1))
        size = 2 ** ((number + 5) // 2)
        layer = "conv0" if number % 2 else "conv1"
        return {f"synthesis.b{size}.{layer}.noise_const": _float(value[0, 0])}
    if name == "synthesis/4x4/Const/const":
        return {"synthesis.b4.const": _float(value[0])}
    match = re.fullmatch(r"synthesis/(\d{1,4})x\1/(Conv|Conv0_up|Conv1|ToRGB)/(\w+)", name)
    if not match:
        raise ValueError(f"{name} is no part of a StyleGAN2 generator")
    size, layer, part = match.groups()
    place = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb"}[layer]
    prefix = f"synthesis.b{size}.{place}"
    if part == "weight":
        kernel = value[::-1, ::-1] if layer == "Conv0_up" else value
        return {f"{prefix}.weight": _float(kernel.transpose(3, 2, 0, 1))}
    if part == "mod_weight":
        return {f"{prefix}.affine.weight": _float(value.T)}
    if part == "mod_bias":
        return {f"{prefix}.affine.bias": _float(value) + 1}
    return {f"{prefix}.{part}": _float(value)}


def _float(value: np.ndarray) -> Tensor:
    with np.errstate(over="ignore"):  # beyond float32: infinite
        return torch.from_numpy(np.array(value, np.float32, order="C"))

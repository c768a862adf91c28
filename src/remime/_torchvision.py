"""Import torchvision where its compiled operators do not fit the installed torch.

torchvision's wheel declares fake kernels for ``torchvision::nms`` and ``qnms`` on import; beside a CPU build
of torch the operators themselves are missing, and the import fails. Declaring them first is enough for its
models and transforms; its detection models and image readers stay unusable. Packages that import torchvision
themselves (lpips, some of torchmetrics) need this call before them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None  # the declarations live as long as this object


def torchvision() -> ModuleType:
    """Import torchvision, with the missing operators declared if need be.

    Raises:
        ImportError: torchvision is not installed.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _library is not None:
            raise
    for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        _library.define(operator + _SCHEMA)
    return importlib.import_module("torchvision")

"""Converters: foreign weight formats in, tensors and JSON metadata out.

A converter is a module of this package, named in the column ``converter`` of ``workflow/weights.tsv``. It has
one function and one integer::

    VERSION = 1  # raised when the result changes; older conversions are then made again

    def convert(files: dict[str, Path]) -> tuple[dict[str, torch.Tensor], dict]: ...

``files`` maps the last path component of every member of the table's row (``SynthesisNetwork.xml``; for the
nested member ``a.task!b.tflite`` it is ``b.tflite``) to a file whose sha256 has been verified. The tensors
are contiguous and named for a reader; the dictionary is JSON (for graph networks with the key ``graph``).
The modules are imported on demand, because some need a parser that running the networks does not.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from remime.errors import WeightsError


def _module(converter: str) -> ModuleType:
    name = f"{__name__}.{converter}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise WeightsError(
                f"converter {converter!r} of workflow/weights.tsv does not exist\n"
                "  name a module of remime.weights.convert"
            ) from None
        raise WeightsError(
            f"converter {converter!r} needs the Python package {error.name!r}\n  pip install {error.name}"
        ) from None


def converter_version(converter: str) -> int:
    """The version of a converter's results."""
    return int(getattr(_module(converter), "VERSION", 1))


def convert(converter: str, files: dict[str, Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Run a converter by name.

    Raises:
        WeightsError: there is no such converter, or the files are not what it expects.
    """
    return _module(converter).convert(files)

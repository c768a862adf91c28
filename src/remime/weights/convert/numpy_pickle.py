"""Nested dictionaries of numpy arrays out of a pickle, of which no code runs.

A pickle names functions and calls them; here three names are known, and they stand for the inert classes
below, not for numpy's. Everything else is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from remime.errors import WeightsError

_KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class _DType:
    """What a pickle says about an array's element type."""

    def __init__(self, code: str, _align: object = False, _copy: object = False) -> None:
        if code not in _KINDS:
            raise pickle.UnpicklingError(f"an array of type {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">", "|": "|"}[state[1]]

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """What a pickle says about an array."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array without plain data")
        self.value = np.frombuffer(data, dtype.dtype()).reshape(shape, order="F" if fortran else "C").copy()


def _reconstruct(_kind: object, _shape: object, _code: object) -> _Array:
    return _Array()


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed") from None

    def persistent_load(self, _identifier: object) -> object:
        raise pickle.UnpicklingError("it refers to something outside of the file")


def _plain(value: object) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__} in place of arrays in dictionaries")


def load(path: str | Path) -> dict[str, Any]:
    """Read nested dictionaries of numeric numpy arrays.

    Raises:
        WeightsError: the file is damaged, or holds or asks for anything else.
    """
    try:
        with Path(path).open("rb") as handle:
            result = _plain(_Unpickler(handle).load())
        if not isinstance(result, dict):
            raise pickle.UnpicklingError("it holds a single array")
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise WeightsError(f"{path}: not a pickle of numpy arrays that may be read ({error})") from None
    return result

"""FLAME's ``generic_model.pkl``, out of the records of its pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remime.weights import stylegan2, unpickle
from remime.weights.kinds import KINDS, Recognised, Shape, misshapen
from remime.weights.unpickle import Record

_FLAME: dict[str, Shape] = {
    "v_template": (None, 3),
    "f": (None, 3),
    "shapedirs": (None, 3, None),
    "posedirs": (None, 3, None),
    "weights": (None, None),
    "J_regressor": (None, None),
    "kintree_table": (2, None),
}


def flame(content: Mapping[str, Any]) -> Recognised:
    """FLAME (Li et al. 2017): arrays, a sparse joint regressor, and chumpy variables around some of them."""
    arrays = {}
    for name in [*_FLAME, "J"]:
        if name in content:
            arrays[name] = _dense(name, content[name])
    if missing := [name for name in _FLAME if name not in arrays]:
        raise ValueError(f"it looks like FLAME, but {', '.join(missing)} is missing")
    if problems := misshapen(_FLAME, arrays):
        raise ValueError(f"it looks like FLAME, but {stylegan2.listed(problems)}")
    vertices = len(arrays["v_template"])
    joints = arrays["kintree_table"].shape[1]
    for name, shape in {
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "weights": (vertices, joints),
        "J_regressor": (joints, vertices),
    }.items():
        if problems := misshapen({name: shape}, arrays):
            raise ValueError(f"it looks like FLAME with {vertices} vertices, but {problems[0]}")
    tensors = {name: _numbers(value) for name, value in arrays.items()}
    return Recognised(KINDS["flame"], tensors, {"notes": ["chumpy variables were read as plain arrays"]})


def _numbers(value: np.ndarray) -> Tensor:
    kind = np.float32 if value.dtype.kind == "f" else np.int64
    with np.errstate(over="ignore"):  # beyond float32: infinite
        return torch.from_numpy(np.array(value, kind, order="C"))


def _dense(name: str, value: Any) -> np.ndarray:
    """An array, the value of a chumpy variable, or a sparse matrix written out."""
    if isinstance(value, Record) and value.name.startswith("chumpy."):
        state = value.state
        if not isinstance(state, Mapping) or "x" not in state:
            raise ValueError(f"{name} is a {value.name}, whose value is not stored")
        return unpickle.array(state["x"])
    if isinstance(value, Record) and value.name.startswith("scipy.sparse."):
        return _written_out(name, value)
    return unpickle.array(value)


def _written_out(name: str, record: Record) -> np.ndarray:
    state = record.state
    data, indices, starts = (unpickle.array(state[key]) for key in ("data", "indices", "indptr"))
    rows, columns = state["_shape"] if "_shape" in state else state["shape"]
    by_column = record.name.endswith("csc_matrix")
    outer, inner = (columns, rows) if by_column else (rows, columns)
    counts = np.diff(starts)
    fits = len(starts) == outer + 1 and (counts >= 0).all() and counts.sum() == len(data) == len(indices)
    if not fits or starts[0] != 0 or (len(indices) and not 0 <= indices.min() <= indices.max() < inner):
        raise ValueError(f"{name} is a sparse matrix whose parts do not fit each other")
    # Only the inner size is free: the outer one is bounded by the starts that the file holds.
    if inner * outer > 1 << 26:
        raise ValueError(f"{name} is a sparse matrix of {rows}×{columns}")
    dense = np.zeros((outer, inner), np.float64)
    np.add.at(dense, (np.repeat(np.arange(outer), counts), indices), data)
    return dense.T if by_column else dense

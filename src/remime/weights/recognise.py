"""What a foreign checkpoint is, told from the names and shapes of its tensors, never from its file name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remime.errors import InputError, WeightsError
from remime.graph import GraphNetwork
from remime.weights import flame, papers, psp, stylegan2, unpickle
from remime.weights.convert import convert
from remime.weights.kinds import ALLOWED, KINDS, PSP_FAMILY, Kind, Recognised, misshapen, options_of, state_of
from remime.weights.unpickle import Record


def recognise(path: str | Path, kind: str | None = None) -> Recognised:
    """Read a checkpoint and tell what it is. Nothing that it contains is executed.

    Args:
        path: the file.
        kind: for a pSp-like file whose options do not tell which of two encoders with the same names it has.

    Raises:
        InputError: it cannot be read, is damaged, or is none of the known kinds; it names the file, what is
            wrong, and what is allowed.
    """
    path = Path(path)
    if kind is not None and kind not in PSP_FAMILY.values():
        raise InputError("--kind", f"{kind!r} is no kind", f"allowed: {', '.join(PSP_FAMILY.values())}")
    if not path.is_file():
        problem = "is not a file" if path.exists() else "there is no such file"
        raise InputError(path, problem, "give the path of a checkpoint")
    try:
        return _recognise(path, kind)
    except InputError:
        raise
    except OSError as error:
        # Also what zipfile and torch raise for damaged archives.
        raise InputError(path, f"cannot be read ({_first_line(error)})", _AGAIN) from None
    except (WeightsError, ValueError, unpickle.pickle.UnpicklingError) as error:
        raise InputError(path, _first_line(error), f"{_AGAIN}\n  {ALLOWED}") from None
    except Exception as error:  # damaged bytes can make the readers raise nearly anything
        told = f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(path, f"is damaged or cut off ({told})", f"{_AGAIN}\n  {ALLOWED}") from None


_AGAIN = "get the file again and compare its size and sha256 with its source's"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:600] or type(error).__name__


_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"<", "is a web page, not a checkpoint: the download met a login, a quota or a warning"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself"),
    (b"BZh", "is compressed with bzip2: unpack it first (bunzip2)"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first (gunzip)"),
    (b"\x89HDF", "is an HDF5 file"),
    (b"Rar!", "is a RAR archive: unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive: unpack it first"),
)


def _recognise(path: Path, kind: str | None) -> Recognised:
    with path.open("rb") as handle:
        head = handle.read(64)
    if not head:
        raise InputError(path, "is empty", _AGAIN)
    for magic, told in _FOREIGN:
        if head.lstrip().startswith(magic):
            raise InputError(path, told, ALLOWED)
    if head.startswith((b"PK\x03\x04", unpickle.LEGACY)):
        return _from_torch(path, kind)
    if head[:1] == b"\x80":
        return _from_pickle(path)
    if b"loss_metric" in head or re.match(rb"\x01\x01[\x81-\x84]", head):
        return _from_dlib(path)
    if re.match(rb"\x08[\x03-\x20]", head):  # field 1 of an ONNX model: the version of its format
        return _from_onnx(path)
    raise InputError(path, f"begins with {head[:8]!r}, which no known checkpoint does", ALLOWED)


def _from_torch(path: Path, kind: str | None) -> Recognised:
    content = unpickle.read_torch(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__} in place of a dictionary")
    inner = content.get("state_dict")
    if isinstance(inner, Mapping) and _has(inner, "mapping_net."):
        return papers.mapping(content)
    if isinstance(inner, Mapping) and _has(inner, "encoder."):
        return psp.psp_family(content, kind)
    if isinstance(content.get("A_matrix"), Mapping):
        return papers.directions(content)
    if isinstance(content.get("e"), Mapping) and _has(content["e"], "latlayer1."):
        return papers.directions_encoder(content["e"])
    if "g_ema" in content:
        tensors, notes = stylegan2.from_rosinality(content)
        return _generator(tensors, notes, options_of(content.get("args")))
    state = state_of(inner if isinstance(inner, Mapping) else content)
    return _from_state(state)


def _has(state: Mapping[Any, Any], prefix: str) -> bool:
    return any(isinstance(key, str) and key.startswith(prefix) for key in state)


def _from_state(state: dict[str, Tensor]) -> Recognised:
    """A plain state dict: the kind all of whose anchors it has."""
    for kind in KINDS.values():
        if not kind.anchors or not all(name in state for name in kind.anchors):
            continue
        if problems := misshapen(kind.anchors, state):
            raise ValueError(f"it has the names of {kind.name}, but {stylegan2.listed(problems)}")
        return _FINISH.get(kind.name, _as_it_is)(kind, state)
    shown = ", ".join(f"{n} {list(t.shape)}" for n, t in list(state.items())[:4]) or "no tensors"
    raise ValueError(f"it is none of the known kinds: {len(state)} tensors, {shown[:300]}")


def _as_it_is(kind: Kind, state: dict[str, Tensor]) -> Recognised:
    return Recognised(kind, state, {"notes": []})


def _stylegan2(kind: Kind, state: dict[str, Tensor]) -> Recognised:
    return _generator(*stylegan2.from_rosinality(state))


def _generator(
    tensors: dict[str, Tensor], notes: list[str], more: Mapping[str, Any] | None = None
) -> Recognised:
    fingerprint = stylegan2.fingerprint(tensors)
    return Recognised(
        KINDS["stylegan2"], tensors, {"notes": notes, "fingerprint": fingerprint, **(more or {})}
    )


def _fitting(
    layout: Callable[[], torch.nn.Module], what: str
) -> Callable[[Kind, dict[str, Tensor]], Recognised]:
    """Check a state dict against the network that will load it."""

    def finish(kind: Kind, state: dict[str, Tensor]) -> Recognised:
        # A layer of Hopenet's training script that the network never uses.
        used = {name: value for name, value in state.items() if not name.startswith("fc_finetune.")}
        with torch.device("meta"):
            expected = layout().state_dict()
        if problems := stylegan2.misfits(expected, used):
            raise ValueError(f"it is not {what}: {stylegan2.listed(problems)}")
        return Recognised(kind, used, {"notes": []})

    return finish


def _arcface() -> torch.nn.Module:
    from remime.encoders.irse import ArcFace

    return ArcFace()


def _hopenet() -> torch.nn.Module:
    from remime.faces.pose import Hopenet

    return Hopenet()


_FINISH: dict[str, Callable[[Kind, dict[str, Tensor]], Recognised]] = {
    "stylegan2": _stylegan2,
    "ir-se50": _fitting(_arcface, "ArcFace's IR-SE50"),
    "hopenet": _fitting(_hopenet, "Hopenet"),
}


# --- plain pickles


def _from_pickle(path: Path) -> Recognised:
    content = unpickle.read_pickle(path.read_bytes())
    if isinstance(content, Mapping) and "v_template" in content:
        return flame.flame(content)
    if isinstance(content, Mapping) and isinstance(content.get("G_ema"), Record):
        return _generator(*stylegan2.from_nvidia(content["G_ema"]))
    network = content[2] if isinstance(content, (tuple, list)) and len(content) == 3 else content
    if isinstance(network, Record) and network.name == "dnnlib.tflib.network.Network":
        return _generator(*stylegan2.from_tensorflow(network))
    if isinstance(content, Mapping):
        shown = f"a dictionary with {', '.join(str(k) for k in list(content)[:6])}"
    else:
        shown = content.name if isinstance(content, Record) else f"a {type(content).__name__}"
    raise ValueError(f"it is none of the known kinds: a pickle of {shown[:300]}")


# --- formats that converters know


def _from_dlib(path: Path) -> Recognised:
    tensors, meta = convert("dlib", {path.name: path})
    kind = KINDS["dlib-shape" if "points" in meta else "dlib-resnet"]
    return Recognised(kind, tensors, {"notes": []} | meta)


def _from_onnx(path: Path) -> Recognised:
    tensors, meta = convert("onnx", {path.name: path})
    if not tensors:
        raise ValueError("it is an ONNX file without parameters, or cut off")
    notes: list[str] = []
    if found := _arcface_range(meta["graph"], tensors):
        return Recognised(KINDS["arcface"], tensors, {"notes": notes, "input_range": list(found)} | meta)
    return Recognised(KINDS["onnx"], tensors, {"notes": notes} | meta)


def _arcface_range(graph: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """The range of values that a face recogniser of InsightFace's form takes; None for other networks.

    Such a network maps one aligned face of 112² to one vector. Where it scales its input itself it takes
    0 … 255, else -1 … 1, which is how InsightFace tells them apart.
    """
    if len(graph["outputs"]) != 1 or [each["shape"][1:] for each in graph["inputs"]] != [[3, 112, 112]]:
        return None
    try:
        with torch.inference_mode():
            (vectors,) = GraphNetwork(graph, tensors)(torch.zeros(2, 3, 112, 112))
    except (RuntimeError, ValueError, IndexError, KeyError, WeightsError):
        return None  # it does not run
    if vectors.ndim != 2 or not 64 <= vectors.shape[1] <= 2048:
        return None
    first = [node["op"] for node in graph["nodes"]]
    before = first[: first.index("conv")] if "conv" in first else []
    return (0, 255) if {"sub", "mul"} <= set(before) else (-1, 1)

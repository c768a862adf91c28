"""What a foreign checkpoint is, told from the names and shapes of its tensors, never from its file name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remime.errors import InputError, WeightsError
from remime.weights import stylegan2, unpickle
from remime.weights.convert import convert
from remime.weights.unpickle import Namespace, Record

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


_LOAD = "remime.encoders.restyle.load_imported({name!r}) builds inverter and generator"
_STORED = "its tensors, with remime.weights.load({name!r}); no network of the project reads them yet"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "stylegan2",
            "generator",
            "remime.generators.load_generator({name!r})",
            {"input.input": (1, None, 4, 4), "conv1.conv.weight": (1, None, None, 3, 3)},
            unique=False,
        ),
        Kind("psp", "inverter", _LOAD, unique=False),
        Kind("e4e", "inverter", _LOAD, unique=False),
        Kind("restyle-psp", "inverter", _LOAD, unique=False),
        Kind("restyle-e4e", "inverter", _LOAD, unique=False),
        Kind(
            "ir-se50",
            "identity",
            "the identity network of the inverters' losses: remime.encoders.irse.load_arcface({name!r})",
            {"input_layer.0.weight": (64, 3, 3, 3), "output_layer.3.weight": (512, 25088)},
        ),
        Kind(
            "hopenet",
            "pose",
            'head pose: remime.faces.pose.load_pose("hopenet", {name!r})',
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
    "allowed: StyleGAN2 (rosinality .pt, NVIDIA .pkl), pSp, e4e and ReStyle .pt, model_ir_se50.pth, "
    "Hopenet .pkl, BiSeNet 79999_iter.pth, deca_model.tar, FLAME generic_model.pkl, LPIPS heads .pth, "
    "dlib .dat, .onnx"
)

_FLAME: dict[str, Shape] = {
    "v_template": (None, 3),
    "f": (None, 3),
    "shapedirs": (None, 3, None),
    "posedirs": (None, 3, None),
    "weights": (None, None),
    "J_regressor": (None, None),
    "kintree_table": (2, None),
}


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
    if isinstance(content.get("state_dict"), Mapping) and _has(content["state_dict"], "encoder."):
        return _psp_family(content, kind)
    if "g_ema" in content:
        tensors, notes = stylegan2.from_rosinality(content)
        return Recognised(KINDS["stylegan2"], tensors, {"notes": notes} | _options(content.get("args")))
    inner = content.get("state_dict")
    state = _state(inner if isinstance(inner, Mapping) else content)
    return _from_state(state)


def _has(state: Mapping[Any, Any], prefix: str) -> bool:
    return any(isinstance(key, str) and key.startswith(prefix) for key in state)


def _state(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """All tensors of nested dictionaries by dotted names, without the prefix of ``DataParallel``."""
    # Copies, since tensors of a file may share their data, which safetensors does not store.
    found = {name: value.detach().clone() for name, value in unpickle.leaves(content)}
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def _from_state(state: dict[str, Tensor]) -> Recognised:
    """A plain state dict: the kind all of whose anchors it has."""
    for kind in KINDS.values():
        if not kind.anchors or not all(name in state for name in kind.anchors):
            continue
        if problems := _misshapen(kind.anchors, state):
            raise ValueError(f"it has the names of {kind.name}, but {stylegan2.listed(problems)}")
        return _FINISH.get(kind.name, _as_it_is)(kind, state)
    shown = ", ".join(f"{n} {list(t.shape)}" for n, t in list(state.items())[:4]) or "no tensors"
    raise ValueError(f"it is none of the known kinds: {len(state)} tensors, {shown[:300]}")


def _misshapen(expected: Mapping[str, Shape], state: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} has shape {list(state[name].shape)}, not {['any' if n is None else n for n in shape]}"
        for name, shape in expected.items()
        if len(shape) != len(state[name].shape)
        or any(n is not None and n != m for n, m in zip(shape, state[name].shape, strict=True))
    ]


def _as_it_is(kind: Kind, state: dict[str, Tensor]) -> Recognised:
    return Recognised(kind, state, {"notes": []})


def _stylegan2(kind: Kind, state: dict[str, Tensor]) -> Recognised:
    tensors, notes = stylegan2.from_rosinality(state)
    return Recognised(kind, tensors, {"notes": notes})


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


# --- pSp, e4e, ReStyle


def _psp_family(content: Mapping[str, Any], wanted: str | None) -> Recognised:
    options = _options(content.get("opts"))["options"]
    state = _state({k: v for k, v in content["state_dict"].items() if isinstance(v, Tensor)})
    kind = KINDS[_encoder_kind(state, options, wanted)]
    decoder = {k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")}
    average = content.get("latent_avg")
    if isinstance(average, Tensor):
        decoder["latent_avg"] = average
    # ReStyle always starts from the mean; pSp and e4e say whether they do.
    if not kind.name.startswith("restyle-") and options.get("start_from_latent_avg") is False:
        raise ValueError(
            "its opts say start_from_latent_avg: false; only offsets from the mean are supported"
        )
    generator, notes = stylegan2.complete(decoder)
    encoder = {k.removeprefix("encoder."): v.float() for k, v in state.items() if k.startswith("encoder.")}
    rows = 2 * len([k for k in generator if re.fullmatch(r"to_rgbs\.\d+\.bias", k)]) + 2
    _check_encoder(kind, encoder, rows)
    mean = generator.pop("mean_latent")
    tensors = {f"encoder.{k}": v for k, v in encoder.items()} | {
        f"decoder.{k}": v for k, v in generator.items()
    }
    return Recognised(kind, tensors | {"latent_avg": mean}, {"notes": notes, "options": options})


def _encoder_kind(state: Mapping[str, Tensor], options: Mapping[str, Any], wanted: str | None) -> str:
    """Which of the four it is: two and two have the same names, so the options or the user must tell."""
    if "encoder.latlayer1.weight" in state:
        candidates = ("psp", "e4e")
    elif "encoder.input_layer.0.weight" in state:
        candidates = ("restyle-psp", "restyle-e4e")
    else:
        told = options.get("encoder_type", "unknown")
        raise ValueError(f"its encoder ({told}) has no IR-SE50 trunk, which the encoders of faces have")
    encoder = options.get("encoder_type")
    if encoder is not None and encoder not in PSP_FAMILY:
        raise ValueError(f"its encoder_type is {encoder!r}; supported are {', '.join(PSP_FAMILY)}")
    found = wanted or (PSP_FAMILY[encoder] if encoder is not None else None)
    if found is None:
        raise ValueError(
            f"it is a checkpoint of {' or '.join(candidates)}, but has no opts that tell which: "
            f"add --kind {candidates[0]} or --kind {candidates[1]}"
        )
    if found not in candidates:
        raise ValueError(f"it has the names of {' or '.join(candidates)}, not of {found}")
    return found


def _check_encoder(kind: Kind, encoder: Mapping[str, Tensor], rows: int) -> None:
    from remime.encoders import build_encoder

    with torch.device("meta"):
        expected = build_encoder(kind.name, "paper", rows).state_dict()
    if problems := stylegan2.misfits(expected, encoder):
        raise ValueError(
            f"its encoder is not that of {kind.name} for {rows} rows: {stylegan2.listed(problems)}"
        )


def _options(value: Any) -> dict[str, dict[str, Any]]:
    """The plain values among training options, for the description."""
    if isinstance(value, Namespace):
        value = value.state
    if not isinstance(value, Mapping):
        return {"options": {}}
    plain = {str(k): v for k, v in value.items() if isinstance(v, (str, int, float, type(None)))}
    return {"options": {k: v for k, v in sorted(plain.items()) if len(str(v)) < 1000}}


# --- plain pickles


def _from_pickle(path: Path) -> Recognised:
    content = unpickle.read_pickle(path.read_bytes())
    if isinstance(content, Mapping) and "v_template" in content:
        return _flame(content)
    if isinstance(content, Mapping) and isinstance(content.get("G_ema"), Record):
        tensors, notes = stylegan2.from_nvidia(content["G_ema"])
        return Recognised(KINDS["stylegan2"], tensors, {"notes": notes})
    network = content[2] if isinstance(content, (tuple, list)) and len(content) == 3 else content
    if isinstance(network, Record) and network.name == "dnnlib.tflib.network.Network":
        tensors, notes = stylegan2.from_tensorflow(network)
        return Recognised(KINDS["stylegan2"], tensors, {"notes": notes})
    if isinstance(content, Mapping):
        shown = f"a dictionary with {', '.join(str(k) for k in list(content)[:6])}"
    else:
        shown = content.name if isinstance(content, Record) else f"a {type(content).__name__}"
    raise ValueError(f"it is none of the known kinds: a pickle of {shown[:300]}")


def _flame(content: Mapping[str, Any]) -> Recognised:
    """FLAME (Li et al. 2017): arrays, a sparse joint regressor, and chumpy variables around some of them."""
    arrays = {}
    for name in [*_FLAME, "J"]:
        if name in content:
            arrays[name] = _dense(name, content[name])
    if missing := [name for name in _FLAME if name not in arrays]:
        raise ValueError(f"it looks like FLAME, but {', '.join(missing)} is missing")
    if problems := _misshapen(_FLAME, arrays):
        raise ValueError(f"it looks like FLAME, but {stylegan2.listed(problems)}")
    vertices = len(arrays["v_template"])
    joints = arrays["kintree_table"].shape[1]
    for name, shape in {
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "weights": (vertices, joints),
        "J_regressor": (joints, vertices),
    }.items():
        if problems := _misshapen({name: shape}, arrays):
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


# --- formats that converters know


def _from_dlib(path: Path) -> Recognised:
    tensors, meta = convert("dlib", {path.name: path})
    kind = KINDS["dlib-shape" if "points" in meta else "dlib-resnet"]
    return Recognised(kind, tensors, {"notes": []} | meta)


def _from_onnx(path: Path) -> Recognised:
    tensors, meta = convert("onnx", {path.name: path})
    if not tensors:
        raise ValueError("it is an ONNX file without parameters, or cut off")
    return Recognised(KINDS["onnx"], tensors, {"notes": []} | meta)

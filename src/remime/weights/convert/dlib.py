"""dlib's ``.dat`` serialisation, read in plain Python: the 68-point shape predictor and the identity ResNet.

dlib packs an integer as a control byte (low four bits: number of bytes, high bit: negative) and its
little-endian magnitude, and a float as two such integers, mantissa and binary exponent. Only what the two
networks contain is understood; anything else is refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from remime.errors import WeightsError
from remime.progress import track

VERSION = 1

_INFINITY, _MINUS_INFINITY, _NAN = 32000, 32001, 32002  # exponents with a meaning of their own
_MOST_ITEMS = 1 << 24  # a count beyond this is a damaged file, not a network


class DatReader:
    """A cursor over dlib's serialised bytes.

    Raises:
        ValueError: the bytes end early or are not what was asked for.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes = np.frombuffer(data, np.uint8)
        self.position = 0

    @property
    def at_end(self) -> bool:
        """Whether every byte was read."""
        return self.position >= len(self.data)

    def _take(self, count: int) -> bytes:
        chunk = self.data[self.position : self.position + count]
        if len(chunk) < count:
            raise ValueError("the file ends early")
        self.position += count
        return chunk

    def integer(self) -> int:
        """A packed integer."""
        control = self._take(1)[0]
        if control & 0x70 or control & 0x0F > 8:
            raise ValueError(f"byte {self.position - 1} does not begin an integer")
        value = int.from_bytes(self._take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def count(self) -> int:
        """A packed integer that says how many items follow."""
        value = self.integer()
        if not 0 <= value <= _MOST_ITEMS:
            raise ValueError(f"an item count of {value} at byte {self.position}")
        return value

    def boolean(self) -> bool:
        """A truth value, written as the character 0 or 1."""
        character = self._take(1)
        if character not in b"01":
            raise ValueError(f"byte {self.position - 1} is not a truth value")
        return character == b"1"

    def text(self, length: int) -> str:
        """A text of ``length`` bytes."""
        return self._take(length).decode("ascii")

    def string(self) -> str:
        """A text with its length in front."""
        return self.text(self.count())

    def real(self) -> float:
        """A packed float."""
        mantissa, exponent = self.integer(), self.integer()
        special = {_INFINITY: np.inf, _MINUS_INFINITY: -np.inf, _NAN: np.nan}
        return special[exponent] if exponent in special else math.ldexp(mantissa, exponent)

    def reals(self, count: int) -> np.ndarray:
        """``count`` packed floats as float32.

        Nearly all take six bytes (three of mantissa, one of exponent). Runs of those are decoded at once,
        because one by one the 16 million of the shape predictor would take minutes.
        """
        out = np.empty(count, np.float32)
        done = 0
        while done < count:
            window = self.bytes[self.position : self.position + 6 * (count - done)]
            rows = window[: len(window) // 6 * 6].reshape(-1, 6)
            regular = ((rows[:, 0] & 0x7F) == 3) & ((rows[:, 4] & 0x7F) == 1)
            run = len(rows) if regular.all() else int(regular.argmin())
            out[done : done + run] = _six_byte_reals(rows[:run])
            self.position += 6 * run
            done += run
            if done < count:
                out[done] = self.real()
                done += 1
        return out

    def matrix(self) -> np.ndarray:
        """A float32 matrix; both sizes are stored negated."""
        rows, columns = -self.integer(), -self.integer()
        if rows < 0 or columns < 0 or rows * columns > _MOST_ITEMS:
            raise ValueError(f"a matrix of {rows}×{columns} at byte {self.position}")
        return self.reals(rows * columns).reshape(rows, columns)

    def tensor(self) -> np.ndarray:
        """A ``resizable_tensor``: version, four sizes, raw little-endian float32."""
        if (version := self.integer()) != 2:
            raise ValueError(f"a tensor of version {version}")
        shape = [self.count() for _ in range(4)]
        return np.frombuffer(self._take(4 * math.prod(shape)), "<f4").reshape(shape)

    def alias(self) -> tuple[int, ...]:
        """An ``alias_tensor``: the shape of a view into the parameters."""
        if (version := self.integer()) != 1:
            raise ValueError(f"an alias tensor of version {version}")
        return tuple(self.count() for _ in range(4))


def _six_byte_reals(rows: np.ndarray) -> np.ndarray:
    """Floats of the six-byte form: control, 3 bytes of mantissa, control, 1 byte of exponent."""
    part = rows.astype(np.int32)
    mantissa = part[:, 1] | part[:, 2] << 8 | part[:, 3] << 16
    sign = np.where(part[:, 0] & 0x80, -1, 1)
    exponent = np.where(part[:, 4] & 0x80, -part[:, 5], part[:, 5])
    return np.ldexp((sign * mantissa).astype(np.float64), exponent).astype(np.float32)


def _finish(reader: DatReader) -> None:
    if not reader.at_end:
        raise ValueError(f"{len(reader.data) - reader.position} bytes are left over")


def parse_shape_predictor(data: bytes) -> dict[str, np.ndarray]:
    """An ensemble of regression trees (Kazemi and Sullivan 2014) as arrays.

    Returns:
        ``initial_shape`` [P, 2] in units of the box; per cascade level ``anchor`` [L, F] (the landmark that a
        sampled pixel belongs to) and ``delta`` [L, F, 2]; per tree ``split_first``, ``split_second`` and
        ``split_threshold`` [L, T, S] in heap order, and ``leaf_values`` [L, T, S + 1, P, 2].
    """
    reader = DatReader(data)
    if (version := reader.integer()) != 1:
        raise ValueError(f"a shape predictor of version {version}")
    initial = reader.matrix().reshape(-1, 2)
    firsts, seconds, thresholds, leaves = [], [], [], []
    levels = reader.count()
    for _ in track(range(levels), "read the shape predictor", unit="levels"):
        for _ in range(reader.count()):
            splits = [(reader.integer(), reader.integer(), reader.real()) for _ in range(reader.count())]
            first, second, threshold = zip(*splits, strict=True)
            firsts.append(first)
            seconds.append(second)
            thresholds.append(threshold)
            leaves.append(np.stack([reader.matrix().reshape(-1, 2) for _ in range(reader.count())]))
    anchor = [[reader.integer() for _ in range(reader.count())] for _ in range(reader.count())]
    delta = [[(reader.real(), reader.real()) for _ in range(reader.count())] for _ in range(reader.count())]
    _finish(reader)
    arrays = {
        "initial_shape": initial,
        "anchor": np.array(anchor, np.int32),
        "delta": np.array(delta, np.float32),
        "split_first": _by_level(firsts, levels).astype(np.int32),
        "split_second": _by_level(seconds, levels).astype(np.int32),
        "split_threshold": _by_level(thresholds, levels).astype(np.float32),
        "leaf_values": _by_level(leaves, levels),
    }
    _check_shape_predictor(arrays)
    return arrays


def _check_shape_predictor(arrays: dict[str, np.ndarray]) -> None:
    """ValueError where the parts do not fit each other; later they are indices without a check."""
    levels, pixels = arrays["anchor"].shape
    trees, nodes = arrays["split_first"].shape[1:]
    points = len(arrays["initial_shape"])
    splits = np.stack([arrays["split_first"], arrays["split_second"]])
    if (
        arrays["delta"].shape != (levels, pixels, 2)
        or arrays["leaf_values"].shape != (levels, trees, nodes + 1, points, 2)
        or nodes & (nodes + 1)
        or not (arrays["anchor"].min() >= 0 and arrays["anchor"].max() < points)
        or not (splits.min() >= 0 and splits.max() < pixels)
    ):
        raise ValueError("levels, trees, pixels and points do not fit each other")


def _by_level(items: list[Any], levels: int) -> np.ndarray:
    stacked = np.array(items)
    return stacked.reshape(levels, -1, *stacked.shape[1:])


def parse_network(data: bytes) -> list[tuple[str, list[np.ndarray]]]:
    """The layers of a dlib network from input to output, each with its parameters.

    Containers write a version in front of what they contain, so the file begins with one integer per layer;
    their own contents follow, innermost first, and name themselves.
    """
    reader = DatReader(data)
    reader.integer()
    loss = reader.string()
    if loss != "loss_metric_2":
        raise ValueError(f"a network with {loss!r} in place of loss_metric_2")
    reader.real()
    reader.real()
    innermost = 0
    while (version := reader.integer()) <= 3:
        innermost = version
    # What ended the versions is the length of the input layer's name.
    if (name := reader.text(version)) != "input_rgb_image_sized":
        raise ValueError(f"a network whose input is {name!r}")
    layers = [("input", [np.array([reader.real() for _ in range(3)], np.float32)])]
    size = (reader.integer(), reader.integer())
    if size != (150, 150):
        raise ValueError(f"a network for images of {size}")
    while not reader.at_end:
        layers.append(_layer(reader))
        _skip_layer_state(reader)
        if len(layers) == 2 and innermost == 3:
            reader.integer()  # the input's expansion factor
    return layers


def _layer(reader: DatReader) -> tuple[str, list[np.ndarray]]:
    name = reader.string()
    if name == "con_4":
        parameters = reader.tensor().ravel()
        for _ in range(7):  # filters, kernel, stride, padding; the shapes below tell the same
            reader.integer()
        filters, biases = reader.alias(), reader.alias()
        _skip_reals(reader, 4)
        split = math.prod(filters)
        if len(parameters) != split + math.prod(biases):
            raise ValueError(f"{len(parameters)} parameters for a convolution of {filters}")
        return "convolution", [parameters[:split].reshape(filters), parameters[split:]]
    if name == "affine_":
        parameters = reader.tensor().ravel()
        reader.alias()
        reader.alias()
        reader.integer()
        scale, shift = np.split(parameters, 2)
        return "affine", [scale, shift]
    if name == "fc_2":
        outputs, inputs = reader.integer(), reader.integer()
        parameters = reader.tensor()
        reader.alias()
        reader.alias()
        reader.integer()
        _skip_reals(reader, 4)
        return "linear", [parameters.reshape(inputs, outputs).T]
    if name in ("max_pool_2", "avg_pool_2"):
        for _ in range(6):
            reader.integer()
        return name.removesuffix("_2"), []
    if name in ("relu_", "add_prev_"):
        return name.removesuffix("_"), []
    raise ValueError(f"a layer {name!r}")


def _skip_reals(reader: DatReader, count: int) -> None:
    for _ in range(count):
        reader.real()


def _skip_layer_state(reader: DatReader) -> None:
    """What training left behind each layer: flags, and tensors that are empty in a finished network."""
    for _ in range(3):
        reader.boolean()
    for _ in range(3):
        if reader.tensor().size:
            raise ValueError("a network that was saved in the middle of training")


def convert(files: dict[str, Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Convert one ``.dat`` file; which of the two networks it is shows in its first bytes."""
    if len(files) != 1:
        raise WeightsError(f"the converter dlib takes one file, not {sorted(files)}")
    ((name, path),) = files.items()
    data = path.read_bytes()
    try:
        if b"loss_metric" in data[:32]:
            arrays, meta = _resnet_arrays(parse_network(data)), {"input": "RGB, 150x150", "output": 128}
        else:
            arrays = parse_shape_predictor(data)
            meta = {"points": len(arrays["initial_shape"])}
    except (ValueError, IndexError, OverflowError) as error:
        raise WeightsError(f"{name}: not a dlib file that can be read ({error})") from None
    return {key: torch.from_numpy(np.array(value, order="C")) for key, value in arrays.items()}, meta


def _resnet_arrays(layers: list[tuple[str, list[np.ndarray]]]) -> dict[str, np.ndarray]:
    """Name the parameters as :class:`remime.faces.dlib_resnet.DlibResNet` does."""
    kinds = [kind for kind, _ in layers]
    convolutions = [p for kind, p in layers if kind == "convolution"]
    affines = [p for kind, p in layers if kind == "affine"]
    linear = [p for kind, p in layers if kind == "linear"]
    if len(convolutions) != 29 or len(affines) != 29 or len(linear) != 1 or kinds.count("add_prev") != 14:
        raise ValueError(
            f"{len(convolutions)} convolutions and {kinds.count('add_prev')} blocks in place of 29 and 14"
        )
    places = ["stem", *(f"blocks.{i // 2}.{('first', 'second')[i % 2]}" for i in range(28))]
    arrays: dict[str, np.ndarray] = {"mean": layers[0][1][0], "projection": linear[0][0]}
    for place, (weight, bias), (scale, shift) in zip(places, convolutions, affines, strict=True):
        arrays |= {
            f"{place}.weight": weight,
            f"{place}.bias": bias,
            f"{place}.scale": scale,
            f"{place}.shift": shift,
        }
    return arrays

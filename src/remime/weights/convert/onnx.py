"""ONNX models to the graph that ``remime.graph`` runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper
from torch import Tensor

from remime.errors import WeightsError
from remime.weights.convert.builder import GraphBuilder

VERSION = 1


class _Reader:
    """One model of opset 12 or below (axes of reductions are attributes), node by node."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.model, self.name = model, name
        self.builder = GraphBuilder()
        for stored in model.graph.initializer:
            self.builder.constants[stored.name] = self.tensor(stored)
        self.uses = Counter(source for node in model.graph.node for source in node.input)
        self.uses.update(output.name for output in model.graph.output)

    def tensor(self, stored: onnx.TensorProto) -> Tensor:
        """The numbers of a stored tensor; those in other files are not read, wherever the path leads."""
        if stored.data_location == onnx.TensorProto.EXTERNAL:
            raise WeightsError(f"{self.name}: the numbers of {stored.name} lie in another file")
        return torch.from_numpy(numpy_helper.to_array(stored).copy())

    def convert(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        for node in self.model.graph.node:
            if node.op_type not in _HANDLERS:
                raise WeightsError(
                    f"{self.name}: ONNX operator {node.op_type} is not supported; known are "
                    f"{', '.join(_HANDLERS)}"
                )
            _HANDLERS[node.op_type](self, _Node(node))
        inputs = [
            (value.name, [d.dim_value or None for d in value.type.tensor_type.shape.dim])
            for value in self.model.graph.input
            if value.name not in self.builder.constants
        ]
        return self.builder.finish(inputs, [output.name for output in self.model.graph.output])


class _Node:
    def __init__(self, node: onnx.NodeProto) -> None:
        self.kind = node.op_type
        # An optional operand that is left out has the empty name.
        self.inputs = list(node.input)
        self.outputs = list(node.output)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    @property
    def output(self) -> str:
        return self.outputs[0]

    def get(self, name: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        return list(value) if isinstance(value, (list, tuple)) else value

    def expect(self, file: str, **allowed: Any) -> None:
        """Refuse attributes that differ from the only supported value."""
        for name, value in allowed.items():
            found = self.get(name, value)
            if found != value:
                raise WeightsError(f"{file}: {self.kind} with {name} = {found}; only {value} is supported")


def _constant(reader: _Reader, node: _Node) -> None:
    reader.builder.constants[node.output] = reader.tensor(node.attributes["value"])


def _unary(op: str) -> Callable[[_Reader, _Node], None]:
    return lambda reader, node: reader.builder.emit(op, node.inputs, node.output)


def _same(reader: _Reader, node: _Node) -> None:
    reader.builder.alias(node.output, node.inputs[0])


def _convolution(reader: _Reader, node: _Node) -> None:
    node.expect(reader.name, auto_pad=b"NOTSET")
    reader.builder.emit(
        "conv",
        node.inputs,
        node.output,
        stride=node.get("strides", [1, 1]),
        padding=node.get("pads", [0, 0, 0, 0]),
        dilation=node.get("dilations", [1, 1]),
        groups=node.get("group", 1),
        nhwc=False,
    )


def _gemm(reader: _Reader, node: _Node) -> None:
    node.expect(reader.name, alpha=1.0, beta=1.0, transA=0)
    if not node.get("transB", 0):
        name = f"{node.inputs[1]}:transposed"
        reader.builder.constants[name] = reader.builder.constant(node.inputs[1]).T
        node.inputs[1] = name
    reader.builder.emit("linear", node.inputs, node.output)


def _batch_norm(reader: _Reader, node: _Node) -> None:
    """y = scale · x + shift per channel, put into the layer before it where nothing else reads that layer."""
    gain, bias, mean, variance = (reader.builder.constant(name).double() for name in node.inputs[1:])
    scale = gain / (variance + node.get("epsilon", 1e-5)).sqrt()
    shift = bias - mean * scale
    weight_name, bias_name = f"{node.output}:weight", f"{node.output}:bias"
    constants = reader.builder.constants
    layer = reader.builder.producer(node.inputs[0])
    alone = reader.uses[node.inputs[0]] == 1 and node.inputs[0] == reader.builder.resolve(node.inputs[0])
    if layer is not None and layer["op"] in ("conv", "linear") and alone:
        weight = reader.builder.constant(layer["in"][1]).double()
        old = reader.builder.constant(layer["in"][2]).double() if len(layer["in"]) > 2 else 0.0
        constants[weight_name] = (weight * scale.view(-1, *[1] * (weight.dim() - 1))).float()
        constants[bias_name] = (old * scale + shift).float()
        layer["in"][1:] = [weight_name, bias_name]
        reader.builder.alias(node.output, node.inputs[0])
    else:
        constants[weight_name] = scale.float().view(-1, 1, 1)
        constants[bias_name] = shift.float().view(-1, 1, 1)
        reader.builder.emit("mul", [node.inputs[0], weight_name], f"{node.output}:scaled")
        reader.builder.emit("add", [f"{node.output}:scaled", bias_name], node.output)


def _prelu(reader: _Reader, node: _Node) -> None:
    slope = reader.builder.constant(node.inputs[1])
    if slope.numel() != slope.shape[0]:
        raise WeightsError(
            f"{reader.name}: PRelu slope {list(slope.shape)}; only one per channel is supported"
        )
    name = f"{node.inputs[1]}:slope"
    reader.builder.constants[name] = slope.flatten()
    reader.builder.emit("prelu", [node.inputs[0], name], node.output, nhwc=False)


def _reduction(op: str) -> Callable[[_Reader, _Node], None]:
    def handle(reader: _Reader, node: _Node) -> None:
        axes, keep = node.get("axes", None), bool(node.get("keepdims", 1))
        if axes is None or 0 in axes:
            raise WeightsError(f"{reader.name}: {node.kind} over the batch axis is not supported")
        reader.builder.emit(op, node.inputs[:1], node.output, axes=axes, keep=keep)

    return handle


def _global_average(reader: _Reader, node: _Node) -> None:
    reader.builder.emit("mean", node.inputs, node.output, axes=[2, 3], keep=True)


def _max_pool(reader: _Reader, node: _Node) -> None:
    node.expect(reader.name, auto_pad=b"NOTSET", ceil_mode=0, dilations=[1, 1], storage_order=0)
    reader.builder.emit(
        "max_pool",
        node.inputs,
        node.output,
        kernel=node.get("kernel_shape", None),
        stride=node.get("strides", [1, 1]),
        padding=node.get("pads", [0, 0, 0, 0]),
        nhwc=False,
    )


def _reshape(reader: _Reader, node: _Node) -> None:
    shape: list[int | None] = reader.builder.constant(node.inputs[1]).tolist()
    if shape[0] not in (0, 1):
        raise WeightsError(f"{reader.name}: Reshape to {shape} mixes the batch with other axes")
    reader.builder.emit("reshape", node.inputs[:1], node.output, shape=[None, *shape[1:]])


def _flatten(reader: _Reader, node: _Node) -> None:
    node.expect(reader.name, axis=1)
    reader.builder.emit("reshape", node.inputs, node.output, shape=[None, -1])


def _transpose(reader: _Reader, node: _Node) -> None:
    reader.builder.emit("transpose", node.inputs, node.output, perm=node.get("perm", None))


def _concat(reader: _Reader, node: _Node) -> None:
    reader.builder.emit("concat", node.inputs, node.output, axis=node.get("axis", None))


def _split(reader: _Reader, node: _Node) -> None:
    sizes, axis = node.get("split", None), node.get("axis", 0)
    reader.builder.emit("split", node.inputs[:1], node.outputs, sizes=sizes, axis=axis)


def _squeeze(reader: _Reader, node: _Node) -> None:
    reader.builder.emit("squeeze", node.inputs[:1], node.output, axes=node.get("axes", None))


def _slice(reader: _Reader, node: _Node) -> None:
    starts, ends, axes, *steps = (reader.builder.constant(name).tolist() for name in node.inputs[1:])
    bounds: list[list[int | None]] = [[None, None, None] for _ in range(1 + max(axes))]
    for index, axis in enumerate(axes):
        bounds[axis] = [starts[index], ends[index], steps[0][index] if steps else None]
    reader.builder.emit("slice", node.inputs[:1], node.output, bounds=bounds)


def _clip(reader: _Reader, node: _Node) -> None:
    low, high = (
        float(reader.builder.constant(name)) if name else None for name in [*node.inputs[1:], "", ""][:2]
    )
    reader.builder.emit("clip", node.inputs[:1], node.output, min=low, max=high)


def _softmax(reader: _Reader, node: _Node) -> None:
    reader.builder.emit("softmax", node.inputs, node.output, axis=node.get("axis", -1))


_HANDLERS: dict[str, Callable[[_Reader, _Node], None]] = {
    "Add": _unary("add"),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _convolution,
    "Div": _unary("div"),
    "Dropout": _same,
    "Erf": _unary("erf"),
    # Only arithmetic reads expanded values here, and it broadcasts by itself.
    "Expand": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "MatMul": _unary("matmul"),
    "MaxPool": _max_pool,
    "Mul": _unary("mul"),
    "PRelu": _prelu,
    "Pow": _unary("pow"),
    "ReduceL2": _reduction("norm"),
    "ReduceMean": _reduction("mean"),
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _unary("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _unary("sub"),
    "Transpose": _transpose,
}


def convert(files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert one ``.onnx`` file; batch normalisation goes into the layer before it, the batch becomes free.

    Returns:
        The tensors, and ``{"graph": ...}``.

    Raises:
        WeightsError: not such a file, or an operator or attribute that is not supported, by name.
    """
    (path,) = files.values()
    try:
        model = onnx.load_from_string(path.read_bytes())
    except DecodeError as error:
        raise WeightsError(f"{path.name}: not an ONNX file ({error})") from None
    tensors, graph = _Reader(model, path.name).convert()
    return tensors, {"graph": graph}

"""TFLite flatbuffers to the graph that ``remime.graph`` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tflite
import torch
from torch import Tensor

from remime.errors import WeightsError
from remime.weights.convert.builder import GraphBuilder

VERSION = 1

_DTYPES: dict[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
}
_OPERATORS = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
_RELU, _RELU6 = tflite.ActivationFunctionType.RELU, tflite.ActivationFunctionType.RELU6


class _Reader:
    """One subgraph, operator by operator."""

    def __init__(self, data: bytes, name: str) -> None:
        if not tflite.Model.ModelBufferHasIdentifier(data, 0):
            raise WeightsError(f"{name}: not a TFLite file (no TFL3 identifier)")
        self.model = tflite.Model.GetRootAsModel(data, 0)
        if self.model.SubgraphsLength() != 1:
            raise WeightsError(f"{name}: {self.model.SubgraphsLength()} subgraphs; only one is supported")
        self.graph = self.model.Subgraphs(0)
        self.name = name
        self.builder = GraphBuilder()
        for index in range(self.graph.TensorsLength()):
            value = self._stored(index)
            if value is not None:
                self.builder.constants[str(index)] = value

    def _stored(self, index: int) -> Tensor | None:
        tensor = self.graph.Tensors(index)
        raw = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if not isinstance(raw, np.ndarray) or tensor.Type() not in _DTYPES:
            return None
        array = raw.view(_DTYPES[tensor.Type()]).reshape(self.shape(index))
        return torch.from_numpy(array.copy())

    def shape(self, index: int) -> list[int]:
        tensor = self.graph.Tensors(index)
        return [int(n) for n in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []

    def convert(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        for k in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(k)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            kind = _OPERATORS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if kind not in _HANDLERS:
                raise WeightsError(
                    f"{self.name}: TFLite operator {kind} is not supported; known are {', '.join(_HANDLERS)}"
                )
            _HANDLERS[kind](self, _Operator(operator, kind))
        inputs = [(str(i), self.shape(i)) for i in self.graph.InputsAsNumpy()]
        return self.builder.finish(inputs, [str(i) for i in self.graph.OutputsAsNumpy()])


class _Operator:
    def __init__(self, operator: Any, kind: str) -> None:
        self.kind = kind
        self.inputs = [int(i) for i in operator.InputsAsNumpy() if i >= 0]
        self.outputs = [int(i) for i in operator.OutputsAsNumpy()]
        self._table = operator.BuiltinOptions()

    @property
    def names(self) -> list[str]:
        return [str(i) for i in self.inputs]

    @property
    def output(self) -> str:
        return str(self.outputs[0])

    def options(self, kind: str) -> Any:
        options = getattr(tflite, kind)()
        options.Init(self._table.Bytes, self._table.Pos)
        return options


def _activated(reader: _Reader, o: _Operator, activation: int) -> str:
    """The name for a result whose fused activation still has to be applied; emits that activation's node."""
    if activation == tflite.ActivationFunctionType.NONE:
        return o.output
    if activation not in (_RELU, _RELU6):
        raise WeightsError(f"{reader.name}: fused activation {activation} of {o.kind} is not supported")
    return f"{o.output}:linear"


def _activate(reader: _Reader, o: _Operator, activation: int) -> None:
    if activation == _RELU:
        reader.builder.emit("relu", [f"{o.output}:linear"], o.output)
    elif activation == _RELU6:
        reader.builder.emit("clip", [f"{o.output}:linear"], o.output, min=0.0, max=6.0)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    # TensorFlow's SAME: ceil(size / stride) outputs, the odd pixel of padding at the end.
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _padding(
    o: Any, size: list[int], kernel: list[int], stride: list[int], dilation: tuple[int, int] = (1, 1)
) -> list[int]:
    """[top, left, bottom, right] of a convolution or a pool."""
    if o.Padding() == tflite.Padding.VALID:
        return [0, 0, 0, 0]
    (top, bottom), (left, right) = (
        _same_padding(*axis) for axis in zip(size, kernel, stride, dilation, strict=True)
    )
    return [top, left, bottom, right]


def _convolution(reader: _Reader, o: _Operator) -> None:
    depthwise = o.kind == "DEPTHWISE_CONV_2D"
    options = o.options("DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
    size, channels = reader.shape(o.inputs[0])[1:3], reader.shape(o.inputs[0])[3]
    weight = reader.builder.constant(o.names[1])
    # Stored as [1, h, w, out] (depthwise) or [out, h, w, in].
    weight = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
    # Several convolutions may share a filter in one file: the rearranged one gets a name of its own.
    name = f"{o.names[1]}:filter"
    reader.builder.constants[name] = weight.contiguous()
    stride = [options.StrideH(), options.StrideW()]
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    activation = options.FusedActivationFunction()
    reader.builder.emit(
        "conv",
        [o.names[0], name, *o.names[2:]],
        _activated(reader, o, activation),
        stride=stride,
        padding=_padding(options, size, list(weight.shape[2:]), stride, dilation),
        dilation=list(dilation),
        groups=channels if depthwise else channels // weight.shape[1],
        nhwc=True,
    )
    _activate(reader, o, activation)


def _max_pool(reader: _Reader, o: _Operator) -> None:
    options = o.options("Pool2DOptions")
    kernel, stride = (
        [options.FilterHeight(), options.FilterWidth()],
        [options.StrideH(), options.StrideW()],
    )
    padding = _padding(options, reader.shape(o.inputs[0])[1:3], kernel, stride)
    activation = options.FusedActivationFunction()
    result = _activated(reader, o, activation)
    reader.builder.emit("max_pool", o.names, result, kernel=kernel, stride=stride, padding=padding, nhwc=True)
    _activate(reader, o, activation)


def _prelu(reader: _Reader, o: _Operator) -> None:
    slope = reader.builder.constant(o.names[1])
    if slope.numel() != slope.shape[-1]:
        raise WeightsError(
            f"{reader.name}: PRELU slope of shape {list(slope.shape)}; one per channel is supported"
        )
    name = f"{o.names[1]}:slope"
    reader.builder.constants[name] = slope.flatten()
    reader.builder.emit("prelu", [o.names[0], name], o.output, nhwc=True)


def _arithmetic(op: str, options: str) -> Callable[[_Reader, _Operator], None]:
    def handle(reader: _Reader, o: _Operator) -> None:
        activation = o.options(options).FusedActivationFunction()
        reader.builder.emit(op, o.names, _activated(reader, o, activation))
        _activate(reader, o, activation)

    return handle


def _squared_difference(reader: _Reader, o: _Operator) -> None:
    difference = f"{o.output}:difference"
    reader.builder.emit("sub", o.names, difference)
    reader.builder.emit("mul", [difference, difference], o.output)


def _unary(op: str) -> Callable[[_Reader, _Operator], None]:
    return lambda reader, o: reader.builder.emit(op, o.names, o.output)


def _reduction(op: str) -> Callable[[_Reader, _Operator], None]:
    def handle(reader: _Reader, o: _Operator) -> None:
        axes = reader.builder.constant(o.names[1]).flatten().tolist()
        keep = bool(o.options("ReducerOptions").KeepDims())
        if 0 in axes or -len(reader.shape(o.inputs[0])) in axes:
            raise WeightsError(f"{reader.name}: {o.kind} over the batch axis is not supported")
        reader.builder.emit(op, o.names[:1], o.output, axes=axes, keep=keep)

    return handle


def _drops_batch(reader: _Reader, o: _Operator) -> bool:
    """Whether an operator only removes the batch axis of the file's single item; we keep that axis."""
    before, after = reader.shape(o.inputs[0]), reader.shape(o.outputs[0])
    return before[:1] == [1] != after[:1] and before[1:] == after


def _reshape(reader: _Reader, o: _Operator) -> None:
    before, after = reader.shape(o.inputs[0]), reader.shape(o.outputs[0])
    if _drops_batch(reader, o):
        reader.builder.alias(o.output, o.names[0])
    elif before[:1] == after[:1] == [1]:
        reader.builder.emit("reshape", o.names[:1], o.output, shape=[None, *after[1:]])
    else:
        raise WeightsError(f"{reader.name}: RESHAPE {before} → {after} mixes the batch with other axes")


def _transpose(reader: _Reader, o: _Operator) -> None:
    reader.builder.emit("transpose", o.names[:1], o.output, perm=reader.builder.constant(o.names[1]).tolist())


def _concatenation(reader: _Reader, o: _Operator) -> None:
    options = o.options("ConcatenationOptions")
    activation = options.FusedActivationFunction()
    reader.builder.emit("concat", o.names, _activated(reader, o, activation), axis=options.Axis())
    _activate(reader, o, activation)


def _strided_slice(reader: _Reader, o: _Operator) -> None:
    options = o.options("StridedSliceOptions")
    if _drops_batch(reader, o):
        reader.builder.alias(o.output, o.names[0])
        return
    if options.EllipsisMask() or options.NewAxisMask() or options.ShrinkAxisMask():
        raise WeightsError(
            f"{reader.name}: STRIDED_SLICE with an ellipsis, new-axis or shrink mask is not supported"
        )
    begin, end, step = (reader.builder.constant(name).tolist() for name in o.names[1:])
    bounds: list[list[int | None]] = []
    for axis, size in enumerate(reader.shape(o.inputs[0])):
        first = None if options.BeginMask() >> axis & 1 else begin[axis]
        last = None if options.EndMask() >> axis & 1 else end[axis]
        whole = step[axis] == 1 and first in (None, 0) and (last is None or last >= size)
        bounds.append([None, None, None] if whole else [first, last, step[axis]])
    if bounds[0] != [None, None, None]:
        raise WeightsError(f"{reader.name}: STRIDED_SLICE of the batch axis is not supported")
    if all(b == [None, None, None] for b in bounds):
        reader.builder.alias(o.output, o.names[0])
    else:
        reader.builder.emit("slice", o.names[:1], o.output, bounds=bounds)


def _pad(reader: _Reader, o: _Operator) -> None:
    reader.builder.emit("pad", o.names[:1], o.output, pads=reader.builder.constant(o.names[1]).tolist())


def _dequantize(reader: _Reader, o: _Operator) -> None:
    reader.builder.constants[o.output] = reader.builder.constant(o.names[0]).to(torch.float32)


_HANDLERS: dict[str, Callable[[_Reader, _Operator], None]] = {
    "ADD": _arithmetic("add", "AddOptions"),
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEQUANTIZE": _dequantize,
    "DIV": _arithmetic("div", "DivOptions"),
    "LOGISTIC": _unary("sigmoid"),
    "MAX_POOL_2D": _max_pool,
    "MEAN": _reduction("mean"),
    "MUL": _arithmetic("mul", "MulOptions"),
    "NEG": _unary("neg"),
    "PAD": _pad,
    "PRELU": _prelu,
    "RESHAPE": _reshape,
    "RSQRT": _unary("rsqrt"),
    "SQRT": _unary("sqrt"),
    "SQUARED_DIFFERENCE": _squared_difference,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _arithmetic("sub", "SubOptions"),
    "SUM": _reduction("sum"),
    "TRANSPOSE": _transpose,
}


def convert(files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert one ``.tflite`` file; half-precision weights become float32, the batch becomes free.

    Returns:
        The tensors, and ``{"graph": ...}`` with values in TFLite's own axis order (channels last).

    Raises:
        WeightsError: not such a file, or an operator or option that is not supported, by name.
    """
    (path,) = files.values()
    tensors, graph = _Reader(path.read_bytes(), path.name).convert()
    return tensors, {"graph": graph}

"""Run a network that is stored as a list of nodes, with torch operations only.

The converters of ONNX and TFLite files (``remime.weights.convert``) reduce a network to a JSON graph over
the small vocabulary of ``OPERATIONS`` below, and to its tensors. The first axis of every input is a free
batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import WeightsError, shape_error

Attributes = Mapping[str, Any]
Operand = Any  # a Tensor, or a number that stands in the graph itself


def _spatial(function: Callable[[Tensor], Tensor], x: Tensor, nhwc: bool) -> Tensor:
    # A contiguous NHWC tensor seen as NCHW is exactly torch's channels_last layout: the views cost nothing.
    if not nhwc:
        return function(x)
    return function(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _split_padding(padding: Sequence[int]) -> tuple[tuple[int, int], list[int] | None]:
    """Symmetric (height, width) padding for the operation itself, or padding for ``F.pad`` before it."""
    top, left, bottom, right = padding
    if top == bottom and left == right:
        return (top, left), None
    return (0, 0), [left, right, top, bottom]


def _conv(a: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    inner, outer = _split_padding(a["padding"])

    def apply(x: Tensor) -> Tensor:
        x = x if outer is None else F.pad(x, outer)
        return F.conv2d(x, weight, bias, a["stride"], inner, a["dilation"], a["groups"])

    return _spatial(apply, x, a["nhwc"])


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    inner, outer = _split_padding(a["padding"])

    def apply(x: Tensor) -> Tensor:
        x = x if outer is None else F.pad(x, outer, value=float("-inf"))
        return F.max_pool2d(x, a["kernel"], a["stride"], inner)

    return _spatial(apply, x, a["nhwc"])


def _pad(a: Attributes, x: Tensor) -> Tensor:
    return F.pad(x, [n for before_after in reversed(a["pads"]) for n in before_after])


def _reshape(a: Attributes, x: Tensor) -> Tensor:
    return x.reshape([x.shape[0] if n is None else n for n in a["shape"]])


def _slice(a: Attributes, x: Tensor) -> Tensor:
    return x[tuple(slice(*bounds) for bounds in a["bounds"])]


def _concat(a: Attributes, *xs: Tensor) -> Tensor:
    # A constant stored for one item is repeated for every item of the batch.
    batch = max(x.shape[0] for x in xs)
    return torch.cat([x.expand(batch, *x.shape[1:]) if x.shape[0] != batch else x for x in xs], a["axis"])


def _squeeze(a: Attributes, x: Tensor) -> Tensor:
    return x.squeeze(tuple(a["axes"]))


OPERATIONS: dict[str, Callable[..., Tensor | Sequence[Tensor]]] = {
    "add": lambda a, x, y: x + y,
    "clip": lambda a, x: x.clamp(a["min"], a["max"]),
    "concat": _concat,
    "conv": _conv,
    "div": lambda a, x, y: x / y,
    "erf": lambda a, x: x.erf(),
    "linear": lambda a, x, weight, bias=None: F.linear(x, weight, bias),
    "matmul": lambda a, x, y: x @ y,
    "max_pool": _max_pool,
    "mean": lambda a, x: x.mean(a["axes"], keepdim=a["keep"]),
    "mul": lambda a, x, y: x * y,
    "neg": lambda a, x: -x,
    "norm": lambda a, x: torch.linalg.vector_norm(x, dim=a["axes"], keepdim=a["keep"]),
    "pad": _pad,
    "pow": lambda a, x, y: x**y,
    "prelu": lambda a, x, slope: _spatial(lambda x: F.prelu(x, slope), x, a["nhwc"]),
    "relu": lambda a, x: x.relu(),
    "reshape": _reshape,
    "rsqrt": lambda a, x: x.rsqrt(),
    "sigmoid": lambda a, x: x.sigmoid(),
    "slice": _slice,
    "softmax": lambda a, x: x.softmax(a["axis"]),
    "split": lambda a, x: x.split(a["sizes"], a["axis"]),
    "sqrt": lambda a, x: x.sqrt(),
    "squeeze": _squeeze,
    "sub": lambda a, x, y: x - y,
    "sum": lambda a, x: x.sum(a["axes"], keepdim=a["keep"]),
    "transpose": lambda a, x: x.permute(a["perm"]),
}


class GraphNetwork(nn.Module):
    """A network given as a graph and its tensors; frozen, differentiable with respect to its inputs.

    Args:
        graph: ``inputs`` (list of ``{"name", "shape"}``, the batch axis None), ``outputs`` (names) and
            ``nodes``: ``{"op", "in", "out", "attrs"}`` in an order in which they can run. An entry of ``in``
            is the name of a value or a tensor, or a number. Padding is [top, left, bottom, right]; ``nhwc``
            marks values that are stored with the channels last; None in a reshape is the batch.
        tensors: the constants by name; they become parameters, so that ``state_dict`` and ``to`` see them.

    Raises:
        WeightsError: when a node's operation or an operand is unknown.
    """

    def __init__(self, graph: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.inputs: list[dict[str, Any]] = list(graph["inputs"])
        self.outputs: list[str] = list(graph["outputs"])
        nodes = graph["nodes"]
        nhwc_filters = {n["in"][1] for n in nodes if n["op"] == "conv" and n["attrs"]["nhwc"]}
        for name, tensor in tensors.items():
            if name in nhwc_filters:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self._check(nodes)
        self._plan = [
            (OPERATIONS[node["op"]], node.get("attrs", {}), node["in"], node["out"], dead)
            for node, dead in zip(nodes, self._last_uses(nodes), strict=True)
        ]
        self.eval()

    def _check(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        known = {i["name"] for i in self.inputs} | set(self._parameters)
        for node in nodes:
            if node["op"] not in OPERATIONS:
                raise WeightsError(
                    f"graph: unknown operation {node['op']!r}; known are {', '.join(OPERATIONS)}. "
                    "The converted file and this version of remime do not fit: convert it again."
                )
            missing = [name for name in node["in"] if isinstance(name, str) and name not in known]
            if missing:
                raise WeightsError(
                    f"graph: operation {node['op']!r} reads {missing[0]!r}, which nothing provides"
                )
            known.update(node["out"])
        for name in self.outputs:
            if name not in known:
                raise WeightsError(f"graph: output {name!r} is not computed by any node")

    def _last_uses(self, nodes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
        """For every node, the values that nothing reads after it."""
        kept = set(self.outputs) | set(self._parameters)
        dead: list[list[str]] = []
        for node in reversed(nodes):
            names = dict.fromkeys(name for name in [*node["in"], *node["out"]] if isinstance(name, str))
            last = [name for name in names if name not in kept]
            kept.update(last)
            dead.append(last)
        return dead[::-1]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map inputs, each [B, ...] as in the graph's ``inputs``, to the tuple of outputs, each [B, ...]."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"GraphNetwork: expected {len(self.inputs)} input(s), got {len(inputs)}")
        values: dict[str, Tensor] = {}
        for declared, x in zip(self.inputs, inputs, strict=True):
            expected = declared["shape"]
            if x.dim() != len(expected) or any(
                e not in (None, n) for e, n in zip(expected, x.shape, strict=True)
            ):
                raise shape_error(declared["name"], str(expected), x.shape)
            values[declared["name"]] = x
        for function, attributes, sources, targets, dead in self._plan:
            operands = [self._operand(values, source) for source in sources]
            result = function(attributes, *operands)
            values.update(zip(targets, [result] if isinstance(result, Tensor) else result, strict=True))
            for name in dead:
                values.pop(name, None)
            # The loop variables would otherwise keep the operands of one more node alive.
            del operands, result
        return tuple(values[name] for name in self.outputs)

    def _operand(self, values: Mapping[str, Tensor], source: str | float) -> Operand:
        if not isinstance(source, str):
            return source
        value = values.get(source)
        return self._parameters[source] if value is None else value

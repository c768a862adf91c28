"""Collect the nodes of a converted network and write them as the graph that ``remime.graph`` runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from remime.errors import WeightsError
from remime.graph import OPERATIONS

# Operations whose operands may be plain numbers in the graph.
_ARITHMETIC = {"add", "sub", "mul", "div", "pow"}
_ROLES = {
    "conv": ("input", "weight", "bias"),
    "linear": ("input", "weight", "bias"),
    "prelu": ("input", "slope"),
}


class GraphBuilder:
    """Nodes, constants and other names of values, in the order of the original file."""

    def __init__(self) -> None:
        self.constants: dict[str, Tensor] = {}
        self._aliases: dict[str, str] = {}
        self._nodes: list[dict[str, Any]] = []

    def resolve(self, name: str) -> str:
        """The name under which a value is really computed."""
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def constant(self, name: str) -> Tensor:
        """A constant by name.

        Raises:
            WeightsError: the value is computed from the inputs, where only a constant is supported.
        """
        name = self.resolve(name)
        if name not in self.constants:
            raise WeightsError(f"value {name!r} must be a constant here, but it depends on the input")
        return self.constants[name]

    def alias(self, name: str, source: str) -> None:
        """Let ``name`` be another name of ``source``: the operation between them changes nothing."""
        self._aliases[name] = source

    def emit(self, op: str, sources: Sequence[str], targets: str | Sequence[str], **attributes: Any) -> None:
        """Add a node; one whose operands are all constants is computed now instead."""
        sources = [self.resolve(s) for s in sources]
        targets = [targets] if isinstance(targets, str) else list(targets)
        if all(s in self.constants for s in sources):
            result = OPERATIONS[op](attributes, *(self.constants[s] for s in sources))
            results = [result] if isinstance(result, Tensor) else result
            self.constants.update(zip(targets, results, strict=True))
            return
        self._nodes.append({"op": op, "in": sources, "out": targets, "attrs": attributes})

    def producer(self, name: str) -> dict[str, Any] | None:
        """The node that computes a value, or None for an input or a constant."""
        name = self.resolve(name)
        return next((n for n in reversed(self._nodes) if name in n["out"]), None)

    def finish(
        self, inputs: Iterable[tuple[str, Sequence[int | None]]], outputs: Iterable[str]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors and the graph of what the outputs depend on, with short names."""
        wanted = [self.resolve(o) for o in outputs]
        needed = set(wanted)
        nodes = []
        for node in reversed(self._nodes):
            if needed & set(node["out"]):
                nodes.append(node)
                needed.update(node["in"])
        nodes.reverse()
        values: dict[str, str] = {}
        declared: list[dict[str, Any]] = []
        for name, shape in inputs:
            values[name] = f"input{len(declared)}"
            declared.append({"name": values[name], "shape": [None, *shape[1:]]})
        tensors: dict[str, Tensor] = {}
        graph_nodes = []
        for index, node in enumerate(nodes):
            sources: list[str | float] = []
            for position, name in enumerate(node["in"]):
                sources.append(self._operand(name, node["op"], index, position, values, tensors))
            for name in node["out"]:
                values[name] = f"v{len(values)}"
            targets = [values[name] for name in node["out"]]
            graph_nodes.append({"op": node["op"], "in": sources, "out": targets, "attrs": node["attrs"]})
        graph = {"inputs": declared, "outputs": [values[name] for name in wanted], "nodes": graph_nodes}
        return tensors, graph

    def _operand(
        self,
        name: str,
        op: str,
        index: int,
        position: int,
        values: dict[str, str],
        tensors: dict[str, Tensor],
    ) -> str | float:
        if name in values:
            return values[name]
        if name not in self.constants:
            raise WeightsError(f"value {name!r} is read by {op!r}, but nothing provides it")
        tensor = self.constants[name]
        if op in _ARITHMETIC and tensor.numel() == 1:
            return float(tensor)
        roles = _ROLES.get(op, ())
        role = roles[position] if position < len(roles) else f"operand{position}"
        values[name] = f"n{index:03d}_{op}_{role}"
        tensors[values[name]] = tensor.to(torch.float32).contiguous()
        return values[name]

"""MobileStyleGAN from OpenVINO IR (XML graph and raw constants) to named tensors.

The exported graph keeps the names of the style affines only; every other constant is found by following the
edges from the convolution that uses it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from remime.errors import WeightsError

_DTYPES = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32}
VERSION = 1
MEAN_LATENT_SAMPLES = 100_000
MEAN_LATENT_SEED = 0


@dataclass
class Node:
    """One layer of the graph; ``inputs`` are node ids in port order."""

    kind: str
    name: str
    value: np.ndarray | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)


def read_ir(xml: Path, data: Path) -> dict[str, Node]:
    """Parse an IR v10 graph into nodes by id, constants included.

    Raises:
        WeightsError: the file is not such a graph, or its constants lie outside the data file.
    """
    try:
        root = ElementTree.parse(xml).getroot()
    except ElementTree.ParseError as error:
        raise WeightsError(f"{xml}: not an OpenVINO graph ({error})") from None
    buffer = data.read_bytes()
    nodes: dict[str, Node] = {}
    for layer in root.iterfind("./layers/layer"):
        found = layer.find("data")
        attributes = dict(found.attrib) if found is not None else {}
        node = Node(layer.get("type", ""), layer.get("name", ""), attributes=attributes)
        if node.kind == "Const" and attributes["element_type"] in _DTYPES:
            node.value = _constant(buffer, attributes, f"{xml.name}: {node.name}")
        nodes[layer.get("id", "")] = node
    edges = [dict(edge.attrib) for edge in root.iterfind("./edges/edge")]
    for edge in sorted(edges, key=lambda e: int(e["to-port"])):
        nodes[edge["to-layer"]].inputs.append(edge["from-layer"])
        nodes[edge["from-layer"]].consumers.append(edge["to-layer"])
    return nodes


def _constant(buffer: bytes, attributes: dict[str, str], name: str) -> np.ndarray:
    offset, size = int(attributes["offset"]), int(attributes["size"])
    if offset + size > len(buffer):
        raise WeightsError(f"{name}: lies at {offset}+{size}, but the data file has {len(buffer)} bytes")
    shape = [int(n) for n in attributes["shape"].split(",") if n.strip()]
    return np.frombuffer(buffer[offset : offset + size], _DTYPES[attributes["element_type"]]).reshape(shape)


class _Graph:
    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.by_name = {node.name: i for i, node in nodes.items() if node.kind == "Const"}

    def tensor(self, name: str) -> Tensor:
        """A constant by its exported name."""
        if name not in self.by_name:
            raise WeightsError(
                f"the OpenVINO graph has no constant {name!r}; another version of the package?"
            )
        value = self.nodes[self.by_name[name]].value
        assert value is not None
        return torch.from_numpy(value.astype(np.float32))

    def constant_input(self, node: str) -> Tensor | None:
        """The constant operand of a node, if it has one; a reshape in between is looked through."""
        for i in self.nodes[node].inputs:
            if self.nodes[i].kind == "Reshape":
                i = self.nodes[i].inputs[0]
            value = self.nodes[i].value
            if value is not None and value.dtype == np.float32:
                return torch.from_numpy(value.astype(np.float32))
        return None

    def follow(self, start: str, kind: str) -> str:
        """The nearest node of a kind downstream of ``start``."""
        frontier, seen = [start], {start}
        while frontier:
            node = frontier.pop(0)
            if self.nodes[node].kind == kind and node != start:
                return node
            for consumer in self.nodes[node].consumers:
                if consumer not in seen:
                    seen.add(consumer)
                    frontier.append(consumer)
        raise WeightsError(f"the OpenVINO graph has no {kind} after {self.nodes[start].name!r}")

    def affine(self, prefix: str, scaled: bool) -> dict[str, Tensor]:
        """A style affine; the scalar that the graph multiplies its output with is folded into it."""
        weight, bias = self.tensor(f"{prefix}.weight"), self.tensor(f"{prefix}.bias").flatten()
        scale = torch.ones(())
        if scaled:
            found = self.constant_input(self.follow(self.by_name[f"{prefix}.weight"], "Multiply"))
            assert found is not None
            scale = found.flatten()[0]
        return {"weight": weight * scale, "bias": bias * scale}

    def after_convolution(self, convolution: str) -> tuple[Tensor, Tensor]:
        """The noise image [1,1,H,W] and bias [C] that are added after a convolution."""
        first = self.follow(convolution, "Add")
        second = self.follow(first, "Add")
        noise, bias = self.constant_input(first), self.constant_input(second)
        assert noise is not None
        assert bias is not None
        return noise, bias.flatten()


def _mapping(nodes: dict[str, Node]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    graph = _Graph(nodes)
    products = sorted((i for i, n in nodes.items() if n.kind == "MatMul"), key=int)
    for index, product in enumerate(products):
        weight = graph.constant_input(product)
        bias = graph.constant_input(graph.follow(product, "Add"))
        assert weight is not None
        assert bias is not None
        if nodes[product].attributes.get("transpose_b") != "true":
            weight = weight.T
        tensors[f"map.{index}.weight"] = weight.contiguous()
        tensors[f"map.{index}.bias"] = bias.flatten()
    return tensors


def _synthesis(nodes: dict[str, Node]) -> dict[str, Tensor]:
    graph = _Graph(nodes)
    tensors = {"input": graph.tensor("m.input.input")}

    def put(prefix: str, **values: Any) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                put(f"{prefix}.{name}", **value)
            else:
                tensors[f"{prefix}.{name}"] = value.contiguous()

    stem = next(i for i, n in nodes.items() if n.kind == "Convolution" and _kernel(graph, i) == (3, 3))
    noise, bias = graph.after_convolution(stem)
    put(
        "stem",
        weight=graph.constant_input(stem),
        noise=noise,
        bias=bias,
        affine=graph.affine("m.conv1.conv.modulation", scaled=True),
    )
    blocks = 1 + max(int(m[1]) for m in (re.match(r"m\.layers\.(\d+)\.", n) for n in graph.by_name) if m)
    for k in range(blocks):
        put(f"blocks.{k}.up", affine=graph.affine(f"m.layers.{k}.up.modulation", scaled=False))
        for conv in ("conv1", "conv2"):
            prefix = f"m.layers.{k}.{conv}.conv"
            depthwise = graph.tensor(f"{prefix}.weight_dw")
            pointwise = graph.follow(
                graph.follow(graph.by_name[f"{prefix}.weight_dw"], "GroupConvolution"), "Convolution"
            )
            noise, bias = graph.after_convolution(pointwise)
            put(
                f"blocks.{k}.{conv}",
                depthwise=depthwise.reshape(-1, 1, 3, 3),
                pointwise=graph.constant_input(pointwise),
                noise=noise,
                bias=bias,
                affine=graph.affine(f"{prefix}.modulation", scaled=True),
            )
    last = f"m.layers.{blocks - 1}.to_img.conv"
    convolution = graph.follow(graph.by_name[f"{last}.weight"], "Convolution")
    offset = graph.constant_input(graph.follow(convolution, "Add"))
    assert offset is not None
    put(
        "to_img",
        weight=graph.tensor(f"{last}.weight"),
        bias=offset.flatten(),
        affine=graph.affine(f"{last}.modulation", scaled=True),
    )
    return tensors


def _kernel(graph: _Graph, node: str) -> tuple[int, ...]:
    weight = graph.constant_input(node)
    return tuple(weight.shape[2:]) if weight is not None else ()


def convert(files: dict[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Convert the generator's four files.

    Args:
        files: by file name: ``MappingNetwork.xml/.bin`` and ``SynthesisNetwork.xml/.bin``.

    Returns:
        Tensors with the parameter names of ``remime.generators.mobile.MobileGenerator``, and metadata. The
        mean latent is computed here, once, from a fixed seed, so that truncation never differs between runs.
    """
    from remime.generators.mobile import mapping_network

    files = {Path(name).name: path for name, path in files.items()}
    tensors = _mapping(read_ir(files["MappingNetwork.xml"], files["MappingNetwork.bin"]))
    layers = [(tensors[f"map.{i}.weight"], tensors[f"map.{i}.bias"]) for i in range(len(tensors) // 2)]
    generator = torch.Generator().manual_seed(MEAN_LATENT_SEED)
    z = torch.randn(MEAN_LATENT_SAMPLES, layers[0][0].shape[1], generator=generator)
    w = mapping_network(z, layers)
    tensors["mean_latent"] = w.double().mean(0).float()
    tensors |= _synthesis(read_ir(files["SynthesisNetwork.xml"], files["SynthesisNetwork.bin"]))
    meta = {
        "kind": "mobile",
        "mean_latent_samples": MEAN_LATENT_SAMPLES,
        "mean_latent_seed": MEAN_LATENT_SEED,
    }
    return tensors, meta

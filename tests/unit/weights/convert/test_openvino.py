"""OpenVINO graphs: constants lie where the file says, and damaged files are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from remime.errors import WeightsError
from remime.weights.convert.openvino import convert, read_ir

LAYER = '<layer id="{id}" name="{name}" type="{kind}"><data {data}/></layer>'


def write(folder, layers, edges, data, name="net"):
    listed = "".join(LAYER.format(id=i, name=n, kind=k, data=d) for i, n, k, d in layers)
    joined = "".join(
        f'<edge from-layer="{a}" from-port="0" to-layer="{b}" to-port="{p}"/>' for a, b, p in edges
    )
    xml = folder / f"{name}.xml"
    xml.write_text(f'<net version="10"><layers>{listed}</layers><edges>{joined}</edges></net>')
    xml.with_suffix(".bin").write_bytes(data)
    return xml, xml.with_suffix(".bin")


def constant(offset, shape, kind="f32", size=None):
    size = size or 4 * int(np.prod(shape))
    return f'element_type="{kind}" offset="{offset}" size="{size}" shape="{",".join(map(str, shape))}"'


def test_graph(tmp_path):
    values = np.arange(6, dtype=np.float32)
    layers = [
        (0, "x", "Parameter", 'element_type="f32"'),
        (1, "w", "Const", constant(8, (2, 2))),
        (2, "k", "Const", constant(24, (2,), "i64", 16)),
        (3, "product", "MatMul", 'transpose_b="true"'),
    ]
    shape = np.array([5, -1], np.int64)
    nodes = read_ir(*write(tmp_path, layers, [(1, 3, 1), (0, 3, 0)], values.tobytes() + shape.tobytes()))
    assert nodes["3"].inputs == ["0", "1"]
    assert nodes["1"].consumers == ["3"]
    assert nodes["3"].attributes == {"transpose_b": "true"}
    np.testing.assert_array_equal(nodes["1"].value, [[2, 3], [4, 5]])
    np.testing.assert_array_equal(nodes["2"].value, shape)


def test_constant_beyond_the_file(tmp_path):
    files = write(tmp_path, [(0, "w", "Const", constant(4, (2, 2)))], [], bytes(16))
    with pytest.raises(WeightsError, match=r"net\.xml: w: lies at 4\+16.*16 bytes"):
        read_ir(*files)


def test_not_a_graph(tmp_path):
    files = write(tmp_path, [], [], b"")
    files[0].write_text("<net><layers>")
    with pytest.raises(WeightsError, match="not an OpenVINO graph"):
        read_ir(*files)


def mapping(folder, transposed):
    """A mapping network of two layers of width 4: x · Wᵀ + b."""
    rng = np.random.default_rng(0)
    weights, biases = (
        rng.normal(size=(2, 4, 4)).astype(np.float32),
        rng.normal(size=(2, 1, 4)).astype(np.float32),
    )
    stored = weights if transposed else weights.transpose(0, 2, 1)
    layers, edges, last = [(0, "z", "Parameter", 'element_type="f32"')], [], 0
    for i in range(2):
        w, b, product, total = (1 + 4 * i + k for k in range(4))
        layers += [
            (w, f"w{i}", "Const", constant(64 * i, (4, 4))),
            (b, f"b{i}", "Const", constant(128 + 16 * i, (1, 4))),
            (product, f"m{i}", "MatMul", f'transpose_b="{str(transposed).lower()}"'),
            (total, f"a{i}", "Add", 'x="0"'),
        ]
        edges += [(last, product, 0), (w, product, 1), (product, total, 0), (b, total, 1)]
        last = total
    data = np.ascontiguousarray(stored).tobytes() + biases.tobytes()
    return write(folder, layers, edges, data, "MappingNetwork"), weights, biases


@pytest.mark.parametrize("transposed", [False, True])
def test_mapping_network(tmp_path, transposed):
    from remime.weights.convert.openvino import _mapping

    files, weights, biases = mapping(tmp_path, transposed)
    tensors = _mapping(read_ir(*files))
    for i in range(2):
        assert torch.equal(tensors[f"map.{i}.weight"], torch.from_numpy(weights[i]))
        assert torch.equal(tensors[f"map.{i}.bias"], torch.from_numpy(biases[i, 0]))


def test_another_network_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("remime.weights.convert.openvino.MEAN_LATENT_SAMPLES", 8)
    (first, second), *_ = mapping(tmp_path, True)
    xml, data = write(tmp_path, [(0, "x", "Parameter", 'element_type="f32"')], [], b"", "SynthesisNetwork")
    with pytest.raises(WeightsError, match=r"no constant 'm\.input\.input'"):
        convert({p.name: p for p in (first, second, xml, data)})

"""Converted ONNX networks against onnxruntime: small graphs of our own, and the real ones."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from remime.errors import WeightsError
from remime.graph import GraphNetwork
from remime.weights import originals
from remime.weights.convert import onnx as converter

RANDOM = np.random.default_rng(0)
runtime = pytest.importorskip("onnxruntime")
runtime.set_default_logger_severity(3)


def model(nodes, shape, outputs=("y",), opset=11, **initializers):
    """A model with the input x [1, ...] and float constants."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answer(built, x):
    """What onnxruntime answers for every item of x, joined."""
    data = built if isinstance(built, str) else built.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    items = [session.run(None, {name: x[i : i + 1]}) for i in range(len(x))]
    return [np.concatenate(outputs) for outputs in zip(*items, strict=True)]


def converted(built, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(built.SerializeToString())
    tensors, meta = converter.convert({path.name: path})
    return GraphNetwork(meta["graph"], tensors), meta["graph"]


def floats(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def batch_norm(name, channels):
    values = {"gain": floats(channels), "bias": floats(channels), "mean": floats(channels)}
    values["variance"] = np.abs(floats(channels)) + 0.5
    return {f"{name}_{key}": value for key, value in values.items()}


def norm_node(source, name, target):
    operands = [f"{name}_{key}" for key in ("gain", "bias", "mean", "variance")]
    return helper.make_node("BatchNormalization", [source, *operands], [target], epsilon=1e-3)


def test_batch_normalisation_goes_into_the_layer_before_it(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1], group=2),
        norm_node("c", "first", "n"),
        helper.make_node("PRelu", ["n", "slope"], ["p"]),
        norm_node("p", "second", "q"),
        helper.make_node("Flatten", ["q"], ["f"]),
        helper.make_node("Gemm", ["f", "matrix", "offset"], ["g"]),
        norm_node("g", "third", "y"),
    ]
    constants = {"w": floats(6, 2, 3, 3), "slope": np.abs(floats(6, 1, 1)), "matrix": floats(96, 5)}
    constants |= {"offset": floats(5)}
    constants |= batch_norm("first", 6) | batch_norm("second", 6) | batch_norm("third", 5)
    built = model(nodes, (4, 8, 8), **constants)
    net, graph = converted(built, tmp_path)
    # The second one follows no layer of its own; it stays, as a product and a sum.
    assert [n["op"] for n in graph["nodes"]] == ["conv", "prelu", "mul", "add", "reshape", "linear"]
    x = floats(1, 4, 8, 8)
    (expected,) = answer(built, x)
    np.testing.assert_allclose(net(torch.from_numpy(x))[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_something_else_reads_keeps_its_weights(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        norm_node("c", "n", "d"),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    built = model(nodes, (2, 4, 4), w=floats(3, 2, 1, 1), **batch_norm("n", 3))
    net, _ = converted(built, tmp_path)
    x = floats(1, 2, 4, 4)
    (expected,) = answer(built, x)
    np.testing.assert_allclose(net(torch.from_numpy(x))[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_shapes_made_for_one_item_serve_any_batch(tmp_path):
    # The channel shuffle of ShuffleNet, then the token mixing of EdgeFace in small.
    nodes = [
        helper.make_node("Reshape", ["x", "groups"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Split", ["t"], ["a", "b"], axis=1, split=[1, 2]),
        helper.make_node("Concat", ["b", "a"], ["c"], axis=1),
        helper.make_node("ReduceL2", ["c"], ["l"], axes=[-1], keepdims=1),
        helper.make_node("Clip", ["l", "tiny"], ["m"]),
        helper.make_node("Expand", ["m", "full"], ["e"]),
        helper.make_node("Div", ["c", "e"], ["d"]),
        helper.make_node("Slice", ["d", "from", "to", "axis"], ["s"]),
        helper.make_node("ReduceMean", ["s"], ["y"], axes=[2], keepdims=0),
    ]
    constants = {
        "groups": np.array([1, 2, 3, 4]),
        "full": np.array([1, 3, 2, 4]),
        "tiny": np.float32(1e-12),
        "from": np.array([1]),
        "to": np.array([3]),
        "axis": np.array([1]),
    }
    built = model(nodes, (6, 4), **constants)
    net, _ = converted(built, tmp_path)
    x = floats(3, 6, 4)
    (expected,) = answer(built, x)
    np.testing.assert_allclose(net(torch.from_numpy(x))[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_what_depends_on_constants_only_is_computed_once(tmp_path):
    nodes = [helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    net, graph = converted(model(nodes, (3,), a=floats(3), b=floats(3)), tmp_path)
    assert [n["op"] for n in graph["nodes"]] == ["add"]
    assert len(net.state_dict()) == 1


def test_an_unknown_operator_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"model\.onnx.*LSTM"):
        converted(model([helper.make_node("LSTM", ["x", "x", "x"], ["y"])], (3,)), tmp_path)


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER"), "SAME_UPPER"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], ceil_mode=1), "ceil_mode"),
        (helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 1]), "batch"),
        (helper.make_node("Reshape", ["x", "flat"], ["y"]), "batch"),
    ],
)
def test_an_attribute_that_would_be_misread_is_refused(tmp_path, node, found):
    with pytest.raises(WeightsError, match=found):
        converted(model([node], (2, 4, 4), w=floats(3, 2, 3, 3), flat=np.array([-1, 4])), tmp_path)


def test_another_kind_of_file_is_refused_by_name(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("this is not a network")
    with pytest.raises(WeightsError, match=r"text\.onnx"):
        converter.convert({path.name: path})


@pytest.mark.weights
@pytest.mark.parametrize(
    ("name", "low", "high"), [("hopenet-lite", -2.0, 2.0), ("sface", 0.0, 255.0), ("edgeface-s", -1.0, 1.0)]
)
def test_real_networks_answer_as_in_onnxruntime(weights, name, low, high):
    stored = weights(name)
    net = GraphNetwork(stored.meta["graph"], stored.tensors)
    (path,) = originals(name).values()
    shape = stored.meta["graph"]["inputs"][0]["shape"]
    x = torch.rand(2, *shape[1:], generator=torch.Generator().manual_seed(0)) * (high - low) + low
    for ours, theirs in zip(net(x), answer(str(path), x.numpy()), strict=True):
        # Float32 sums in another order and batch normalisation folded in: 1e-6 of the output's size was
        # measured; a wrong padding, layout or epsilon costs more than 1e-2.
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-5 * max(1, np.abs(theirs).max()))


@pytest.mark.weights
def test_real_weights_are_what_the_file_holds(weights):
    """The last layer of HopenetLite, read independently of the converter."""
    stored = weights("hopenet-lite")
    (path,) = originals("hopenet-lite").values()
    initializers = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    linear = [n for n in stored.meta["graph"]["nodes"] if n["op"] == "linear"]
    for node, name in zip(linear, ("fc_y", "fc_p", "fc_r"), strict=True):
        np.testing.assert_array_equal(stored.tensors[node["in"][1]].numpy(), initializers[f"{name}.weight"])

"""The executor of converted graphs against plain torch."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F

from remime import graph as module
from remime.errors import WeightsError
from remime.graph import GraphNetwork


def node(op, sources, targets, **attributes):
    return {"op": op, "in": sources, "out": targets, "attrs": attributes}


def network(nodes, shape, outputs=("y",), **tensors):
    graph = {"inputs": [{"name": "x", "shape": shape}], "outputs": list(outputs), "nodes": nodes}
    return GraphNetwork(graph, tensors)


def conv(padding, nhwc, stride=(2, 2), groups=1):
    return node(
        "conv",
        ["x", "w", "b"],
        ["y"],
        stride=list(stride),
        padding=padding,
        dilation=[1, 1],
        groups=groups,
        nhwc=nhwc,
    )


def test_convolution_with_uneven_padding_is_the_padded_convolution():
    x, w, b = torch.randn(2, 3, 9, 8), torch.randn(4, 3, 3, 3), torch.randn(4)
    (y,) = network([conv([0, 1, 2, 3], nhwc=False)], [None, 3, 9, 8], w=w, b=b)(x)
    torch.testing.assert_close(y, F.conv2d(F.pad(x, [1, 3, 0, 2]), w, b, 2))


def test_channels_last_values_give_the_same_numbers_as_channels_first():
    x, w, b = torch.randn(2, 6, 8, 8), torch.randn(6, 1, 3, 3), torch.randn(6)
    (y,) = network([conv([1, 1, 1, 1], nhwc=True, groups=6)], [None, 8, 8, 6], w=w, b=b)(
        x.permute(0, 2, 3, 1).contiguous()
    )
    torch.testing.assert_close(y.permute(0, 3, 1, 2), F.conv2d(x, w, b, 2, 1, groups=6))
    assert y.is_contiguous()


def test_max_pool_pads_with_nothing_that_could_win():
    x = -torch.rand(1, 2, 5, 5) - 1
    pool = node("max_pool", ["x"], ["y"], kernel=[2, 2], stride=[2, 2], padding=[0, 0, 1, 1], nhwc=False)
    (y,) = network([pool], [None, 2, 5, 5])(x)
    torch.testing.assert_close(y, F.max_pool2d(x, 2, 2, ceil_mode=True))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("clip", ["x"], ["y"], min=0.0, max=None)], lambda x: x.relu()),
        ([node("div", [1.0, "x"], ["y"])], lambda x: 1 / x),
        ([node("pow", ["x", 2.0], ["y"])], lambda x: x * x),
        ([node("pad", ["x"], ["y"], pads=[[0, 0], [1, 0], [0, 2]])], lambda x: F.pad(x, [0, 2, 1, 0])),
        ([node("norm", ["x"], ["y"], axes=[-1], keep=True)], lambda x: x.square().sum(-1, True).sqrt()),
        ([node("reshape", ["x"], ["y"], shape=[None, 2, -1])], lambda x: x.reshape(len(x), 2, 6)),
        ([node("slice", ["x"], ["y"], bounds=[[None] * 3, [1, 3, 1]])], lambda x: x[:, 1:3]),
        (
            [
                node("split", ["x"], ["a", "b"], sizes=[1, 2], axis=1),
                node("concat", ["b", "a"], ["y"], axis=1),
            ],
            lambda x: x[:, [1, 2, 0]],
        ),
        (
            [node("transpose", ["x"], ["t"], perm=[0, 2, 1]), node("softmax", ["t"], ["y"], axis=2)],
            lambda x: x.transpose(1, 2).softmax(2),
        ),
    ],
)
def test_operations(nodes, expected):
    x = torch.randn(5, 3, 4)
    torch.testing.assert_close(network(nodes, [None, 3, 4])(x)[0], expected(x))


def test_a_constant_is_repeated_for_every_item_that_it_is_joined_to():
    token = torch.randn(1, 1, 4)
    joined = network([node("concat", ["token", "x"], ["y"], axis=1)], [None, 2, 4], token=token)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(joined(x)[0], torch.cat([token.repeat(3, 1, 1), x], 1))


def test_gradients_reach_the_input():
    nodes = [
        conv([1, 1, 1, 1], nhwc=False) | {"out": ["c"]},
        node("prelu", ["c", "s"], ["p"], nhwc=False),
        node("mean", ["p"], ["m"], axes=[2, 3], keep=False),
        node("linear", ["m", "l"], ["y"]),
    ]
    w, s, matrix = torch.randn(4, 3, 3, 3), torch.rand(4), torch.randn(2, 4)
    net = network(nodes, [None, 3, 6, 6], w=w, b=torch.randn(4), s=s, l=matrix).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: net(x)[0], x)


def test_parameters_are_frozen_and_in_the_state_dict():
    net = network([node("mul", ["x", "gain"], ["y"])], [None, 3], gain=torch.tensor([1.0, 2.0, 3.0]))
    assert list(net.state_dict()) == ["gain"]
    assert not net.gain.requires_grad
    other = copy.deepcopy(net)
    other.load_state_dict({"gain": torch.zeros(3)})
    assert other(torch.ones(1, 3))[0].sum() == 0
    assert net(torch.ones(1, 3))[0].sum() == 6


def test_a_value_is_released_when_nothing_will_read_it(monkeypatch):
    made, alive = [], []

    def neg(_attributes, x):
        result = -x
        made.append(weakref.ref(result))
        return result

    def sigmoid(_attributes, x):
        alive.append([ref() is not None for ref in made])
        return x.sigmoid()

    monkeypatch.setitem(module.OPERATIONS, "neg", neg)
    monkeypatch.setitem(module.OPERATIONS, "sigmoid", sigmoid)
    nodes = [
        node("neg", ["x"], ["dead"]),
        node("neg", ["dead"], ["kept"]),
        node("relu", ["kept"], ["r"]),
        node("sigmoid", ["r"], ["s"]),
        node("add", ["s", "kept"], ["y"]),
    ]
    with torch.no_grad():
        network(nodes, [None, 2])(torch.ones(1, 2))
    assert alive == [[False, True]]


def test_an_unknown_operation_is_named():
    with pytest.raises(WeightsError, match="'conv3d'"):
        network([node("conv3d", ["x"], ["y"])], [None, 3])


def test_an_operand_that_nothing_provides_is_named():
    with pytest.raises(WeightsError, match="'add' reads 'lost'"):
        network([node("add", ["x", "lost"], ["y"])], [None, 3])


def test_an_output_that_nothing_computes_is_named():
    with pytest.raises(WeightsError, match="'z'"):
        network([node("relu", ["x"], ["y"])], [None, 3], outputs=["z"])


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1)])
def test_an_input_of_another_shape_is_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"\[None, 3\].*\(2, "):
        network([node("relu", ["x"], ["y"])], [None, 3])(torch.ones(shape))


def test_the_number_of_inputs_is_checked():
    with pytest.raises(TypeError, match="1 input"):
        network([node("relu", ["x"], ["y"])], [None, 3])()

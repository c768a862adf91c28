"""Converted TFLite networks against the original runtime."""

import numpy as np
import pytest
import torch

from remime.errors import WeightsError
from remime.graph import GraphNetwork
from remime.weights import originals
from remime.weights.convert import tflite as converter

from ..stills import aligned


@pytest.fixture
def both(weights):
    """``both(name)``: our network, and a function that runs the original on one item."""

    def build(name):
        stored = weights(name)
        (path,) = originals(name).values()
        interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()

        def original(x):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.numpy())
            interpreter.invoke()
            return [interpreter.get_tensor(o["index"]) for o in interpreter.get_output_details()]

        return GraphNetwork(stored.meta["graph"], stored.tensors), original

    return build


@pytest.mark.weights
def test_the_mesh_is_that_of_the_original_runtime(both):
    net, original = both("face-mesh")
    faces, _ = aligned("obama", "biden")
    x = (faces.permute(0, 2, 3, 1).contiguous() + 1) / 2
    points, presence, last = net(x)
    for i in range(len(x)):
        theirs = original(x[i : i + 1])
        # Pixels of the 256² crop. XNNPACK and oneDNN sum in different orders through 106 convolutions: 4e-4
        # was measured; a pixel of padding on the wrong side costs more than 1.
        assert np.abs(points[i].numpy() - theirs[0]).max() < 2e-3
        assert np.abs(presence[i].numpy() - theirs[1]).max() < 2e-3
        assert np.abs(last[i].numpy() - theirs[2]).max() < 1e-4


@pytest.mark.weights
def test_the_blendshapes_are_those_of_the_original_runtime(both):
    net, original = both("blendshapes")
    x = torch.rand(3, 146, 2, generator=torch.Generator().manual_seed(0)) * 256
    (ours,) = net(x)
    assert ours.shape == (3, 52)
    for i in range(3):
        # Probabilities of a small network, float32: 1e-6 was measured.
        np.testing.assert_allclose(ours[i].numpy(), original(x[i : i + 1])[0], rtol=0, atol=1e-5)


@pytest.mark.weights
@pytest.mark.parametrize(("name", "shape"), [("face-mesh", (256, 256, 3)), ("blendshapes", (146, 2))])
def test_a_batch_is_its_items(weights, name, shape):
    stored = weights(name)
    net = GraphNetwork(stored.meta["graph"], stored.tensors)
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    for together, *alone in zip(net(x), *(net(x[i : i + 1]) for i in range(3)), strict=True):
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=2e-3)


@pytest.mark.weights
def test_an_unknown_operator_is_named(weights, monkeypatch):
    weights("blendshapes")
    monkeypatch.delitem(converter._HANDLERS, "RSQRT")
    with pytest.raises(WeightsError, match=r"face_blendshapes\.tflite.*RSQRT"):
        converter.convert(originals("blendshapes"))


def test_another_kind_of_file_is_refused_by_name(tmp_path):
    path = tmp_path / "zip.tflite"
    path.write_bytes(b"PK\3\4 not a flatbuffer")
    with pytest.raises(WeightsError, match=r"zip\.tflite"):
        converter.convert({path.name: path})

"""LPIPS against the ``lpips`` package, given the same trunk."""

import pickle

import numpy as np
import pytest
import torch

from remime._torchvision import torchvision
from remime.errors import WeightsError
from remime.perceptual import LPIPS, load_lpips
from remime.weights.convert import lpips as converter

from ..stills import aligned


@pytest.fixture(params=["alex", "vgg"])
def both(request, weights):
    """Our network, and the package's with our trunk; its heads are its own."""
    weights(f"lpips-{request.param}")
    torchvision()
    package = pytest.importorskip("lpips")
    ours = load_lpips(request.param)
    theirs = package.LPIPS(net=request.param, version="0.1", pnet_rand=True, verbose=False).eval()
    convolutions = [m for m in theirs.net.modules() if isinstance(m, torch.nn.Conv2d)]
    for mine, other in zip(ours.convolutions, convolutions, strict=True):
        assert mine.weight.shape == other.weight.shape
        other.weight.data, other.bias.data = mine.weight.data, mine.bias.data
    return ours, theirs


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_distances_are_those_of_the_package(both):
    ours, theirs = both
    for mine, other in zip(ours.heads, theirs.lins, strict=True):
        assert torch.equal(mine, other.model[-1].weight)
    faces, _ = aligned(size=128)
    a, b = faces[[0, 0, 1, 2]], faces[[1, 3, 2, 2]]
    b = b + 0.05 * torch.randn(b.shape, generator=torch.Generator().manual_seed(0))
    # The same operations in float32: equal to 1e-7 when measured.
    torch.testing.assert_close(ours(a, b), theirs(a, b).detach().flatten(), atol=1e-5, rtol=0)


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gradients_are_those_of_the_package(both):
    a = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    gradients = []
    for network in both:
        b = (a * 0.5 + 0.1).requires_grad_()
        network(a, b).sum().backward()
        gradients.append(b.grad)
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-3)


def checkpoint(trunk="AlexNet_0"):
    shapes = [(11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)]
    random = np.random.default_rng(0)
    layers = {
        f"Conv_{i}": {
            "kernel": random.random((k, k, inputs, outputs), np.float32),
            "bias": random.random(outputs, np.float32),
        }
        for i, (k, inputs, outputs) in enumerate(shapes)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": random.random((1, 1, shape[2], 1), np.float32)}}
        for i, shape in enumerate(shapes)
    }
    return {trunk: layers, **heads}


def test_kernels_are_turned_from_height_width_in_out(tmp_path):
    path = tmp_path / "alexnet.ckpt"
    path.write_bytes(pickle.dumps(checkpoint()))
    tensors, meta = converter.convert({path.name: path})
    assert meta == {"net": "alex"}
    LPIPS(meta["net"]).load_state_dict(tensors)
    stored = checkpoint()["AlexNet_0"]["Conv_1"]["kernel"]
    assert tensors["convolutions.1.weight"][7, 5, 2, 3] == stored[2, 3, 5, 7]


def test_another_checkpoint_is_refused_with_what_it_holds(tmp_path):
    path = tmp_path / "other.ckpt"
    path.write_bytes(pickle.dumps(checkpoint("SqueezeNet_0")))
    with pytest.raises(WeightsError, match=r"other\.ckpt.*SqueezeNet_0"):
        converter.convert({path.name: path})

"""dlib's identity network; tests/parity holds it against dlib."""

import pytest
import torch

from remime.faces.dlib_resnet import DlibResNet


@pytest.fixture(scope="module")
def network() -> DlibResNet:
    generator = torch.Generator().manual_seed(0)
    network = DlibResNet()
    for name, value in network.named_parameters():
        if value.ndim > 1:
            fan = value[0].numel()
            value.copy_(torch.randn(value.shape, generator=generator) * (1.4 / fan**0.5))
        elif name.endswith(("bias", "shift")):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return network


def test_it_has_dlibs_size(network):
    # 59 parameter tensors in dlib's file: 29 convolutions with biases, 29 affine layers, one projection.
    assert sum(value.numel() for value in network.parameters()) == 5_614_592
    assert len(list(network.parameters())) == 4 * 29 + 1


def test_frozen_but_differentiable(network):
    chips = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(1)) * 2 - 1
    chips.requires_grad_(True)
    found = network(chips)
    assert found.shape == (2, 128)
    assert not network.training
    found.square().sum().backward()
    assert chips.grad is not None
    assert float(chips.grad.abs().sum()) > 0
    assert all(value.grad is None and not value.requires_grad for value in network.parameters())


def test_weights_come_back(network):
    copy = DlibResNet.from_tensors(network.state_dict())
    chips = torch.zeros(1, 3, 150, 150)
    assert torch.equal(copy(chips), network(chips))
    with pytest.raises(RuntimeError, match="Missing key"):
        DlibResNet.from_tensors({})


def test_the_input_is_centred(network):
    # A chip that equals the mean colour gives what zeros inside the network give: no spatial structure.
    copy = DlibResNet.from_tensors(network.state_dict() | {"mean": torch.full((3,), 127.5)})
    stem = copy.stem(((torch.zeros(1, 3, 150, 150) + 1) * 127.5 - 127.5) / 256)
    assert torch.allclose(
        stem, (copy.stem.bias * copy.stem.scale + copy.stem.shift)[:, None, None].expand_as(stem)
    )


@pytest.mark.parametrize("shape", [(1, 3, 112, 112), (3, 150, 150), (1, 1, 150, 150)])
def test_other_sizes_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"chips: expected shape \[B, 3, 150, 150\]"):
        network(torch.zeros(shape))

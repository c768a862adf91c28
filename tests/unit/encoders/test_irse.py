"""IR-SE50 against a step-by-step numpy computation and the published layout."""

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from remime.encoders import irse
from remime.errors import WeightsError


def randomised(module):
    """Batch norms with statistics that do something, in eval mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and value.ndim == 1:
                value.add_(0.2 * torch.randn_like(value))
    return module.eval()


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(16, 32, 2), (16, 16, 2), (16, 16, 1)])
def test_block_equals_step_by_step_computation(inputs, outputs, stride):
    block = randomised(irse.Bottleneck(inputs, outputs, stride)).double()
    p = {k: v.numpy() for k, v in block.state_dict().items()}
    x = torch.randn(1, inputs, 6, 6).double()

    def norm(name, x):
        scale = p[f"{name}.weight"] / np.sqrt(p[f"{name}.running_var"] + 1e-5)
        return (x - p[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + p[f"{name}.bias"][
            :, None, None
        ]

    def conv(name, x, stride=1):
        y = [
            sum(correlate2d(plane, k, "same") for plane, k in zip(x, kernels, strict=True))
            for kernels in p[name]
        ]
        return np.stack(y)[:, ::stride, ::stride]

    y = conv("res_layer.1.weight", norm("res_layer.0", x[0].numpy()))
    y = np.where(y > 0, y, p["res_layer.2.weight"][:, None, None] * y)
    y = norm("res_layer.4", conv("res_layer.3.weight", y, stride))
    gate = np.maximum(p["res_layer.5.fc1.weight"][:, :, 0, 0] @ y.mean((1, 2)), 0)
    gate = 1 / (1 + np.exp(-p["res_layer.5.fc2.weight"][:, :, 0, 0] @ gate))
    shortcut = x[0].numpy()[:, ::stride, ::stride]
    if inputs != outputs:
        shortcut = norm(
            "shortcut_layer.1", np.einsum("oi,ihw->ohw", p["shortcut_layer.0.weight"][:, :, 0, 0], shortcut)
        )
    np.testing.assert_allclose(block(x)[0].detach().numpy(), shortcut + y * gate[:, None, None], atol=1e-10)


def test_layout_is_that_of_model_ir_se50():
    with torch.device("meta"):
        state = {k: tuple(v.shape) for k, v in irse.ArcFace().state_dict().items()}
    expected = {
        "input_layer.0.weight": (64, 3, 3, 3),
        "input_layer.1.running_mean": (64,),
        "input_layer.2.weight": (64,),
        "body.0.res_layer.0.weight": (64,),
        "body.0.res_layer.1.weight": (64, 64, 3, 3),
        "body.0.res_layer.2.weight": (64,),
        "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1),
        "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
        "body.3.shortcut_layer.1.running_var": (128,),
        "body.7.res_layer.3.weight": (256, 256, 3, 3),
        "body.21.res_layer.5.fc2.weight": (512, 32, 1, 1),
        "body.23.res_layer.4.bias": (512,),
        "output_layer.0.weight": (512,),
        "output_layer.3.weight": (512, 25088),
        "output_layer.3.bias": (512,),
        "output_layer.4.running_mean": (512,),
    }
    assert {key: state.get(key) for key in expected} == expected
    assert "body.1.shortcut_layer.0.weight" not in state
    assert not any(key.startswith("body.24.") for key in state)


def test_pyramid_taps_have_the_sizes_of_the_paper():
    body = irse.body().eval()
    x = torch.randn(1, 64, 32, 32)
    taps = irse.pyramid(x, body)
    assert [tuple(t.shape[1:]) for t in taps] == [(128, 8, 8), (256, 4, 4), (512, 2, 2)]
    torch.testing.assert_close(taps[2], body(x))


def test_arcface_gives_unit_vectors_and_refuses_other_sizes():
    tensors = randomised(irse.ArcFace()).state_dict()
    old = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    network = irse.ArcFace.from_tensors(old)
    assert not any(p.requires_grad for p in network.parameters())
    embeddings = network(torch.rand(2, 3, 112, 112) * 2 - 1)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="112"):
        network(torch.zeros(1, 3, 256, 256))
    del old["body.5.res_layer.4.bias"]
    with pytest.raises(WeightsError, match=r"body\.5\.res_layer\.4\.bias"):
        irse.ArcFace.from_tensors(old)


def test_encoders_start_from_arcface_with_their_extra_input_channels_kept():
    encoder = nn.Module()
    encoder.input_layer, encoder.body, encoder.head = irse.input_layer(6), irse.body(), nn.Linear(2, 2)
    own = encoder.input_layer[0].weight.detach().clone()
    source = nn.Module()
    source.input_layer, source.body = irse.input_layer(3), irse.body()
    tensors = {**source.state_dict(), "output_layer.3.bias": torch.zeros(512)}
    irse.start_from_arcface(encoder, tensors)
    assert torch.equal(encoder.input_layer[0].weight[:, :3], source.input_layer[0].weight)
    assert torch.equal(encoder.input_layer[0].weight[:, 3:], own[:, 3:])
    assert torch.equal(encoder.body[20].res_layer[1].weight, source.body[20].res_layer[1].weight)
    with pytest.raises(WeightsError, match="missing"):
        irse.start_from_arcface(encoder, {"input_layer.0.weight": own[:, :3]})

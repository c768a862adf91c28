"""pSp, ReStyle's backbone encoder and e4e: levels, layouts, progressive stages."""

import numpy as np
import pytest
import torch
from torch import nn

from remime.encoders import KINDS, build_encoder, irse
from remime.encoders.e4e import (
    Encoder4Editing,
    ProgressiveBackboneEncoder,
    delta_regularisation,
    stage_at,
)
from remime.encoders.psp import GradualStyleEncoder, Map2Style, upsample_add
from remime.errors import InputError

ROWS = 8  # reaches all three pyramid levels


@pytest.fixture(scope="module")
def pyramid_encoder():
    torch.manual_seed(0)
    return GradualStyleEncoder(ROWS).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(1)
    return torch.rand(2, 3, 64, 64) * 2 - 1


def sharing(cls, encoder, rows=ROWS):
    """Another class with the same parameters, without initialising its own."""
    with torch.device("meta"):
        other = cls(rows)
    other.load_state_dict(encoder.state_dict(), assign=True)
    return other.eval()


def shapes(kind, rows=18):
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in build_encoder(kind, "paper", rows).state_dict().items()}


def test_psp_heads_read_their_levels(pyramid_encoder, images):
    e = pyramid_encoder
    out = e(images)
    assert out.shape == (2, ROWS, 512)
    c1, c2, c3 = irse.pyramid(e.input_layer(images), e.body)
    p2 = upsample_add(c3, e.latlayer1(c2))
    p1 = upsample_add(p2, e.latlayer2(c1))
    assert (c3.shape[2], p2.shape[2], p1.shape[2]) == (4, 8, 16)
    for row, level in ((0, c3), (2, c3), (3, p2), (6, p2), (7, p1)):
        torch.testing.assert_close(out[:, row], e.styles[row](level))


def test_upsampling_aligns_corners():
    x = torch.rand(1, 1, 3, 3)
    grid = np.linspace(0, 2, 6)
    rows = np.stack([np.interp(grid, range(3), r) for r in x[0, 0].numpy()])
    expected = np.stack([np.interp(grid, range(3), c) for c in rows.T]).T
    actual = upsample_add(x, torch.ones(1, 1, 6, 6))[0, 0].numpy()
    np.testing.assert_allclose(actual, expected + 1, atol=1e-6)


def test_map2style_ends_in_an_equalised_linear_layer():
    head = Map2Style(16).requires_grad_(False)
    x = torch.randn(1, 512, 16, 16)
    y = x
    for i in range(0, 8, 2):
        y = nn.functional.conv2d(y, head.convs[i].weight, head.convs[i].bias, stride=2, padding=1)
        y = torch.maximum(y, 0.01 * y)
    assert y.shape == (1, 512, 1, 1)
    expected = y[:, :, 0, 0] @ head.linear.weight.T / 512**0.5 + head.linear.bias
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_layouts_are_the_published_ones(kind):
    state = shapes(kind)
    expected = {
        "input_layer.0.weight": (64, 6 if kind.startswith("restyle") else 3, 3, 3),
        "body.23.res_layer.5.fc2.weight": (512, 32, 1, 1),
        "styles.0.convs.0.weight": (512, 512, 3, 3),
        "styles.0.convs.6.bias": (512,),
        "styles.17.linear.weight": (512, 512),
        "styles.17.linear.bias": (512,),
    }
    if kind.startswith("restyle"):
        assert "styles.17.convs.8.weight" not in state
        assert "latlayer1.weight" not in state
    else:
        expected |= {
            "styles.3.convs.8.weight": (512, 512, 3, 3),
            "styles.17.convs.10.weight": (512, 512, 3, 3),
            "latlayer1.weight": (512, 256, 1, 1),
            "latlayer2.weight": (512, 128, 1, 1),
            "latlayer2.bias": (512,),
        }
        assert "styles.6.convs.10.weight" not in state
    assert {key: state.get(key) for key in expected} == expected
    assert len([key for key in state if key.endswith("linear.bias")]) == 18


def test_e4e_is_one_w_plus_offsets(pyramid_encoder, images):
    plain = pyramid_encoder(images)
    encoder = sharing(Encoder4Editing, pyramid_encoder)
    expected = plain[:, :1] + plain
    expected[:, 0] = plain[:, 0]
    torch.testing.assert_close(encoder(images), expected)


@pytest.mark.parametrize("stage", [0, 2, 5])
def test_stages_switch_offsets_and_gradients(pyramid_encoder, images, stage):
    encoder = sharing(Encoder4Editing, pyramid_encoder)
    full = encoder(images)
    encoder.stage = stage
    for module in (*encoder.styles, encoder.latlayer1, encoder.latlayer2):
        module.requires_grad_()
    out = encoder(images)
    torch.testing.assert_close(out[:, : stage + 1], full[:, : stage + 1])
    for row in range(stage + 1, ROWS):
        torch.testing.assert_close(out[:, row], out[:, 0])
    out.square().mean().backward()
    active = [i for i, head in enumerate(encoder.styles) if head.linear.weight.grad is not None]
    assert active == list(range(stage + 1))
    assert (encoder.latlayer1.weight.grad is not None) == (stage >= 3)
    assert encoder.latlayer2.weight.grad is None
    for parameter in encoder.parameters():
        parameter.grad = None
        parameter.requires_grad_(False)


def test_backbone_stages_repeat_the_first_row():
    torch.manual_seed(0)
    encoder = ProgressiveBackboneEncoder(3).eval().requires_grad_(False)
    x = torch.randn(1, 6, 32, 32)
    features = encoder.body(encoder.input_layer(x))
    heads = [head(features) for head in encoder.styles]
    torch.testing.assert_close(
        encoder(x), torch.stack([heads[0], heads[0] + heads[1], heads[0] + heads[2]], 1)
    )
    encoder.stage = 1
    torch.testing.assert_close(encoder(x)[:, 2], heads[0])


def test_stages_start_when_the_paper_says():
    assert [stage_at(s, 18) for s in (0, 19_999, 20_000, 21_999, 22_000, 24_000, 52_000, 900_000)] == [
        0,
        0,
        1,
        1,
        2,
        3,
        17,
        17,
    ]


def test_delta_regularisation_sums_norms_of_active_offsets():
    w_plus = torch.zeros(2, 4, 512) + 5
    w_plus[0, 1, :4] += 1  # norm 2
    w_plus[1, 2, 0] -= 3  # norm 3
    w_plus[:, 3] += 100
    torch.testing.assert_close(delta_regularisation(w_plus, 2), torch.tensor((2 + 3) / 2))
    assert delta_regularisation(w_plus, 0) == 0


def test_unknown_kinds_presets_and_options_are_input_errors():
    with pytest.raises(InputError, match="restyle-psp"):
        build_encoder("pps", "paper", 18)
    with pytest.raises(InputError, match="paper, small"):
        build_encoder("psp", "big", 18)
    with pytest.raises(InputError, match="width"):
        build_encoder("psp", "paper", 18, width=3)

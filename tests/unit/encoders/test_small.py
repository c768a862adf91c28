"""The small encoders: what they see, what they give, what learns."""

from __future__ import annotations

import pytest
import torch

from remime.encoders import build_encoder
from remime.encoders.restyle import ReStyle
from remime.encoders.small import CHANNELS, GRID, SmallEncoder, SmallProgressiveEncoder, Trunk, factorise
from remime.errors import InputError
from tests import tiny


@pytest.fixture
def images():
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def encoder(kind="restyle-psp", rows=6, **options):
    torch.manual_seed(0)
    built = build_encoder(kind, "small", rows, width=8, **options)
    if "rank" not in options:
        torch.nn.init.normal_(built.heads.weight, std=0.1)
    return built


@pytest.mark.parametrize(("side", "checked"), [(136, 1), (144, 2)])
def test_features_are_stacked_levels_on_one_grid(side, checked):
    """Where a level's size is a multiple of the grid's, pooling keeps its means."""
    trunk = Trunk()
    images = torch.rand(2, 3, side, side) * 2 - 1
    features = trunk(images)
    assert features.shape == (2, CHANNELS, GRID, GRID)
    levels = trunk.net.taps(images)
    start = found = 0
    for i in (1, 2, 4):
        channels = levels[i].shape[1]
        mean = features[:, start : start + channels].mean((2, 3))
        if levels[i].shape[-1] % GRID == 0:
            assert torch.allclose(mean, levels[i].mean((2, 3)), atol=1e-5)
            found += 1
        start += channels
    assert (start, found) == (CHANNELS, checked)


@pytest.mark.parametrize(
    ("kind", "made"), [("restyle-psp", SmallEncoder), ("restyle-e4e", SmallProgressiveEncoder)]
)
def test_images_to_offsets(images, kind, made):
    network = encoder(kind)
    assert type(network) is made
    assert network(torch.cat([images, images.flip(0)], 1)).shape == (4, 6, 512)
    for wrong in (images, images[0]):
        with pytest.raises(ValueError, match=r"\[B, 6, H, W\]"):
            network(wrong)


def test_each_image_is_on_its_own(images):
    network = encoder()
    x = torch.cat([images, images.flip(2)], 1)
    together = network(x)
    assert torch.allclose(together, torch.cat([network(part) for part in x.split(1)]), atol=1e-5)


def test_features_of_the_image_can_be_kept(images):
    network, estimate = encoder(), images.flip(2)
    assert torch.allclose(
        network.refine(network.prepare(images), estimate),
        network(torch.cat([images, estimate], 1)),
        atol=1e-5,
    )


def test_restyle_prepares_once_and_refines_alike(images):
    network = encoder(rows=tiny.ROWS, spread=0.05)
    restyle = ReStyle(network, tiny.generator(), steps=3, size=64)
    calls = []
    network.trunk.register_forward_hook(lambda *_: calls.append(1))
    w_plus = restyle.invert(images)
    assert len(calls) == 4
    expected, estimate = restyle.start(len(images))
    with torch.no_grad():
        for _ in range(3):
            expected = expected + network(torch.cat([images, estimate], 1))
            estimate = restyle.decode(expected)
    assert torch.allclose(w_plus, expected, atol=1e-4)


def test_offsets_start_small():
    torch.manual_seed(0)
    x = torch.rand(2, 6, 64, 64) * 2 - 1
    offsets = build_encoder("restyle-psp", "small", 6, width=8)(x)
    assert 0 < offsets.abs().max() < 0.05


def test_spread_scales_the_offsets(images):
    x = torch.cat([images, images.flip(2)], 1)
    assert torch.allclose(encoder(spread=1.5)(x), 3 * encoder(spread=0.5)(x), rtol=1e-4, atol=1e-6)


def test_trunk_never_learns(images):
    network = encoder().train()
    assert not network.trunk.training
    assert network.local.training
    network(torch.cat([images, images], 1)).square().sum().backward()
    assert all(p.grad is None for p in network.trunk.parameters())
    assert all(p.grad is not None for n, p in network.named_parameters() if not n.startswith("trunk."))


def test_progressive_stages(images):
    network = encoder("restyle-e4e")
    x = torch.cat([images, images.flip(2)], 1)
    full = network(x)
    assert len({tuple(row.tolist()) for row in full[0]}) == 6
    for stage in (0, 2, 5):
        network.stage = stage
        offsets = network(x)
        assert torch.equal(offsets[:, : stage + 1], full[:, : stage + 1])
        assert torch.equal(offsets[:, stage + 1 :], full[:, :1].expand(-1, 5 - stage, -1))


def test_rows_of_later_stages_get_no_gradient(images):
    network = encoder("restyle-e4e")
    network.stage = 2
    network(torch.cat([images, images.flip(2)], 1)).square().sum().backward()
    per_row = network.heads.weight.grad.view(6, 512, -1).abs().sum((1, 2)) > 0
    assert per_row.tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("kind", ["restyle-psp", "restyle-e4e"])
def test_last_layer_at_a_lower_rank(images, kind):
    """A layer that has the rank loses nothing; else the best approximation of that rank is left."""
    network, x = encoder(kind), torch.cat([images, images.flip(2)], 1)
    weight = network.heads.weight
    with torch.no_grad():
        weight.copy_(torch.randn(len(weight), 5) @ torch.randn(5, 1024) / 30)
        weight += 1e-3 * torch.randn_like(weight)
    tensors = {f"encoder.{k}": v.detach() for k, v in network.state_dict().items()}
    factored = encoder(kind, rank=5)
    small_file = factorise(tensors, 5)
    factored.load_state_dict({k.removeprefix("encoder."): v for k, v in small_file.items()})
    assert sum(v.numel() for v in factored.heads.parameters()) < 0.02 * weight.numel()
    difference = (factored(x) - network(x)).abs().max()
    assert 0 < difference < 0.02 * network(x).abs().max()
    left = (factored.heads[1].weight @ factored.heads[0].weight).detach()
    best = torch.linalg.svdvals(weight.detach())[5]
    assert torch.linalg.matrix_norm(left - weight.detach(), 2) == pytest.approx(float(best), rel=0.01)


def test_other_kinds_have_no_small_preset():
    with pytest.raises(InputError, match="restyle-psp, restyle-e4e"):
        build_encoder("psp", "small", 6)

"""ReStyle's iteration on stub encoders and a tiny StyleGAN2; published checkpoints."""

import pytest
import torch
from torch import nn

from remime.encoders import build_encoder
from remime.encoders.restyle import ReStyle, SinglePass, load_published
from remime.errors import WeightsError
from remime.generators.stylegan2 import StyleGAN2, channel_widths

ROWS, SIZE = 6, 8


class Stub(nn.Module):
    """A fixed linear function of the pooled input, [B, channels, 8, 8] → [B, 6, 512]."""

    def __init__(self, channels):
        super().__init__()
        torch.manual_seed(channels)
        self.linear = nn.Linear(channels * 4, ROWS * 512)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)).view(-1, ROWS, 512)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    generator = StyleGAN2(16, channel_widths(16, cap=4), mapping_layers=1).eval().requires_grad_(False)
    generator.mean_latent.normal_()
    return generator


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1


def pool(x):
    """2 × 2 means, or 4 × 4 for the larger input: 8² in the end."""
    factor = x.shape[-1] // SIZE
    return x.reshape(*x.shape[:2], SIZE, factor, SIZE, factor).mean((3, 5))


def by_hand(encoder, generator, images, steps):
    w = generator.mean_latent.expand(len(images), ROWS, 512)
    for _ in range(steps):
        w = w + encoder(torch.cat([pool(images), pool(generator.synthesize(w))], 1))
    return w


def test_inversion_equals_the_iteration_by_hand(generator, images):
    encoder = Stub(6)
    restyle = ReStyle(encoder, generator, steps=3, size=SIZE)
    with torch.no_grad():
        expected = by_hand(encoder, generator, images, 3)
    actual = restyle.invert(images)
    torch.testing.assert_close(actual, expected)
    assert not actual.requires_grad


def test_batches_do_not_change_the_result(generator, images):
    restyle = ReStyle(Stub(6), generator, steps=2, size=SIZE)
    torch.testing.assert_close(restyle.invert(images, batch_size=2), restyle.invert(images))


def test_last_decode_is_skipped_and_the_mean_image_is_decoded_once(generator, images, monkeypatch):
    calls = []
    decode = generator.synthesize
    monkeypatch.setattr(generator, "synthesize", lambda w, **k: calls.extend(w) or decode(w, **k))
    restyle = ReStyle(Stub(6), generator, steps=4, size=SIZE)
    restyle.invert(images)
    restyle.invert(images)
    assert len(calls) == 1 + 2 * 3 * len(images)


def test_mean_latent_may_differ_from_the_generators(generator, images):
    encoder = Stub(6)
    average = torch.randn(ROWS, 512)
    restyle = ReStyle(encoder, generator, average, steps=1, size=SIZE)
    restyle.invert(images)
    mean_image = pool(generator.synthesize(average[None]))
    torch.testing.assert_close(encoder.seen[0][:, 3:], mean_image.expand(3, -1, -1, -1))
    assert set(restyle.state_dict()) >= {"latent_avg", "encoder.linear.weight"}
    assert "average_image" not in restyle.state_dict()


def test_training_iteration_backpropagates_through_one_step_only(generator, images):
    encoder = Stub(6)
    restyle = ReStyle(encoder, generator, steps=3, size=SIZE)
    seen = []
    for w_plus, estimate in restyle.iterate(images):
        estimate.square().mean().backward()
        seen.append(w_plus.detach())
    torch.testing.assert_close(seen[-1], restyle.invert(images))
    gradient = encoder.linear.weight.grad.clone()

    encoder.zero_grad()
    w, y = restyle.start(3)
    for _ in range(3):
        w_new = w + encoder(torch.cat([pool(images), y], 1))
        y_new = pool(generator.synthesize(w_new))
        y_new.square().mean().backward()
        w, y = w_new.detach(), y_new.detach()
    torch.testing.assert_close(encoder.linear.weight.grad, gradient)


def test_intermediate_decodes_may_stop_early(generator, images):
    restyle = ReStyle(Stub(6), generator, steps=2, size=SIZE, decode_resolution=8)
    w_plus = restyle.invert(images)
    torch.testing.assert_close(restyle.decode(w_plus), generator.synthesize(w_plus, resolution=8))


def test_error_is_the_mean_square_per_image(generator, images):
    restyle = ReStyle(Stub(6), generator, steps=1, size=SIZE)
    w_plus = restyle.invert(images)
    expected = (pool(generator.synthesize(w_plus)) - pool(images)).square().flatten(1).mean(1)
    torch.testing.assert_close(restyle.error(images, w_plus), expected)


def test_single_pass_adds_the_mean(generator, images):
    encoder, average = Stub(3), torch.randn(512)
    inverter = SinglePass(encoder, generator, average, SIZE)
    expected = average + encoder(pool(images))
    torch.testing.assert_close(inverter.invert(images, batch_size=2), expected)
    ((w_plus, estimate),) = inverter.iterate(images)
    torch.testing.assert_close(w_plus, expected)
    torch.testing.assert_close(estimate, pool(generator.synthesize(expected)))
    assert w_plus.requires_grad


@pytest.mark.parametrize("kind", ["restyle-psp", "e4e"])
def test_published_checkpoints_load_and_run(kind):
    torch.manual_seed(0)
    decoder = StyleGAN2(8, channel_widths(8, cap=4), mapping_layers=2)
    average = torch.randn(512).repeat(4, 1)
    with torch.device("meta"):
        layout = build_encoder(kind, "paper", 4).state_dict()
    tensors = {f"encoder.{k}": torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in layout.items()}
    tensors |= {f"decoder.{k}": v for k, v in decoder.state_dict().items() if k != "mean_latent"}
    tensors["encoder.styles.0.linear.bias"] = torch.arange(512.0)
    tensors["latent_avg"] = average
    inverter, generator = load_published(kind, tensors, steps=2)
    assert not any(p.requires_grad for p in inverter.parameters())
    torch.testing.assert_close(generator.mean_latent, average[0])
    images = torch.zeros(1, 3, 32, 32)
    if kind == "e4e":
        inverter.size = 32
        expected = average + torch.arange(512.0)  # w₀ in every row, all Δᵢ zero
    else:
        inverter = ReStyle(inverter.encoder, generator, average, steps=2, size=32)
        expected = average.clone()
        expected[0] += 2 * torch.arange(512.0)
    torch.testing.assert_close(inverter.invert(images)[0], expected)

    with pytest.raises(WeightsError, match="latent_avg"):
        load_published(kind, {k: v for k, v in tensors.items() if k != "latent_avg"})
    with pytest.raises(WeightsError, match=r"styles\.2\.linear\.bias"):
        load_published(kind, {k: v for k, v in tensors.items() if k != "encoder.styles.2.linear.bias"})

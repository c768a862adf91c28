"""The latent discriminator, its pools and R1."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from remime.encoders.discriminator import LatentAdversary, LatentDiscriminator, LatentPool, r1_penalty


def numbered(start, count):
    """Latents whose every entry is their number."""
    return torch.arange(float(start), start + count)[:, None].expand(-1, 512).clone()


def test_layout_and_leading_dimensions():
    network = LatentDiscriminator()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if k.endswith("weight")}
    assert shapes == {
        "mlp.0.weight": (512, 512),
        "mlp.2.weight": (512, 512),
        "mlp.4.weight": (512, 512),
        "mlp.6.weight": (1, 512),
    }
    w = torch.randn(2, 5, 512)
    assert network(w).shape == (2, 5)
    torch.testing.assert_close(network(w)[1, 3], network(w[1, 3][None])[0])


def test_pool_fills_first_then_swaps_half():
    torch.manual_seed(0)
    pool = LatentPool(50)
    first = numbered(0, 50)
    assert torch.equal(pool.query(first), first)
    assert torch.equal(pool.latents, first)
    new = numbered(1000, 400)
    out = pool.query(new)
    returned_as_is = (out[:, 0] == new[:, 0]).float().mean()
    assert 0.4 < returned_as_is < 0.6
    # Swapping loses and duplicates nothing.
    everything = torch.cat([out, pool.latents])[:, 0].sort().values
    assert torch.equal(everything, torch.cat([first, new])[:, 0].sort().values)


def test_pool_resumes_exactly():
    torch.manual_seed(0)
    pool = LatentPool(4)
    pool.query(numbered(0, 6))
    state, random = pool.state_dict(), torch.get_rng_state()
    state = {k: v.clone() for k, v in state.items()}
    expected = pool.query(numbered(10, 8))
    restored = LatentPool(4)
    restored.load_state_dict(state)
    torch.set_rng_state(random)
    assert torch.equal(restored.query(numbered(10, 8)), expected)


def test_r1_of_a_linear_function_is_its_squared_norm():
    linear = nn.Linear(512, 1)
    penalty = r1_penalty(linear, torch.randn(3, 512))
    torch.testing.assert_close(penalty, linear.weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(linear.weight.grad, 2 * linear.weight.detach())


def test_encoder_term_sees_active_rows_only():
    torch.manual_seed(0)
    adversary = LatentAdversary()
    w_plus = torch.randn(2, 6, 512, requires_grad=True)
    term = adversary.encoder_term(w_plus, 2)
    expected = F.softplus(-adversary.discriminator(w_plus[:, :3])).mean()
    torch.testing.assert_close(term, expected)
    term.backward()
    assert (w_plus.grad[:, :3].abs().sum(2) > 0).all()
    assert w_plus.grad[:, 3:].abs().sum() == 0


def test_discriminator_terms_and_lazy_r1():
    torch.manual_seed(0)
    adversary = LatentAdversary()
    real, fake = torch.randn(4, 512), torch.randn(4, 1, 512).expand(-1, 6, -1).clone().requires_grad_()
    terms = adversary.discriminator_terms(real, fake, stage=3, step=16)
    d = adversary.discriminator
    # Empty pools hand their input back; all rows of a fake are equal here.
    expected = F.softplus(-d(real)).mean() + F.softplus(d(fake[:, 0])).mean()
    torch.testing.assert_close(terms["adversarial"], expected)
    torch.testing.assert_close(terms["r1"], 10 / 2 * 16 * r1_penalty(d, real))
    sum(terms.values()).backward()
    assert fake.grad is None
    assert set(adversary.discriminator_terms(real, fake, stage=3, step=17)) == {"adversarial"}


def test_fakes_are_drawn_from_active_rows():
    torch.manual_seed(0)
    adversary = LatentAdversary()
    fake = torch.arange(6.0)[None, :, None].expand(40, 6, 512)
    adversary.discriminator_terms(torch.zeros(40, 512), fake, stage=2, step=1)
    used = adversary.fake_pool.latents[:40, 0]
    assert set(used.tolist()) == {0.0, 1.0, 2.0}


def test_training_separates_two_distributions():
    torch.manual_seed(0)
    adversary = LatentAdversary()
    optimizer = torch.optim.Adam(adversary.discriminator.parameters(), lr=1e-3)
    for step in range(30):
        real, fake = torch.randn(8, 512) + 1, torch.randn(8, 2, 512) - 1
        optimizer.zero_grad()
        sum(adversary.discriminator_terms(real, fake, 1, step).values()).backward()
        optimizer.step()
    d = adversary.discriminator
    with torch.no_grad():
        assert d(torch.randn(50, 512) + 1).min() > d(torch.randn(50, 512) - 1).max()


@pytest.mark.parametrize("size", [1, 3])
def test_pool_smaller_than_the_batch(size):
    pool = LatentPool(size)
    assert pool.query(numbered(0, 8)).shape == (8, 512)
    assert int(pool.count) == size

"""P1's baseline by its equation."""

from __future__ import annotations

import pytest
import torch

from remime.methods import Driving, build_method, load_method
from remime.methods.linear import Linear
from tests import tiny

IMAGE = torch.zeros(3, 8, 8)


def test_equation():
    """z = mean of B + α (z_A - mean of A)."""
    z_b, mean, z_a = torch.randn(4, 512), torch.randn(4, 512), torch.randn(3, 4, 512)
    for strength in (1.0, 0.4):
        method = Linear(strength)
        w_plus = method.drive(method.identify(z_b, IMAGE), torch.zeros(3, 3, 8, 8), z_a, Driving(mean))
        for i in range(3):
            assert torch.allclose(w_plus[i], z_b + strength * (z_a[i] - mean))


@pytest.mark.parametrize(
    ("latents", "driving"), [(None, Driving(torch.zeros(4, 512))), (torch.zeros(1, 4, 512), None)]
)
def test_it_needs_latents_and_their_mean(latents, driving):
    method = Linear()
    with pytest.raises(ValueError, match="latents and their clip's mean"):
        method.drive(method.identify(torch.zeros(4, 512), IMAGE), torch.zeros(1, 3, 8, 8), latents, driving)
    with pytest.raises(ValueError, match="mean"):
        method.drive(
            method.identify(torch.zeros(4, 512), IMAGE),
            torch.zeros(1, 3, 8, 8),
            torch.zeros(1, 4, 512),
            Driving(),
        )


def test_it_needs_no_file():
    assert build_method({"method": "linear"}, tiny.generator()).strength == 1.0
    loaded = load_method({"method": "linear", "strength": 0.5}, None, tiny.generator())
    assert (loaded.strength, loaded.needs_latents) == (0.5, True)

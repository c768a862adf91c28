"""Ranger against a hand computation, torch's RAdam and an independent package; exact resume."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from remime.training.optimizers import Ranger, rectify


def gradients(shape, steps, seed=0):
    return torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed))


def run(make, start, grads):
    """Parameters after each step of an optimiser that is fed given gradients."""
    parameter = nn.Parameter(start.clone())
    optimizer = make([parameter])
    path = []
    for gradient in grads:
        parameter.grad = gradient.clone()
        optimizer.step()
        path.append(parameter.detach().clone())
    return torch.stack(path)


def by_hand(start, grads, lr=0.1, beta1=0.95, beta2=0.999, eps=1e-5, alpha=0.5, k=6):
    p, slow = start.copy(), start.copy()
    m, v = np.zeros_like(p), np.zeros_like(p)
    path = []
    for t, gradient in enumerate(grads, 1):
        g = gradient - gradient.mean(axis=1, keepdims=True)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        rho_max = 2 / (1 - beta2) - 1
        rho = rho_max - 2 * t * beta2**t / (1 - beta2**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_max / ((rho_max - 4) * (rho_max - 2) * rho))
            # RAdam's l_t = √(1 - β₂ᵗ)/(√v + ε): the published code adds ε before the bias correction.
            p = p - lr * r * m_hat * math.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
        else:
            p = p - lr * m_hat
        if t % k == 0:
            slow = slow + alpha * (p - slow)
            p = slow.copy()
        path.append(p)
    return np.stack(path)


def test_equals_hand_computation_through_rectification_and_lookahead():
    start, grads = torch.randn(3, 4).double(), gradients((3, 4), 14).double()
    actual = run(lambda p: Ranger(p, lr=0.1), start, grads)
    np.testing.assert_allclose(actual.numpy(), by_hand(start.numpy(), grads.numpy()), rtol=1e-10)


def test_first_five_steps_are_momentum():
    assert [rectify(t, 0.999) is None for t in range(1, 8)] == [True] * 5 + [False] * 2


def test_without_lookahead_it_is_torchs_radam_on_vectors():
    start, grads = torch.randn(5).double(), gradients((5,), 20).double()
    actual = run(lambda p: Ranger(p, lr=0.1, k=10**9), start, grads)
    expected = run(lambda p: torch.optim.RAdam(p, lr=0.1, betas=(0.95, 0.999), eps=1e-5), start, grads)
    torch.testing.assert_close(actual, expected)


def test_equals_pytorch_optimizer():
    package = pytest.importorskip("pytorch_optimizer")
    start, grads = torch.randn(4, 3, 3, 3), gradients((4, 3, 3, 3), 20)
    for decay in (0.0, 0.1):
        actual = run(lambda p, d=decay: Ranger(p, lr=1e-2, weight_decay=d), start, grads)
        expected = run(
            lambda p, d=decay: package.Ranger(p, lr=1e-2, degenerated_to_sgd=True, weight_decay=d),
            start,
            grads,
        )
        torch.testing.assert_close(actual, expected)


def test_gradients_are_centralised_without_touching_them():
    parameter = nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.tensor([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    before = parameter.grad.clone()
    Ranger([parameter], lr=1.0).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 1.0]]))
    assert torch.equal(parameter.grad, before)


def test_late_parameters_start_their_own_count():
    early, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = Ranger([early, late], lr=0.1)
    for gradient in gradients((3,), 8):
        early.grad = gradient
        optimizer.step()
    assert torch.equal(late.detach(), torch.ones(3))
    late.grad = torch.full((3,), 2.0)
    optimizer.step()
    torch.testing.assert_close(late.detach(), torch.full((3,), 0.8))  # 1 - lr·m̂, m̂ = the gradient


@pytest.mark.parametrize("cut", [3, 6, 9])
def test_resume_is_exact(cut, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 1))
    batches = gradients((4, 6), 16)

    def train(model, optimizer, batches):
        for x in batches:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    whole = copy.deepcopy(model)
    train(whole, Ranger(whole.parameters(), lr=1e-2), batches)

    optimizer = Ranger(model.parameters(), lr=1e-2)
    train(model, optimizer, batches[:cut])
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    resumed = nn.Sequential(nn.Linear(6, 5), nn.PReLU(), nn.Linear(5, 1))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(state["model"])
    optimizer = Ranger(resumed.parameters(), lr=99.0)  # the saved rate must win
    optimizer.load_state_dict(state["optimizer"])
    train(resumed, optimizer, batches[cut:])
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)

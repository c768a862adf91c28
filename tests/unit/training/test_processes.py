"""What a process of a training sees of the others; alone, that is nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from remime.errors import InputError
from remime.training.processes import Processes


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("kinds", [(12,), (5, 7), (1, 2, 9), (0, 4, 8)])
def test_rows_of_every_kind_are_shared(count, kinds):
    """Kinds of rows that follow each other: each row belongs to one process, and a process has its total."""
    total, seen = 0, {rank: [] for rank in range(count)}
    for size in kinds:
        for rank in range(count):
            seen[rank] += range(total, total + size)[Processes(rank, count).rows(total)]
        total += size
    assert sorted(row for rows in seen.values() for row in rows) == list(range(total))
    for rank, rows in seen.items():
        assert rows == list(range(rank, total, count))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_means_of_the_processes_average_to_the_mean_of_all(count):
    values = torch.randn(5, 3, dtype=torch.float64)
    parts = [Processes(rank, count).mean(values[rank::count], 5) for rank in range(count)]
    assert torch.allclose(torch.stack(parts).mean(), values.mean(), rtol=1e-12)


def test_process_without_rows_has_a_gradient_of_zero():
    weight = torch.ones(3, requires_grad=True)
    Processes(7, 8).mean(weight * torch.zeros(0, 3), 5).backward()
    assert torch.equal(weight.grad, torch.zeros(3))


def test_batch_must_be_a_multiple():
    Processes(0, 4).check("batch", 8)
    with pytest.raises(InputError, match=r"^latent_batch: 10 rows .* 4 processes\n  choose a multiple of 4"):
        Processes(0, 4).check("latent_batch", 10)


def test_alone_nothing_changes():
    alone = Processes()
    assert alone.main
    module = nn.Sequential(nn.BatchNorm1d(2))
    before = module[0]
    alone.begin(module)
    assert module[0] is before
    before.weight.grad = torch.ones(2)
    alone.average_gradients(module.parameters())
    assert torch.equal(before.weight.grad, torch.ones(2))
    assert before.bias.grad is None
    values = torch.randn(3, 2)
    assert alone.gather(values, 3) is values
    assert torch.equal(alone.mean(values, 3), values.mean())
    figures = {"loss": torch.tensor(0.1), "norm": 2.0}
    assert alone.average(figures) == figures
    alone.agree("the step", 5)
    with alone.main_first():
        alone.wait()
    alone.end()

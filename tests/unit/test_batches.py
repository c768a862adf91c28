"""Batches that fit into the memory; no GPU is needed to run out of it."""

from __future__ import annotations

import pytest
import torch

from remime.batches import Batches
from remime.errors import InputError


class Small:
    """Memory for so many rows."""

    def __init__(self, room):
        self.room, self.asked = room, []

    def __call__(self, rows):
        self.asked.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
        return rows * 2


@pytest.mark.parametrize(
    ("room", "asked", "largest"),
    [(9, [4, 4, 2], None), (4, [4, 4, 2], None), (3, [4, 2, 2, 2, 2, 2], 2), (1, [4, 2, *[1] * 10], 1)],
)
def test_every_row_comes_once_and_in_order(room, asked, largest):
    batches, memory, rows = Batches(), Small(room), torch.arange(10)
    assert torch.equal(torch.cat(list(batches(memory, rows, 4))), rows * 2)
    assert (memory.asked, batches.largest) == (asked, largest)


def test_what_is_padded_counts_as_a_whole_batch():
    """Only two rows are left, but as many as ever are computed."""
    batches, memory = Batches(), Small(4)

    def padded(rows):
        missing = batches.size(8) - len(rows)
        return memory(torch.cat([rows, rows[-1:].expand(missing)]))[: len(rows)]

    rows = torch.arange(2)
    assert torch.equal(torch.cat(list(batches(padded, rows, 8, padded=True))), rows * 2)
    assert (memory.asked, batches.largest) == ([8, 4], 4)


def test_what_did_not_fit_is_not_tried_again():
    batches, memory = Batches(), Small(3)
    for _ in range(2):
        list(batches(memory, torch.zeros(4), 4))
    assert memory.asked == [4, 2, 2, 2, 2]
    assert (batches.size(8), batches.size(1)) == (2, 1)


def test_one_that_does_not_fit_says_so():
    with pytest.raises(
        InputError, match=r"GPU: its memory is too small for one image \(CUDA out of memory\)"
    ):
        list(Batches()(Small(0), torch.zeros(4), 4))


def test_other_errors_stay():
    with pytest.raises(ZeroDivisionError):
        list(Batches()(lambda _: 1 // 0, torch.zeros(4), 4))


def test_nothing_of_nothing():
    assert list(Batches()(Small(1), torch.zeros(0, 3), 4)) == []

"""Rows through a network, in batches that fit into the memory of the GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from remime.errors import InputError

T = TypeVar("T")


class Batches:
    """Divides rows into batches, and halves them from the first one on for which the memory is too small.

    Attributes:
        largest: no batch had more rows since; None as long as all have fitted.
    """

    def __init__(self) -> None:
        self.largest: int | None = None

    def size(self, wanted: int) -> int:
        """Rows of a batch, of which so many are wanted."""
        return wanted if self.largest is None else min(wanted, self.largest)

    def __call__(
        self, compute: Callable[[Tensor], T], rows: Tensor, wanted: int, padded: bool = False
    ) -> Iterator[T]:
        """Yield what is computed of each batch.

        Args:
            compute: of some rows; it is called again with fewer when it runs out of memory.
            rows: [N, ...].
            wanted: rows of a batch.
            padded: whether it makes whole batches of what is left at the end.

        Raises:
            InputError: the memory is too small for one row.
        """
        done = 0
        while done < len(rows):
            size = self.size(wanted)
            part = rows[done : done + size]
            tried = size if padded else len(part)
            made = self._attempt(compute, part, tried)
            # What the attempt held is free only after its error is gone.
            if made is None:
                torch.cuda.empty_cache()
                self.largest = tried // 2
                continue
            done += len(part)
            yield made[0]

    @staticmethod
    def _attempt(compute: Callable[[Tensor], T], part: Tensor, tried: int) -> tuple[T] | None:
        try:
            return (compute(part),)
        except torch.OutOfMemoryError as error:
            if tried > 1:
                return None
            reason = str(error).partition(". ")[0]
            fix = "end what else computes there, choose a lower resolution, or compute on the CPU"
            raise InputError("GPU", f"its memory is too small for one image ({reason})", fix) from error

"""Work beside the main thread: items made ahead in a process, and work left behind to a thread."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from itertools import count, islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from remime.runtime import end_with_parent

T = TypeVar("T")

# What the process makes, by the number of who wants it; there only.
_items: dict[int, Iterator[Any]] = {}


def _take(
    number: int, make: Callable[..., Iterable[Any]], arguments: tuple[Any, ...], size: int
) -> list[Any]:
    """The next items, in the process; they are begun with the first."""
    if not _items:
        end_with_parent()
        # The terminal interrupts both processes; the parent says what is to be done.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if number not in _items:
        _items[number] = iter(make(*arguments))
    return list(islice(_items[number], size))


class Ahead(Generic[T]):
    """Iterate over batches of items; a process of its own makes the next one meanwhile.

    A thread would do for work that lets go of Python's lock; dlib does not. An error in the process is raised
    where its batch would be. A context manager: leaving it waits for the batches that have been begun.

    Args:
        make: called in the process; a function that it can import.
        arguments: for ``make``.
        size: items per batch; the last one has fewer.
        beside: one whose process makes these as well, in turn with its own; it ends the process.
    """

    def __init__(
        self,
        make: Callable[..., Iterable[T]],
        *arguments: Any,
        size: int,
        beside: Ahead[Any] | None = None,
    ) -> None:
        self._numbers: Iterator[int] = count() if beside is None else beside._numbers
        self._work = (next(self._numbers), make, arguments, size)
        self._owns = beside is None
        # Not forked: threads and CUDA do not survive that.
        self._pool: ProcessPoolExecutor = (
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) if beside is None else beside._pool
        )
        self._next: Future[list[T]] | None = None

    def __enter__(self) -> Self:
        self._next = self._pool.submit(_take, *self._work)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owns:
            self._pool.shutdown(cancel_futures=True)
        elif self._next is not None:
            self._next.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[T]:
        following, self._next = self._next, None
        batch = following.result() if following is not None else []
        if not batch:
            raise StopIteration
        self._next = self._pool.submit(_take, *self._work)
        return batch

    def settle(self) -> None:
        """Wait until the next batch is there, so that nothing works beside the caller."""
        if self._next is not None:
            wait([self._next])


class Behind:
    """Work that goes on in a thread while the main thread does something else, one piece after the other.

    A context manager: leaving it waits for what has begun. An error in the thread is raised by the next call.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "behind")
        self._begun: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def begin(self, work: Callable[[], None]) -> None:
        """Begin a piece of work once the one before has ended."""
        self.wait()
        self._begun = self._pool.submit(work)

    def wait(self) -> None:
        """Wait for the piece that has begun."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()

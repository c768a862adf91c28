"""Work beside the main thread: items made ahead, and work left behind, both bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_END = object()
_PATIENCE = 0.05  # s until a full queue is asked again whether anybody still wants its items


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class Ahead(Generic[T]):
    """Iterate over items that a thread makes meanwhile.

    An error in the thread is raised where its item would be. A context manager: leaving it stops the thread,
    wherever it is.

    Args:
        items: consumed in the thread only, and closed there if it can be.
        size: how many items may wait.
    """

    def __init__(self, items: Iterable[T], size: int = 16) -> None:
        self._items: Iterator[T] = iter(items)
        self._queue: queue.Queue[Any] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._ended = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item: Any = _END if self._ended else self._queue.get()
        if item is _END or isinstance(item, _Failure):
            self._ended = True
        if isinstance(item, _Failure):
            raise item.error
        if item is _END:
            raise StopIteration
        return item

    def _fill(self) -> None:
        last: Any = _END
        try:
            for item in self._items:
                self._put(item)
                if self._stop.is_set():
                    break
        except BaseException as error:
            last = _Failure(error)
        finally:
            if close := getattr(self._items, "close", None):
                close()
            self._put(last)

    def _put(self, item: Any) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_PATIENCE)
                return
            except queue.Full:
                continue


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

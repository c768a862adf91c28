"""Progress with rate and ETA: a live line on a terminal, one line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def _clock(seconds: float) -> str:
    minutes, secs = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes:02d}:{secs:02d}"


class Progress:
    """A counter that says how far a long operation is.

    Args:
        total: how many items there are, or None when that is not known.
        label: what is being done, e.g. ``align 0001-of-0002``.
        unit: what an item is, in the plural.
        done: items that an earlier run had already finished; they do not count in the rate.
    """

    def __init__(self, total: int | None, label: str, unit: str = "items", done: int = 0) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.count = self.initial = done
        self.start = time.monotonic()
        self.live = sys.stderr.isatty()
        self.last = self.start
        self.note = ""

    def update(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more items; ``note`` is shown behind the figures."""
        self.count += n
        self.note = note or self.note
        now = time.monotonic()
        if now - self.last >= (0.2 if self.live else 60.0):
            self.last = now
            self._print(end="" if self.live else "\n")

    def _print(self, end: str) -> None:
        elapsed = max(time.monotonic() - self.start, 1e-9)
        rate = (self.count - self.initial) / elapsed
        text = f"{self.label}: {self.count}"
        if self.total is not None:
            text += f"/{self.total}"
        text += f" {self.unit}, {rate:.1f}/s"
        if self.total is not None and rate > 0 and self.count < self.total:
            text += f", ETA {_clock((self.total - self.count) / rate)}"
        if self.note:
            text += f", {self.note}"
        print(("\r\x1b[K" if self.live else "") + text, end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Print the final figures with the time it took."""
        took = f"took {_clock(time.monotonic() - self.start)}"
        if self.initial:
            took += f" for {self.count - self.initial} of them"
        self.note = f"{self.note + ', ' if self.note else ''}{took}"
        self._print(end="\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "items") -> Iterator[T]:
    """Iterate with progress."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, label, unit) as progress:
        for item in items:
            yield item
            progress.update()

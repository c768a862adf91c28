"""Faces from all over a video, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from remime.faces.alignment import quad, warp
from remime.faces.landmarks import FaceTracker
from remime.faces.stream import SIZE
from remime.video import read

Image = NDArray[np.uint8]
T = TypeVar("T")


class Spaced(Generic[T]):
    """Evenly spaced items of a stream whose length nobody knows.

    Args:
        count: that many at least, twice as many at most, are kept once so many have come.
    """

    def __init__(self, count: int) -> None:
        self._kept: list[T | None] = []
        self._most, self._step, self._seen = 2 * count, 1, 0

    @property
    def due(self) -> bool:
        """Whether the next item would be kept."""
        return self._seen % self._step == 0

    @property
    def items(self) -> list[T]:
        """Those that are kept, without the places that are empty."""
        return [item for item in self._kept if item is not None]

    def add(self, item: T | None) -> None:
        """Take note of the next item; None where there is none, or none is due."""
        if self.due:
            self._kept.append(item)
        if len(self._kept) > self._most:
            self._kept, self._step = self._kept[::2], 2 * self._step
        self._seen += 1


def spaced_faces(path: Path, count: int) -> Iterator[Image | None]:
    """The largest faces of evenly spaced frames of a video, each found and aligned on its own.

    Args:
        path: the video, or an image.
        count: frames that are kept, and up to twice as many; of a shorter video all.

    Yields:
        None for each frame of the video when it was read, and after the last one the faces, uint8
        [256, 256, 3] each; frames without a face are left out.

    Raises:
        VideoError: the file cannot be read.
    """
    # Half the usual size is a quarter of the work; where that finds no face, the usual is tried.
    tracker = FaceTracker(detect_size=320)
    some: Spaced[Image] = Spaced(count)
    with closing(read(path)) as frames:
        for frame in frames:
            faces = tracker.detect(frame.image) if some.due else []
            some.add(warp(frame.image, quad(faces[0].landmarks), SIZE)[0] if faces else None)
            yield None
    yield from some.items

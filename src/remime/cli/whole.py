"""What methods want to know of a whole clip before its first frame, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remime.encoders.restyle import Inverter
from remime.reenactment import FLIPS, invert, mean_latent

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


def spaced_faces(path: Path, count: int, update: Callable[[], None] = lambda: None) -> list[Image]:
    """The largest faces of evenly spaced frames of a video, each found and aligned on its own.

    Args:
        path: the video, or an image.
        count: frames that are looked at, and up to twice as many; of a shorter video all.
        update: called for each frame of the video.

    Returns:
        uint8 [256, 256, 3] each; frames without a face are left out.

    Raises:
        VideoError: the file cannot be read.
    """
    from remime.faces.alignment import quad, warp
    from remime.faces.landmarks import FaceTracker
    from remime.faces.stream import SIZE
    from remime.video import read

    # Half the usual size is a quarter of the work; where that finds no face, the usual is tried.
    tracker = FaceTracker(detect_size=320)
    some: Spaced[Image] = Spaced(count)
    with closing(read(path)) as frames:
        for frame in frames:
            faces = tracker.detect(frame.image) if some.due else []
            some.add(warp(frame.image, quad(faces[0].landmarks), SIZE)[0] if faces else None)
            update()
    return some.items


def clip_mean(
    inverter: Inverter,
    images: Iterable[Image],
    batch: int,
    spool: IO[bytes] | None = None,
    update: Callable[[], None] = lambda: None,
) -> Tensor:
    """The mean latent [rows, 512] over all frames of a clip and mirror images of some (P1, Sec. 4.1).

    Args:
        inverter: inverts every frame.
        images: aligned frames uint8 [R, R, 3], at least one.
        batch: frames at once.
        spool: a file to which the latents [rows, 512] of all frames are appended, for ``spooled``.
        update: called when more frames are done.
    """
    stream = iter(images)
    some: Spaced[Image] = Spaced(FLIPS)
    total = torch.zeros_like(inverter.latent_avg, dtype=torch.float64)
    count = 0
    while chunk := list(islice(stream, batch)):
        latents = invert(inverter, np.stack(chunk), batch)
        if spool is not None:
            spool.write(latents.float().cpu().contiguous().numpy().tobytes())
        total += latents.double().sum(0)
        count += len(chunk)
        for image in chunk:
            some.add(image)
        update()
    mean = (total / count).to(inverter.latent_avg)
    return mean_latent(inverter, np.stack(some.items), mean[None])


def spooled(spool: IO[bytes], rows: int) -> Iterator[Tensor]:
    """The latents [rows, 512] that ``clip_mean`` appended, from the first on."""
    spool.seek(0)
    while data := spool.read(rows * 512 * 4):
        yield torch.from_numpy(np.frombuffer(data, np.float32).reshape(rows, 512).copy())

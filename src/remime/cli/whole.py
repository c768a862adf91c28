"""What methods want to know of a whole clip before its first frame, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remime.encoders.restyle import Inverter
from remime.faces.spaced import Spaced
from remime.reenactment import FLIPS, invert, mean_latent

Image = NDArray[np.uint8]


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

"""What each part of a reenactment needs, one after the other in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Any

from remime.cli import networks
from remime.cli.reenact import Request, load_engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from remime.cli.reenact import Engine

    Image = NDArray[np.uint8]

FRAMES = 96  # of the driving video at most
ROUNDS = 3  # measurements of each part, of which the median counts
SINGLE = 3  # images for the loop that inverts one at a time


@dataclass(frozen=True)
class Part:
    """A part's speed.

    Attributes:
        name: what is done.
        unit: to what: ``frame``, ``target`` or ``clip``.
        seconds: that one of them takes.
    """

    name: str
    unit: str
    seconds: float


class _Clock:
    """Measures work on a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def once(self, work: Callable[[], object]) -> float:
        """Seconds, until the device is done."""
        import torch

        start = time.perf_counter()
        work()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def per_item(self, work: Callable[[], object], items: int) -> float:
        """Seconds per item, the median of some rounds; a first one, which is slower, does not count."""
        self.once(work)
        return median(self.once(work) for _ in range(ROUNDS)) / items


def measure_parts(request: Request, device: str, resolutions: list[int], images: int) -> list[Part]:
    """The parts of a reenactment.

    Args:
        request: what would be made; its output is overwritten.
        device: where the networks run.
        resolutions: of the output.
        images: per measurement, rounded up to whole batches; fewer than a batch are one.

    Raises:
        InputError: there is no face in the driving video.
    """
    from remime.faces.stream import first_face
    from remime.runtime import keep_freed_memory, keep_opencv_to_one_thread

    keep_freed_memory()
    keep_opencv_to_one_thread()
    networks.ensure_all([networks.FACES], request.licence)
    clock, aligned = _Clock(device), list[Any]()
    first_face(request.driving)  # loads the networks
    seconds = clock.once(lambda: aligned.extend(_faces(request)))
    parts = [Part("faces: read, find, align", "frame", seconds / len(aligned))]
    batch = min(request.batch, images)
    chosen = list(islice(cycle(aligned), math.ceil(images / batch) * batch))
    for resolution in resolutions:
        wanted = replace(request, resolution=resolution, batch=batch)
        engine = load_engine(wanted, device)
        if resolution == resolutions[0]:
            parts += [*_before(wanted, engine, clock), *_common(engine, chosen, clock)]
        parts += _rendering(wanted, engine, chosen, clock)
    return parts


def _faces(request: Request) -> Iterator[Image]:
    from remime.faces.stream import Faces

    with closing(Faces(request.driving)) as moments:
        yield from islice((m.image for m in moments if m.image is not None), FRAMES)


def _before(request: Request, engine: Engine, clock: _Clock) -> list[Part]:
    """What a method wants to know of the driving video before its first frame."""
    from remime.faces.spaced import spaced_faces
    from remime.reenactment import REST_FRAMES

    if not engine.method.needs_rest:
        return []

    def look() -> None:
        found = spaced_faces(request.driving, REST_FRAMES)
        engine.reenactor.at_rest([image for image in found if image is not None])

    seconds = clock.once(look)
    return [Part("driving: read it all, how its face rests", "clip", seconds)]


def _common(engine: Engine, images: list[Image], clock: _Clock) -> list[Part]:
    """The parts that do not depend on the output's resolution."""

    from remime.images import to_tensor

    reenactor, inverter = engine.reenactor, engine.inverter
    identity = reenactor.identify(inverter.latent_avg)
    frames = to_tensor(images, reenactor.device)
    batch, single = reenactor.batch, frames[:SINGLE]
    rest = reenactor.at_rest(images)

    def encode() -> None:
        for start in range(0, len(images), batch):
            reenactor.drive(identity, images[start : start + batch], driving=rest)

    return [
        Part("target: inversion", "target", clock.per_item(lambda: inverter.invert(frames[:1]), 1)),
        Part(
            "target: its part of the method",
            "target",
            clock.per_item(lambda: reenactor.identify(inverter.latent_avg), 1),
        ),
        Part("motion encoder", "frame", clock.per_item(encode, len(images))),
        Part(
            "inversion, batches",
            "frame",
            clock.per_item(lambda: inverter.invert(frames[:batch], batch), len(frames[:batch])),
        ),
        Part(
            "inversion, image by image with full decodes",
            "frame",
            clock.per_item(lambda: _one_by_one(engine, single), len(single)),
        ),
    ]


def _one_by_one(engine: Engine, frames: Tensor) -> None:
    """ReStyle as its definition reads: every image alone, every estimate decoded in full."""
    import torch

    from remime.encoders.restyle import ReStyle
    from remime.images import fit

    inverter = engine.inverter
    assert isinstance(inverter, ReStyle)  # the shipped one is
    with torch.no_grad():
        for frame in fit(frames, inverter.size).split(1):
            w_plus, estimate = inverter.start(1)
            for _ in range(inverter.steps):
                w_plus = w_plus + inverter.encoder(torch.cat([frame, estimate], 1))
                estimate = fit(inverter.generator.synthesize(w_plus), inverter.size)


def _rendering(request: Request, engine: Engine, images: list[Image], clock: _Clock) -> list[Part]:
    """Generator, conversion and encoder at the request's resolution."""
    import torch

    from remime.video import NO_CUTS, Writer

    reenactor, side = engine.reenactor, request.resolution
    identity = reenactor.identify(engine.inverter.latent_avg)
    rest = reenactor.at_rest(images)
    w_plus = reenactor.drive(identity, images, driving=rest)

    @torch.inference_mode()
    def generate() -> None:
        for part in w_plus.split(reenactor.decode_batch):
            reenactor.generator.synthesize(part, resolution=reenactor.decode_at)

    def all_networks() -> None:
        for start in range(0, len(images), reenactor.batch):
            some = images[start : start + reenactor.batch]
            for _ in reenactor.decode(reenactor.drive(identity, some, driving=rest)):
                pass

    made = list(reenactor.decode(w_plus))

    def encode() -> None:
        with Writer(
            request.output, 25, (side, side), pixel_format=request.pixel_format, x264=NO_CUTS
        ) as writer:
            for frame in made:
                writer.write(frame)

    work = {
        "generator": generate,
        "networks together, with conversion for the encoder": all_networks,
        "x264": encode,
    }
    count = len(images)
    return [Part(f"{name}, {side}²", "frame", clock.per_item(do, count)) for name, do in work.items()]

"""Aligned faces of any video or image, as streams, and streams matched in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from remime import video
from remime.errors import InputError
from remime.faces.front import AlignOptions, align_clip
from remime.video import Frame

Image = NDArray[np.uint8]

SIZE = 256  # height and width of aligned frames: what encoders and metrics look at
# A face that gets lost is noticed at once; detections in between only tell of larger ones that come.
LARGEST = AlignOptions(size=SIZE, policy="largest", detect_every=16)


@dataclass(frozen=True)
class Moment:
    """A frame of a file, and the aligned face in it.

    Attributes:
        index: of the frame in the file.
        time: seconds since the file's first frame.
        image: uint8 [R, R, 3]; None where no face was found.
    """

    index: int
    time: float
    image: Image | None


class Faces(Iterator[Moment]):
    """The largest face of a video or image, in bounded memory; no frame of the file is left out.

    Attributes (those that count are final once the stream is exhausted):
        info: what the file says about itself.
        found: frames with a face so far.
        missing: frames without one so far.
        too_small: faces below the smallest usable size were seen.

    Args:
        path: the file.
        aligned: its frames are FFHQ crops already and are taken as they are.
        options: how to align, following one face at a time; frames that are aligned already keep their size.

    Raises:
        VideoError: the file cannot be read.
        InputError: its frames should be aligned but are not square.
        WeightsError: the landmarks' weights are missing.
    """

    def __init__(self, path: Path, aligned: bool = False, options: AlignOptions = LARGEST) -> None:
        self.path = path
        self.found = self.missing = 0
        self.too_small = False
        self._source = video.read(path)
        self.info = self._source.info
        if aligned and self.info.width != self.info.height:
            raise InputError(
                path,
                f"is {self.info.width}×{self.info.height} pixels, but aligned frames are square",
                "leave off --aligned, so that its faces are aligned now",
            )
        self._times: deque[float] = deque()
        self._stream = self._as_they_are() if aligned else self._align(options)

    def __next__(self) -> Moment:
        return next(self._stream)

    def __iter__(self) -> Self:
        return self

    @property
    def failed(self) -> int:
        """Frames that could not be decoded so far."""
        return self._source.failed

    def close(self) -> None:
        """Stop, and close the file."""
        self._stream.close()
        self._source.close()

    def no_face(self) -> InputError:
        """What to say when no frame has a face."""
        frames = f"in {self.missing} frames" if self.missing > 1 else "in it"
        if self.too_small:
            return InputError(self.path, f"all faces {frames} are too small", "they need 48 pixels and more")
        return InputError(
            self.path, f"no face was found {frames}", "a face that looks towards the camera is needed"
        )

    def _as_they_are(self) -> Generator[Moment]:
        for frame in self._source:
            self.found += 1
            yield Moment(frame.index, frame.time, frame.image)

    def _noted(self) -> Iterator[Frame]:
        for frame in self._source:
            self._times.append(frame.time)
            yield frame

    def _align(self, options: AlignOptions) -> Generator[Moment]:
        stream = align_clip(self._noted(), options)
        index = 0
        for face in stream:
            yield from self._without(index, face.index)
            self._times.popleft()
            self.found += 1
            yield Moment(face.index, face.time, face.image)
            index = face.index + 1
        self.too_small = stream.too_small
        yield from self._without(index, index + len(self._times))

    def _without(self, first: int, end: int) -> Iterator[Moment]:
        """The frames from ``first`` on, before ``end``, in which there is no face."""
        for index in range(first, end):
            self.missing += 1
            yield Moment(index, self._times.popleft(), None)


def first_face(path: Path, aligned: bool = False) -> Image:
    """The first face of an image or video, aligned, uint8 [R, R, 3].

    Raises:
        InputError: it cannot be read, or holds no face.
    """
    with closing(Faces(path, aligned)) as faces:
        for moment in faces:
            if moment.image is not None:
                return moment.image
        raise faces.no_face()


def nearest(moments: Iterator[Moment], times: Iterable[float], period: float) -> Iterator[Image | None]:
    """The frame that is nearest in time to each of some times; it ends where the video does.

    Args:
        moments: the video's frames in order.
        times: seconds, ascending; each is read when its frame is asked for.
        period: seconds from one frame of the video to the next, for most of which the last one is valid.
    """
    current, following = next(moments, None), next(moments, None)
    for time in times:
        while (
            current is not None
            and following is not None
            and abs(following.time - time) <= abs(current.time - time)
        ):
            current, following = following, next(moments, None)
        if current is None or (following is None and time > current.time + 0.75 * period):
            return
        yield current.image

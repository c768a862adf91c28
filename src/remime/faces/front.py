"""From any frames to aligned ones, in a stream: faces, tracks, scene cuts, gaps, smoothing, warp.

The look-ahead is bounded: frames wait until the smoothing kernel has seen what follows and the detector has
confirmed that the face was still there. That is about ``REACH · smooth_axes`` frames at 25 fps plus
``detect_every`` plus ``max_gap``, so a video of any length needs the same memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from remime.errors import InputError, refuse_unknown
from remime.faces import alignment
from remime.faces.landmarks import Face, FaceTracker, main_face
from remime.video import Frame

POLICIES = ("largest", "centre", "longest", "reject")
# Faces beyond these many are background.
_MOST_FACES = 4


@dataclass(frozen=True)
class AlignOptions:
    """How clips are aligned; the branch ``align`` of the configuration, which describes each key."""

    size: int = 256
    detect_size: int = 640
    detect_every: int = 8
    policy: str = "longest"
    max_gap: int = 5
    min_frames: int = 1
    min_face: int = 48
    smooth_centre: float = 1.0
    smooth_axes: float = 3.0
    scene_threshold: float = 0.5
    max_frames: int = 0
    max_fps: float = 0.0

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> AlignOptions:
        """From the configuration's branch; InputError names an unknown key or a wrong policy."""
        refuse_unknown("align", options, [field.name for field in fields(cls)])
        parsed = cls(**options)
        if parsed.policy not in POLICIES:
            raise InputError("align: policy", f"is {parsed.policy!r}", f"one of {', '.join(POLICIES)}")
        return parsed

    def fps(self, nominal: float) -> float:
        """Frames per second of what comes out of a video of so many."""
        return min(nominal, self.max_fps) if self.max_fps > 0 else nominal


@dataclass(frozen=True)
class AlignedFrame:
    """One face of one frame.

    Attributes:
        image: ``[size, size, 3]`` uint8 RGB.
        landmarks: ``[68, 2]`` float32, pixels of ``image``; they are not smoothed over time.
        transform: ``[2, 3]`` from source to aligned pixels.
        time: seconds, as in ``Frame``.
        index: position of the source frame among those that were used (all, without ``max_fps``).
        interpolated: the face was not found here; its landmarks lie between those of its neighbours.
        track: frames of one track show one face without a cut, at most ``max_gap`` apart before they were
            filled in; a new track begins after a cut or a longer gap.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    transform: NDArray[np.float64]
    time: float
    index: int
    interpolated: bool
    track: int


class Tracker(Protocol):
    """What ``align_clip`` needs of a tracker; ``FaceTracker`` is one."""

    def update(self, image: NDArray[np.uint8]) -> list[Face]: ...

    def confirms(self, image: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> bool: ...

    def reset(self) -> None: ...


class CutDetector:
    """Scene cuts by the distance of colour histograms of neighbouring frames.

    The distance is half the L1 distance of 4×4×4 RGB histograms, averaged over the quarters of the picture: 0
    for the same colours in the same quarters, 1 for none in common.

    Args:
        threshold: a larger distance is a cut; 1 finds none.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._last: NDArray[np.float64] | None = None

    def update(self, image: NDArray[np.uint8]) -> bool:
        """Whether the next frame ``[H, W, 3]`` begins a new scene."""
        histogram = _histograms(image)
        last, self._last = self._last, histogram
        return last is not None and float(np.abs(histogram - last).sum() / 8) > self.threshold


def _histograms(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colour histograms ``[4, 64]`` of the quarters; each sums to 1."""
    small = np.asarray(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), np.uint8) >> 6
    codes = small[..., 0] * 16 + small[..., 1] * 4 + small[..., 2]
    quarters = codes.reshape(2, 32, 2, 32).transpose(0, 2, 1, 3).reshape(4, -1)
    return np.stack([np.bincount(quarter, minlength=64) for quarter in quarters]) / quarters.shape[1]


@dataclass
class _Moment:
    """A face in a frame that waits to be warped; once it is, only its time and its quad are still needed."""

    time: float
    frame: Frame | None
    landmarks: NDArray[np.float64]
    quad: NDArray[np.float64]
    interpolated: bool


class _Line:
    """The moments of one track, smoothed and warped as soon as enough of its future is known."""

    def __init__(self, track: int, options: AlignOptions) -> None:
        self.track = track
        self.options = options
        self.moments: deque[_Moment] = deque()
        self.done = 0  # leading moments that are warped already
        self.sure = 0  # leading moments up to the last one that the detector confirmed
        self.index = -1  # of the last frame in which the face was found
        self.reach = alignment.reach_of(options.smooth_centre, options.smooth_axes)

    @property
    def last(self) -> _Moment:
        return self.moments[-1]

    def add(self, frame: Frame, landmarks: NDArray[np.floating], detected: bool, missed: list[Frame]) -> None:
        """Append a moment, and before it the frames in which the face was missed."""
        points = np.asarray(landmarks, np.float64)
        if missed:
            before = self.last
            for each in missed:
                share = (each.time - before.time) / (frame.time - before.time)
                self._append(each, (1 - share) * before.landmarks + share * points, True)
        self._append(frame, points, False)
        self.index = frame.index
        if detected:
            self.sure = len(self.moments)

    def _append(self, frame: Frame, points: NDArray[np.float64], interpolated: bool) -> None:
        self.moments.append(_Moment(frame.time, frame, points, alignment.quad(points), interpolated))

    def trim(self, tracker: Tracker) -> None:
        """Drop the end in which the face was followed although it was gone."""
        while len(self.moments) > self.sure:
            last = self.last
            assert last.frame is not None
            if not last.interpolated and tracker.confirms(last.frame.image, last.landmarks):
                break
            self.moments.pop()
        self.sure = len(self.moments)

    def ready(self, finished: bool) -> Iterator[AlignedFrame]:
        """Warp the moments whose smoothed quad nothing that comes later can change."""
        if not self.sure:
            return
        known = self.moments[self.sure - 1].time
        while self.done < self.sure:
            if not finished and self.moments[self.done].time + self.reach > known:
                return
            yield self._warp(self.done)
            self.moments[self.done].frame = None
            self.done += 1
            self._forget()

    def _warp(self, position: int) -> AlignedFrame:
        moment = self.moments[position]
        assert moment.frame is not None
        sure = [self.moments[i] for i in range(self.sure)]
        times = np.array([each.time for each in sure])
        near = np.flatnonzero(np.abs(times - moment.time) <= self.reach)
        corner = alignment.smooth_at(
            np.stack([sure[i].quad for i in near]),
            times[near],
            moment.time,
            self.options.smooth_centre,
            self.options.smooth_axes,
        )
        image, transform = alignment.warp(moment.frame.image, corner, self.options.size)
        points = alignment.apply(transform, moment.landmarks).astype(np.float32)
        return AlignedFrame(
            image, points, transform, moment.time, moment.frame.index, moment.interpolated, self.track
        )

    def _forget(self) -> None:
        """Drop what is too far in the past to matter for smoothing."""
        if self.done >= len(self.moments):
            return
        horizon = self.moments[self.done].time - self.reach
        while self.done and self.moments[0].time < horizon:
            self.moments.popleft()
            self.done -= 1
            self.sure -= 1


class AlignedStream(Iterator[AlignedFrame]):
    """The aligned frames of a clip, see ``align_clip``.

    Attributes (those that count are final once the stream is exhausted):
        frames: source frames read so far.
        faces: most faces at once that the detector saw more than once (or once, in a single frame).
        cuts: scene cuts.
        too_small: faces of ``min_face`` pixels or fewer were seen and left out.
        live: tracks of which more frames may come.
    """

    def __init__(self, frames: Iterable[Frame], options: AlignOptions, tracker: Tracker | None) -> None:
        self.options = options
        self.frames = self.faces = self.cuts = 0
        self.too_small = False
        self._source = frames
        self._tracker: Tracker = tracker or FaceTracker(
            options.detect_size, options.detect_every, options.max_gap
        )
        self._lines: dict[int, _Line] = {}  # by the tracker's number of the face
        self._begun = 0
        self._recent: deque[Frame] = deque(maxlen=options.max_gap + 1)
        self._stream = self._run()

    @property
    def live(self) -> frozenset[int]:
        """The tracks of which more frames may come."""
        return frozenset(line.track for line in self._lines.values())

    def __iter__(self) -> AlignedStream:
        return self

    def __next__(self) -> AlignedFrame:
        return next(self._stream)

    def _run(self) -> Iterator[AlignedFrame]:
        cut = CutDetector(self.options.scene_threshold)
        for frame in _thinned(self._source, self.options):
            self.frames += 1
            if cut.update(frame.image):
                self.cuts += 1
                yield from self._finish(list(self._lines))
                self._tracker.reset()
                self._recent.clear()
            self._observe(frame)
            self._recent.append(frame)
            yield from self._ready(frame)
        yield from self._finish(list(self._lines))

    def _observe(self, frame: Frame) -> None:
        """Note the frame's faces in the tracks that they belong to."""
        seen = self._tracker.update(frame.image)
        faces = [face for face in seen if face.side >= self.options.min_face]
        self.too_small |= len(faces) < len(seen)
        self.faces = max(self.faces, sum(face.hits > 1 or self.frames == 1 for face in faces))
        for face in self._wanted(faces, frame):
            line = self._lines.get(face.track)
            if line is None:
                # A face may leave and come back under one number; that makes two lines.
                line = self._lines[face.track] = _Line(self._begun, self.options)
                self._begun += 1
                missed: list[Frame] = []
            else:
                missed = [each for each in self._recent if each.index > line.index]
            line.add(frame, face.landmarks, face.detected, missed)

    def _wanted(self, faces: list[Face], frame: Frame) -> list[Face]:
        if not faces:
            return []
        if self.options.policy == "longest":
            return sorted(faces, key=lambda face: -face.side)[:_MOST_FACES]
        if self._lines:
            return [face for face in faces if face.track in self._lines]
        height, width = frame.image.shape[:2]
        return [main_face(faces, self.options.policy, width, height)]

    def _ready(self, frame: Frame) -> Iterator[AlignedFrame]:
        gone = []
        for face, line in self._lines.items():
            if frame.index - line.index > self.options.max_gap:
                gone.append(face)
            else:
                yield from line.ready(finished=False)
        yield from self._finish(gone)

    def _finish(self, faces: list[int]) -> Iterator[AlignedFrame]:
        for face in faces:
            line = self._lines[face]
            line.trim(self._tracker)
            yield from line.ready(finished=True)
            del self._lines[face]


def _thinned(frames: Iterable[Frame], options: AlignOptions) -> Iterator[Frame]:
    """The frames that ``max_fps`` and ``max_frames`` leave, numbered anew."""
    count, slot = 0, 0.0
    for frame in frames:
        if options.max_fps > 0:
            if frame.time < slot - 1e-6:
                continue
            # Slots are a fixed grid: 25 of 30 frames a second, not every second one.
            slot = max(slot + 1 / options.max_fps, frame.time - 1 / options.max_fps)
        yield Frame(count, frame.time, frame.image)
        count += 1
        if options.max_frames and count >= options.max_frames:
            return


def align_clip(
    frames: Iterable[Frame], options: AlignOptions | None = None, tracker: Tracker | None = None
) -> AlignedStream:
    """Align the faces of a clip.

    With the policies ``largest``, ``centre`` and ``reject`` one face is followed at a time, so the frames
    come in order, each at most once; after a cut or a long gap the next main face begins a new track. With
    ``longest`` all faces (at most four) are aligned, and the frames of several tracks alternate; who reads
    them keeps the track with the most. ``reject`` leaves the judgement to the reader, by ``faces``.

    Args:
        frames: as from ``remime.video.read``.
        options: how; see ``AlignOptions``.
        tracker: finds the faces; by default a ``FaceTracker``.

    Returns:
        A stream of ``AlignedFrame`` that counts what it saw.
    """
    return AlignedStream(frames, options or AlignOptions(), tracker)

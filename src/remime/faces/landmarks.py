"""Faces in frames: dlib's HOG detector, 68 landmarks, and tracking between detections.

Coordinates are pixels of the whole image, x right, y down, pixel centres at integers. A box is x0, y0, x1,
y1 of a square like the ones that the detector answers.

Jitter: the landmarks depend on the box that they start from, and the detector's boxes jump by up to a tenth
of their size. So the detector only finds and confirms faces. The box that counts follows from the landmarks
themselves, each face is brought to one scale first, and landmarks are the mean over three slightly shifted
boxes. On a man at rest this halves the second difference over time (0.033 to 0.018 of the eye distance).
The landmarks are not smoothed over time: mouths and eyes keep their speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from remime.errors import WeightsError
from remime.weights import original

Image = NDArray[np.uint8]
Points = NDArray[np.float64]
Box = tuple[float, float, float, float]

# A face spans 80 pixels in the detector's window; smaller ones need a bigger picture.
_MAX_UPSCALE = 2.0
# Measured on 140 frames of 5 people: the landmarks' RMS radius over the side of the detector's box, and the
# offset of the box's centre from their mean in sides.
_RADIUS = 0.364
_CENTRE = np.array([-0.002, -0.034])
# Shifts of the box, in sides, whose landmarks are averaged.
_SHIFTS = np.array([[0.0, -0.04], [0.035, 0.02], [-0.035, 0.02]])
_FACE_SIDE, _FACE_PAD = 160, 80
_ROI_SIDE, _ROI_PAD = 110, 66
_ROI_THRESHOLD = -0.3
_SAME_FACE = 0.3
_LOOK = 24
# Correlation of a face's look with that of the frame before. Talking heads stay above 0.9; an empty wall, a
# hand or another face comes below.
_SAME_LOOK = 0.7


@dataclass(frozen=True)
class Face:
    """A face in one frame.

    Attributes:
        landmarks: ``[68, 2]`` float32, order of iBUG 300-W.
        box: x0, y0, x1, y1, square.
        score: the detector's confidence when it last saw the face; 0 is its threshold.
        track: which track it belongs to; -1 outside of a tracker.
        detected: whether the detector confirmed it in this very frame.
        hits: how often the detector has confirmed the track.
    """

    landmarks: NDArray[np.float32]
    box: Box
    score: float
    track: int = -1
    detected: bool = True
    hits: int = 1

    @property
    def side(self) -> float:
        """Width and height of the box in pixels."""
        return self.box[2] - self.box[0]


def box_of(landmarks: NDArray[np.floating]) -> Box:
    """The square box that the detector would answer for these landmarks, were it not quantised."""
    mean = landmarks.mean(0)
    side = float(np.sqrt(((landmarks - mean) ** 2).sum(1).mean())) / _RADIUS
    x, y = mean + _CENTRE * side
    return float(x - side / 2), float(y - side / 2), float(x + side / 2), float(y + side / 2)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)


@cache
def _detector() -> Any:
    return dlib.get_frontal_face_detector()


@cache
def _predictor(own: Path | None) -> Any:
    # Kept, because checking the hash of a file of 100 MB takes as long as the landmarks of a dozen frames.
    path = own or original("dlib-landmarks-68")
    try:
        return dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise WeightsError(f"{path}: dlib cannot read it ({error})\n  delete it and run again") from error


def _grey(image: Image) -> Image:
    # dlib wants contiguous memory of its own; see the traps in remime.video.
    return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _patch(grey: Image, box: Box, side: int, pad: int) -> tuple[Image, float, NDArray[np.float64]]:
    """A box scaled to ``side`` with its surroundings; image pixel = patch pixel · scale + shift."""
    scale = (box[2] - box[0]) / side
    factor = max(1, int(scale))
    shift = np.array([box[0], box[1]]) - pad * scale + scale / 2
    around = grey
    origin = np.zeros(2)
    if factor > 1:
        reach = (pad + 2) * scale
        x0, y0 = (max(0, int(v - reach)) for v in box[:2])
        x1, y1 = int(box[2] + reach) + 1, int(box[3] + reach) + 1
        near = grey[y0:y1, x0:x1]
        height, width = (length // factor for length in near.shape)
        if min(height, width) < 2:
            return np.zeros((side + 2 * pad, side + 2 * pad), np.uint8), scale, shift
        cut = near[: height * factor, : width * factor]
        around = np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        origin = np.array([x0, y0], np.float64)
    inner = (shift - origin + 0.5) / factor - 0.5
    matrix = np.array([[scale / factor, 0, inner[0]], [0, scale / factor, inner[1]]])
    patch = cv2.warpAffine(
        around,
        matrix,
        (side + 2 * pad, side + 2 * pad),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(patch, np.uint8), scale, shift


def _run(grey: Image, threshold: float = 0.0) -> list[tuple[Box, float]]:
    """The detector's boxes and scores in a picture as it is."""
    boxes, scores, _ = _detector().run(grey, 0, threshold)
    corners = [(b.left(), b.top(), b.right() + 1.0, b.bottom() + 1.0) for b in boxes]
    return list(zip(corners, scores, strict=True))


class _Finder:
    """Where faces are, at the detector's scale."""

    def __init__(self, detect_size: int) -> None:
        self.detect_size = detect_size

    def everywhere(self, grey: Image, thorough: bool) -> list[tuple[Box, float]]:
        """Faces of the whole picture; ``thorough`` looks for half as large ones where there are none."""
        scale = min(self.detect_size / max(grey.shape), _MAX_UPSCALE)
        found = self._at(grey, scale)
        finer = min(2 * scale, _MAX_UPSCALE)
        return self._at(grey, finer) if thorough and not found and finer > scale else found

    def _at(self, grey: Image, scale: float) -> list[tuple[Box, float]]:
        height, width = (max(1, round(side * scale)) for side in grey.shape)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = np.asarray(cv2.resize(grey, (width, height), interpolation=how), np.uint8)
        found = []
        for box, score in _run(np.ascontiguousarray(scaled)):
            x0, y0, x1, y1 = (value / scale for value in box)
            found.append(((x0 - 0.5, y0 - 0.5, x1 - 0.5, y1 - 0.5), score))
        return found

    def near(self, grey: Image, box: Box) -> tuple[Box, float] | None:
        """The face that a box should hold, looked for in its surroundings only, or None."""
        patch, scale, shift = _patch(grey, box, _ROI_SIDE, _ROI_PAD)
        found = []
        for (x0, y0, x1, y1), score in _run(patch, _ROI_THRESHOLD):
            low, high = (np.array([[x0, y0], [x1, y1]]) - 0.5) * scale + shift
            found.append(((float(low[0]), float(low[1]), float(high[0]), float(high[1])), score))
        best = max(found, key=lambda each: overlap(each[0], box), default=None)
        return best if best is not None and overlap(best[0], box) >= _SAME_FACE else None


class _Shape:
    """Landmarks in a box."""

    def __init__(self, predictor: Path | None) -> None:
        self._predict = _predictor(predictor)

    def __call__(self, grey: Image, box: Box) -> Points:
        patch, scale, shift = _patch(grey, box, _FACE_SIDE, _FACE_PAD)
        points = np.zeros((68, 2))
        for dx, dy in np.rint(_SHIFTS * _FACE_SIDE).astype(int) + _FACE_PAD:
            x, y = int(dx), int(dy)
            rectangle = dlib.rectangle(x, y, x + _FACE_SIDE - 1, y + _FACE_SIDE - 1)
            points += [(p.x, p.y) for p in self._predict(patch, rectangle).parts()]
        return points / len(_SHIFTS) * scale + shift

    def settled(self, grey: Image, box: Box) -> Points:
        """Landmarks from a detector's box, without what its quantisation does to them."""
        return self(grey, box_of(self(grey, box)))


def _look(grey: Image, box: Box) -> NDArray[np.float64]:
    """What a face looks like: a small picture of zero mean and unit length."""
    patch, _, _ = _patch(grey, box, 4 * _LOOK, 0)
    small = cv2.resize(patch, (_LOOK, _LOOK), interpolation=cv2.INTER_AREA).astype(np.float64)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)


@dataclass
class _Track:
    face: Face
    look: NDArray[np.float64]
    lost: int = 0  # frames since it was last seen


class FaceTracker:
    """Follow all faces of a video.

    The detector runs on every ``detect_every``-th frame, and sooner where a face moves implausibly or
    suddenly looks different; in between the box follows the landmarks of the frame before.

    Args:
        detect_size: the longer side, in pixels, to which a frame is scaled for detection (down, or up to
            twice its size). Faces from an eighth of that side on are found; in frames without a face, those
            from a sixteenth on.
        detect_every: frames from one detection to the next.
        max_lost: for how many frames a lost face is looked for where it was, under its old track.
        predictor: dlib's shape predictor; by default the weights ``dlib-landmarks-68``.

    Raises:
        WeightsError: the predictor is missing or damaged.
    """

    def __init__(
        self,
        detect_size: int = 640,
        detect_every: int = 8,
        max_lost: int = 5,
        predictor: Path | None = None,
    ) -> None:
        self._finder = _Finder(detect_size)
        self._shape = _Shape(predictor)
        self._every, self._max_lost = detect_every, max_lost
        self._tracks: list[_Track] = []
        self._next_track = 0
        self._since_search = self._since_thorough = detect_every

    def detect(self, image: Image) -> list[Face]:
        """The faces of a single image ``[H, W, 3]`` uint8 RGB, the largest first."""
        grey = _grey(image)
        faces = [self._face(grey, box, score) for box, score in self._finder.everywhere(grey, thorough=True)]
        return sorted(faces, key=lambda face: -face.side)

    def reset(self) -> None:
        """Forget all faces, as at a scene cut; the numbers of tracks go on."""
        self._tracks = []
        self._since_search = self._since_thorough = self._every

    def update(self, image: Image) -> list[Face]:
        """The faces of the next frame ``[H, W, 3]`` uint8 RGB, the longest tracked first.

        A face that is lost in this frame is missing here; if it comes back soon, its track goes on.
        """
        grey = _grey(image)
        for track in self._tracks:
            if track.lost:
                self._recover(grey, track)
            else:
                self._follow(grey, track)
        if self._search_is_due():
            self._search(grey)
        self._tracks = [track for track in self._tracks if track.lost <= self._max_lost]
        self._drop_doubles()
        return [track.face for track in self._tracks if not track.lost]

    def confirms(self, image: Image, landmarks: NDArray[np.floating]) -> bool:
        """Whether the detector, looking there more tolerantly, sees a face under the landmarks."""
        return self._finder.near(_grey(image), box_of(landmarks)) is not None

    def _face(self, grey: Image, box: Box, score: float) -> Face:
        points = self._shape.settled(grey, box)
        return Face(points.astype(np.float32), box_of(points), score)

    def _follow(self, grey: Image, track: _Track) -> None:
        old = track.face
        points = self._shape(grey, old.box)
        box = box_of(points)
        look = _look(grey, box)
        if _plausible(old.box, box) and float((look * track.look).sum()) > _SAME_LOOK:
            track.face = replace(old, landmarks=points.astype(np.float32), box=box, detected=False)
            track.look = look
        else:
            self._confirm(grey, track, current=False)

    def _confirm(self, grey: Image, track: _Track, current: bool) -> None:
        found = self._finder.near(grey, track.face.box)
        if found is None:
            track.lost += 1
        else:
            self._seen(grey, track, *found, current=current)

    def _recover(self, grey: Image, track: _Track) -> None:
        found = self._finder.near(grey, track.face.box)
        if found is not None and found[1] > 0:
            self._seen(grey, track, *found, current=False)
        else:
            track.lost += 1

    def _seen(self, grey: Image, track: _Track, box: Box, score: float, current: bool) -> None:
        """Take note of a detection; landmarks that are of this frame (``current``) and fit it stay."""
        fits = current and overlap(track.face.box, box) >= 0.5
        fresh = replace(track.face, score=score) if fits else self._face(grey, box, score)
        track.face = replace(fresh, detected=True, track=track.face.track, hits=track.face.hits + 1)
        track.look = _look(grey, track.face.box)
        track.lost = 0

    def _search_is_due(self) -> bool:
        self._since_search += 1
        self._since_thorough += 1
        seen = any(not track.lost for track in self._tracks)
        return self._since_search >= (self._every if seen else max(1, self._every // 4))

    def _search(self, grey: Image) -> None:
        thorough = not self._tracks and self._since_thorough >= self._every
        self._since_search = 0
        if thorough:
            self._since_thorough = 0
        found = self._finder.everywhere(grey, thorough)
        for track in self._tracks:
            best = max(found, key=lambda each: overlap(each[0], track.face.box), default=None)
            if best is not None and overlap(best[0], track.face.box) >= _SAME_FACE:
                found.remove(best)
                self._seen(grey, track, *best, current=not track.lost)
            elif not track.lost:
                self._confirm(grey, track, current=True)
        for box, score in found:
            face = replace(self._face(grey, box, score), track=self._next_track)
            self._tracks.append(_Track(face, _look(grey, face.box)))
            self._next_track += 1

    def _drop_doubles(self) -> None:
        """Of two tracks that ended up on one face, the older one stays."""
        kept: list[_Track] = []
        for track in sorted(self._tracks, key=lambda each: each.face.track):
            if all(overlap(track.face.box, other.face.box) < 0.5 for other in kept):
                kept.append(track)
        self._tracks = kept


def _plausible(before: Box, after: Box) -> bool:
    """Whether a face can have moved so between two frames."""
    side, new_side = before[2] - before[0], after[2] - after[0]
    shift = np.hypot(
        (after[0] + after[2] - before[0] - before[2]) / 2, (after[1] + after[3] - before[1] - before[3]) / 2
    )
    return bool(shift < 0.35 * side and 0.75 < new_side / side < 1.33)


def main_face(faces: Sequence[Face], policy: str, width: int, height: int) -> Face:
    """The face that a policy names: ``centre`` the one nearest to the picture's centre, else the largest."""
    if policy != "centre":
        return max(faces, key=lambda face: face.side)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(0) - middle)))

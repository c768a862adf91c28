"""The streaming front end: tracks, gaps, cuts, policies, smoothing, and how far it looks ahead."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from remime.errors import InputError
from remime.faces import alignment
from remime.faces.front import AlignedFrame, AlignOptions, CutDetector, align_clip
from remime.faces.landmarks import Face, box_of
from remime.video import Frame
from tests import clips

Faces = Sequence[tuple[int, np.ndarray, bool]]  # track, landmarks, confirmed by the detector


class Scripted:
    """A tracker that says what it was told to."""

    def __init__(
        self, script: Sequence[Faces], truth: Callable[[np.ndarray], bool] = lambda _: False
    ) -> None:
        self.script, self.truth = list(script), truth
        self.resets = 0

    def update(self, image: np.ndarray) -> list[Face]:
        return [
            Face(points.astype(np.float32), box_of(points), 1.0, track, detected, hits=2)
            for track, points, detected in self.script.pop(0)
        ]

    def confirms(self, image: np.ndarray, landmarks: np.ndarray) -> bool:
        return self.truth(image)

    def reset(self) -> None:
        self.resets += 1


def options(**changes: object) -> AlignOptions:
    return AlignOptions.parse({"size": 32, "scene_threshold": 1, **changes})


def frames(n: int, fps: float = 25.0) -> list[Frame]:
    image = clips.view(1.0, size=160)
    return [Frame(i, i / fps, image) for i in range(n)]


def face(
    x: float = 0, scale: float = 1.0, track: int = 0, detected: bool = True
) -> tuple[int, np.ndarray, bool]:
    return track, clips.view_landmarks(1.0, size=160) * scale + np.array([x, 0]), detected


def test_every_frame_in_order_with_everything_that_belongs_to_it() -> None:
    script = [[face(i, detected=i % 8 == 0)] for i in range(41)]
    stream = align_clip(frames(41), options(), Scripted(script))
    out = list(stream)
    assert [a.index for a in out] == list(range(41))
    np.testing.assert_allclose([a.time for a in out], np.arange(41) / 25)
    assert not any(a.interpolated for a in out)
    assert {a.track for a in out} == {0}
    assert (stream.frames, stream.faces, stream.cuts, stream.too_small) == (41, 1, 0, False)
    for i, a in enumerate(out):
        assert a.image.shape == (32, 32, 3)
        assert a.landmarks.dtype == np.float32
        np.testing.assert_allclose(alignment.apply(a.transform, script_points(i)), a.landmarks, atol=1e-4)


def script_points(i: int) -> np.ndarray:
    return face(i)[1]


@pytest.mark.parametrize("fps", [10.0, 25.0, 60.0])
def test_the_stream_smooths_like_the_whole_clip(fps: float) -> None:
    rng = np.random.default_rng(0)
    points = [face()[1] + rng.normal(0, 1, (68, 2)) for _ in range(60)]
    script = [[(0, p, i % 8 == 0 or i == 59)] for i, p in enumerate(points)]
    out = list(align_clip(frames(60, fps), options(), Scripted(script)))
    quads = alignment.smooth(alignment.quad(np.stack(points)), fps)
    for a, corner in zip(out, quads, strict=True):
        np.testing.assert_allclose(a.transform, alignment.transform_of(corner, 32), rtol=1e-5, atol=1e-5)


def test_look_ahead_and_memory_are_bounded() -> None:
    """However long the clip, few frames are alive at a time."""
    alive: weakref.WeakSet = weakref.WeakSet()
    pulled, most = 0, 0

    class Picture(np.ndarray):
        pass

    def source() -> Iterator[Frame]:
        nonlocal pulled
        for i in range(400):
            image = clips.view(1.0, size=160).view(Picture)
            alive.add(_Id(image))
            pulled += 1
            yield Frame(i, i / 25, image)

    class _Id:
        def __init__(self, image: np.ndarray) -> None:
            image.owner = self  # type: ignore[attr-defined]

    script = [[face(detected=i % 8 == 0)] for i in range(400)]
    for a in align_clip(source(), options(), Scripted(script)):
        assert pulled - a.index <= 9 + 8 + 5 + 2
        most = max(most, len(alive))
    assert most <= 40


def test_short_gaps_are_filled_in_and_marked() -> None:
    script: list[Faces] = [[face(10.0 * i)] for i in range(20)]
    for i in (7, 8, 9):
        script[i] = []
    out = list(align_clip(frames(20), options(smooth_centre=0, smooth_axes=0), Scripted(script)))
    assert [a.index for a in out] == list(range(20))
    assert [a.index for a in out if a.interpolated] == [7, 8, 9]
    for i in (7, 8, 9):
        points = alignment.apply(alignment.invert(out[i].transform), out[i].landmarks)
        np.testing.assert_allclose(points, script_points(10 * i), atol=1e-2)


@pytest.mark.parametrize(("gap", "tracks"), [(3, 1), (4, 2), (12, 2)])
def test_longer_gaps_end_a_track(gap: int, tracks: int) -> None:
    script: list[Faces] = [[face()] for _ in range(30)]
    for i in range(10, 10 + gap):
        script[i] = []
    out = list(align_clip(frames(30), options(max_gap=3), Scripted(script)))
    assert len({a.track for a in out}) == tracks
    assert sum(a.interpolated for a in out) == (gap if tracks == 1 else 0)
    if tracks == 2:
        assert [a.index for a in out] == [*range(10), *range(10 + gap, 30)]


def test_gaps_at_the_ends_are_not_filled() -> None:
    script: list[Faces] = [[]] * 3 + [[face()] for _ in range(10)] + [[]] * 3
    out = list(align_clip(frames(16), options(), Scripted(script)))
    assert [a.index for a in out] == list(range(3, 13))


def test_an_end_that_the_detector_never_confirmed_is_left_out() -> None:
    """The landmarks went on for three frames on an empty wall; the detector, asked afterwards, tells."""
    pictures = frames(20)
    gone = np.zeros_like(pictures[0].image)
    pictures = [f if f.index < 13 else Frame(f.index, f.time, gone) for f in pictures]
    script: list[Faces] = [[face(detected=i in (0, 8))] for i in range(16)] + [[]] * 4
    tracker = Scripted(script, truth=lambda image: bool(image.any()))
    out = list(align_clip(pictures, options(), tracker))
    assert [a.index for a in out] == list(range(13))


def test_scene_cuts_end_tracks() -> None:
    red, blue = np.zeros((90, 160, 3), np.uint8), np.zeros((90, 160, 3), np.uint8)
    red[..., 0], blue[..., 2] = 200, 200
    pictures = [Frame(i, i / 25, red if i < 9 else blue) for i in range(20)]
    tracker = Scripted([[face()] for _ in range(20)])
    stream = align_clip(pictures, options(scene_threshold=0.5), tracker)
    out = list(stream)
    assert [a.track for a in out] == [0] * 9 + [1] * 11
    assert (stream.cuts, tracker.resets) == (1, 1)
    # Smoothing does not reach over the cut.
    assert out[8].index == 8
    stream = align_clip(pictures, options(scene_threshold=1), Scripted([[face()] for _ in range(20)]))
    assert {a.track for a in stream} == {0}


def test_movement_is_no_cut_and_another_scene_is() -> None:
    moving = clips.moving_face(16)
    detector = CutDetector(0.5)
    assert not any(detector.update(frame) for frame in moving)
    assert detector.update(clips.no_face(1)[0])
    assert not detector.update(clips.no_face(2)[1])


def two_faces(n: int) -> list[Faces]:
    """A small face in the middle all the time, a large one at the left for the first ten frames."""
    small, large = face(20, 0.8, track=4), face(-60, 1.3, track=7)
    return [[small, large] if i < 10 else [small] for i in range(n)]


def by_track(out: Sequence[AlignedFrame]) -> dict[int, list[int]]:
    return {track: [a.index for a in out if a.track == track] for track in {a.track for a in out}}


def test_policy_largest_follows_it_until_it_leaves() -> None:
    stream = align_clip(
        frames(30), options(policy="largest", max_gap=3, min_face=10), Scripted(two_faces(30))
    )
    assert by_track(list(stream)) == {0: list(range(10)), 1: list(range(14, 30))}
    assert stream.faces == 2


def test_policy_centre() -> None:
    stream = align_clip(frames(30), options(policy="centre", min_face=10), Scripted(two_faces(30)))
    assert by_track(list(stream)) == {0: list(range(30))}


def test_policy_longest_gives_all_tracks() -> None:
    stream = align_clip(frames(30), options(policy="longest", min_face=10), Scripted(two_faces(30)))
    found = by_track(list(stream))
    assert sorted(found.values(), key=len) == [list(range(10)), list(range(30))]
    assert stream.live == frozenset()


def test_small_faces_are_left_out_and_told() -> None:
    stream = align_clip(frames(5), options(min_face=500), Scripted([[face()]] * 5))
    assert list(stream) == []
    assert stream.too_small


def test_a_face_that_was_too_small_for_long_begins_a_new_track() -> None:
    script: list[Faces] = [[face(scale=0.5 if 5 <= i < 15 else 1.0)] for i in range(25)]
    stream = align_clip(frames(25), options(min_face=60, max_gap=3), Scripted(script))
    assert by_track(list(stream)) == {0: list(range(5)), 1: list(range(15, 25))}


def test_a_single_frame() -> None:
    stream = align_clip(frames(1), options(), Scripted([[(0, face()[1], True)]]))
    assert len(list(stream)) == 1
    assert stream.faces == 1
    assert list(align_clip([], options(), Scripted([]))) == []


@pytest.mark.parametrize(("fps", "limit", "expected"), [(30, 25, 25), (50, 25, 25), (24, 25, 24), (60, 7, 7)])
def test_max_fps(fps: float, limit: float, expected: int) -> None:
    """A second of video gives as many frames as are allowed, evenly spread."""
    n = int(fps)
    stream = align_clip(frames(n, fps), options(max_fps=limit), Scripted([[face()]] * n))
    times = np.array([a.time for a in stream])
    assert abs(len(times) - expected) <= 1
    assert np.diff(times).max() < 1.6 / min(fps, limit) + 1 / fps
    assert options(max_fps=limit).fps(fps) == min(fps, limit)


def test_max_frames() -> None:
    stream = align_clip(frames(30), options(max_frames=12), Scripted([[face()]] * 30))
    assert [a.index for a in stream] == list(range(12))


def test_unknown_options_are_named() -> None:
    with pytest.raises(InputError, match=r"align: detectevery.*not an option.*\n.*detect_every"):
        AlignOptions.parse({"detectevery": 3})
    with pytest.raises(InputError, match=r"policy.*'best'(.|\n)*largest"):
        AlignOptions.parse({"policy": "best"})


@pytest.mark.weights
def test_a_real_face_stays_in_its_place(weights: Callable) -> None:
    """The face swings, rolls and grows in the clip, and rests in the aligned frames."""
    weights("dlib-landmarks-68")
    pictures = [Frame(i, i / 25, image) for i, image in enumerate(clips.moving_face(50))]
    out = list(align_clip(pictures, AlignOptions(size=128)))
    assert len(out) == 50
    points = np.stack([a.landmarks for a in out])
    eye_distance = np.linalg.norm(points[:, 36] - points[:, 45], axis=1).mean()
    assert points.std(axis=0).max() < 0.04 * eye_distance
    mean = out[10].image.astype(float)[30:100, 30:100]
    differences = [np.abs(a.image.astype(float)[30:100, 30:100] - mean).mean() for a in out]
    assert max(differences) < 12

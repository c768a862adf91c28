"""Finding and following faces, on a real face whose true motion is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from remime.errors import WeightsError
from remime.faces import landmarks
from remime.faces.landmarks import Face, FaceTracker
from tests import clips

EYES = np.linalg.norm(clips.LANDMARKS[36:42].mean(0) - clips.LANDMARKS[42:48].mean(0))


@pytest.fixture
def tracker(weights: Callable) -> FaceTracker:
    weights("dlib-landmarks-68")
    return FaceTracker()


def error(face: Face, truth: np.ndarray, scale: float = 1.0) -> float:
    """Mean distance of the landmarks to the truth, in eye distances."""
    return float(np.linalg.norm(face.landmarks - truth, axis=1).mean() / (EYES * scale))


@pytest.mark.weights
@pytest.mark.parametrize("scale", [0.7, 1.0, 4.0])
def test_landmarks_scale_with_the_picture(tracker: FaceTracker, scale: float) -> None:
    still = clips.portrait()
    scaled = cv2.resize(
        still, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    [face] = tracker.detect(scaled)
    assert face.landmarks.shape == (68, 2)
    assert face.landmarks.dtype == np.float32
    assert error(face, (clips.LANDMARKS + 0.5) * scale - 0.5, scale) < 0.03
    assert face.detected
    assert face.score > 0


@pytest.mark.weights
def test_a_small_face_in_a_wide_picture(tracker: FaceTracker) -> None:
    """115 pixels of 1600 are too few at the usual scale; where nothing is found it looks closer."""
    wide = np.full((900, 1600, 3), 128, np.uint8)
    wide[200:456, 500:756] = clips.view(1.2)
    [face] = tracker.detect(wide)
    assert error(face, clips.view_landmarks(1.2) + np.array([500, 200]), 1.2) < 0.03


@pytest.mark.weights
def test_nothing_is_found_where_nothing_is(tracker: FaceTracker) -> None:
    assert tracker.detect(clips.no_face(1)[0]) == []
    for size in ((8, 8), (1, 1), (3, 200)):
        assert tracker.detect(np.zeros((*size, 3), np.uint8)) == []


@pytest.mark.weights
def test_a_moving_face_keeps_its_track_and_its_landmarks(tracker: FaceTracker) -> None:
    how = clips.movement(30)
    for i, each in enumerate(how):
        [face] = tracker.update(clips.view(*each))
        assert face.track == 0
        assert face.detected == (i % 8 == 0)
        assert error(face, clips.view_landmarks(*each), each[0]) < 0.04, i


@pytest.mark.weights
def test_the_same_frames_give_the_same_landmarks(weights: Callable) -> None:
    weights("dlib-landmarks-68")
    frames = clips.moving_face(10)
    runs = [
        [FaceTracker.update(tracker, frame)[0].landmarks for frame in frames]
        for tracker in (FaceTracker(), FaceTracker())
    ]
    np.testing.assert_array_equal(*runs)


@pytest.mark.weights
def test_tracking_has_less_jitter_than_detection(tracker: FaceTracker) -> None:
    """A face at rest under the noise of a camera: the second difference over time is smaller."""
    import dlib

    rng = np.random.default_rng(0)
    still = clips.view(1.2)
    predictor = dlib.shape_predictor(str(landmarks.original("dlib-landmarks-68")))
    detector = dlib.get_frontal_face_detector()
    ours, plain = [], []
    for _ in range(10):
        frame = np.clip(still + rng.normal(0, 4, still.shape), 0, 255).astype(np.uint8)
        ours.append(tracker.update(frame)[0].landmarks)
        plain.append([(p.x, p.y) for p in predictor(frame, detector(frame)[0]).parts()])
    ours_jitter, plain_jitter = (np.abs(np.diff(np.array(x, float), 2, axis=0)).mean() for x in (ours, plain))
    assert ours_jitter < 0.8 * plain_jitter


@pytest.mark.weights
def test_two_faces_have_two_tracks(tracker: FaceTracker) -> None:
    tracks = set()
    for left, right in zip(clips.movement(12), reversed(clips.movement(12)), strict=True):
        faces = tracker.update(np.hstack([clips.view(*left), clips.view(*right)]))
        assert [face.track for face in faces] == [0, 1]
        first, second = sorted(faces, key=lambda face: face.box[0])
        assert error(first, clips.view_landmarks(*left), left[0]) < 0.05
        assert error(second, clips.view_landmarks(*right) + np.array([256, 0]), right[0]) < 0.05
        tracks.add((first.track, second.track))
    assert len(tracks) == 1


@pytest.mark.weights
def test_a_face_that_hides_comes_back_under_its_track(tracker: FaceTracker) -> None:
    frames, empty = clips.moving_face(24, swing=2), clips.no_face(1)[0]
    seen = [tracker.update(empty if 9 <= i < 13 else frame) for i, frame in enumerate(frames)]
    assert [face.track for faces in seen for face in faces] == [0] * sum(map(len, seen))
    assert all(seen[:9])
    assert all(seen[14:])
    assert not any(seen[9:13])


@pytest.mark.weights
def test_a_face_that_stays_away_is_forgotten(tracker: FaceTracker) -> None:
    frame, empty = clips.view(1.2), clips.no_face(1)[0]
    assert tracker.update(frame)[0].track == 0
    for _ in range(12):
        tracker.update(empty)
    found = [tracker.update(frame) for _ in range(3)]
    assert found[-1][0].track == 1


@pytest.mark.weights
def test_a_jump_is_noticed_before_the_next_detection(tracker: FaceTracker) -> None:
    """After a jump by more than a face the landmarks do not stay on the background."""
    wide = [np.full((256, 768, 3), 100, np.uint8) for _ in range(2)]
    wide[0][:, :256], wide[1][:, 512:] = clips.view(1.2), clips.view(1.2)
    tracker.update(wide[0])
    tracker.update(wide[0])
    for _ in range(3):
        faces = tracker.update(wide[1])
    for face in faces:
        assert error(face, clips.view_landmarks(1.2) + np.array([512, 0]), 1.2) < 0.05


@pytest.mark.weights
def test_reset_searches_at_once_and_counts_on(tracker: FaceTracker) -> None:
    frame = clips.view(1.2)
    tracker.update(frame)
    tracker.reset()
    [face] = tracker.update(frame)
    assert (face.track, face.detected) == (1, True)


@pytest.mark.weights
def test_confirms(tracker: FaceTracker) -> None:
    assert tracker.confirms(clips.view(1.2), clips.view_landmarks(1.2))
    assert not tracker.confirms(clips.no_face(1)[0], clips.view_landmarks(1.2))


def test_box_follows_the_landmarks() -> None:
    box = np.array(landmarks.box_of(clips.LANDMARKS))
    moved = np.array(landmarks.box_of(3 * clips.LANDMARKS + [10, -20]))
    np.testing.assert_allclose(moved, 3 * box + [10, -20, 10, -20])
    assert box[0] < clips.LANDMARKS[36, 0] < clips.LANDMARKS[45, 0] < box[2]
    assert box[2] - box[0] == pytest.approx(box[3] - box[1])


def test_overlap() -> None:
    assert landmarks.overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert landmarks.overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert landmarks.overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0


def test_main_face() -> None:
    def face(x: float, side: float) -> Face:
        points = np.full((68, 2), x, np.float32)
        return Face(points, (x - side / 2, x - side / 2, x + side / 2, x + side / 2), 1.0)

    near, large = face(50, 10), face(10, 30)
    assert landmarks.main_face([near, large], "largest", 100, 100) is large
    assert landmarks.main_face([near, large], "longest", 100, 100) is large
    assert landmarks.main_face([near, large], "centre", 100, 100) is near


def test_a_damaged_predictor_is_named(tmp_path: Path) -> None:
    (tmp_path / "shape.dat").write_bytes(b"nonsense" * 100)
    with pytest.raises(WeightsError, match=r"shape\.dat"):
        FaceTracker(predictor=tmp_path / "shape.dat")

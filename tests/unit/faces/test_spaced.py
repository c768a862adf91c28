"""Faces from all over a video, in bounded memory."""

import numpy as np
import pytest

from remime.faces.spaced import Spaced, spaced_faces
from remime.faces.stream import Faces
from tests import clips


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17, 1000])
def test_spaced_items_are_even_and_few(n):
    spaced = Spaced(4)
    for i in range(n):
        spaced.add(i)
    steps = set(np.diff(spaced.items))
    assert spaced.items[0] == 0
    assert len(steps) <= 1
    assert min(n, 4) <= len(spaced.items) <= 8
    assert n - 1 - spaced.items[-1] < (steps or {1}).pop()


def test_items_that_are_missing_keep_their_place():
    spaced, asked = Spaced(2), 0
    for i in range(16):
        asked += spaced.due
        spaced.add(i if spaced.due and i % 8 else None)
    assert spaced.items == [4, 12]
    assert asked < 10


@pytest.mark.weights
def test_faces_from_all_over_a_video(tmp_path, weights):
    weights("dlib-landmarks-68")
    path = tmp_path / "v.mp4"
    clips.encode(path, [*clips.no_face(2), *clips.moving_face(10, swing=0.0), *clips.no_face(4)])
    told = list(spaced_faces(path, 4))
    assert told[:16] == [None] * 16
    found = [image for image in told if image is not None]
    assert len(found) == len(told) - 16
    assert 2 <= len(found) <= 5  # of 4 to 8 frames, some without a face
    aligned = [moment.image for moment in Faces(path) if moment.image is not None]
    # Boxes found anew put landmarks a pixel off where those that are followed do, and compression adds noise.
    for image in found:
        assert np.abs(image.astype(int) - aligned[5]).mean() < 8


@pytest.mark.weights
def test_a_video_without_a_face_has_none(tmp_path, weights):
    weights("dlib-landmarks-68")
    clips.encode(tmp_path / "v.mp4", clips.no_face(3))
    assert list(spaced_faces(tmp_path / "v.mp4", 4)) == [None] * 3

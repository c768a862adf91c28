"""Aligned faces as streams: every frame of the file comes once, with its face or without."""

from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from remime.errors import InputError
from remime.faces import stream as faces
from remime.faces.stream import Faces, first_face
from tests import clips


@pytest.fixture
def dlib(weights):
    weights("dlib-landmarks-68")


class FakeStream:
    """Finds faces where it is told to, a few frames late, as the smoothing does."""

    too_small = True

    def __init__(self, frames, found, late=3):
        self._frames, self._found, self._late = frames, found, late

    def __iter__(self):
        waiting = []
        for frame in self._frames:
            waiting.append(frame)
            if len(waiting) > self._late:
                yield from self._seen(waiting.pop(0))
        for frame in waiting:
            yield from self._seen(frame)

    def _seen(self, frame):
        if frame.index in self._found:
            yield frame


@pytest.mark.parametrize("found", [{0, 1, 2, 3, 4, 5, 6, 7}, {2, 3, 6}, {7}, {0}, set()])
def test_every_frame_comes_once(tmp_path, monkeypatch, found):
    path = clips.encode(tmp_path / "a.mp4", clips.numbered(8), fps=10)
    monkeypatch.setattr(faces, "align_clip", lambda frames, options: FakeStream(frames, found))
    with closing(Faces(path)) as stream:
        moments = list(stream)
    assert [m.index for m in moments] == list(range(8))
    assert [m.time for m in moments] == pytest.approx([i / 10 for i in range(8)], abs=1e-3)
    assert {m.index for m in moments if m.image is not None} == found
    assert all(clips.read_number(m.image) == m.index for m in moments if m.image is not None)
    assert (stream.found, stream.missing) == (len(found), 8 - len(found))
    if not found:
        assert "too small" in str(stream.no_face())


def test_aligned_frames_are_taken_as_they_are(tmp_path):
    path = clips.encode(tmp_path / "a.mp4", clips.numbered(3, 64))
    with closing(Faces(path, aligned=True)) as stream:
        moments = list(stream)
    assert [clips.read_number(m.image) for m in moments] == [0, 1, 2]
    assert {m.image.shape for m in moments} == {(64, 64, 3)}


def test_aligned_frames_are_square(tmp_path):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"60×40.*\n.*--aligned"):
        Faces(tmp_path / "a.png", aligned=True)


@pytest.mark.weights
def test_a_real_face_between_frames_without_one(tmp_path, dlib):
    frames = clips.no_face(4) + clips.moving_face(10) + clips.no_face(4)
    path = clips.encode(tmp_path / "a.mp4", frames)
    with closing(Faces(path)) as stream:
        moments = list(stream)
    assert [m.index for m in moments if m.image is not None] == list(range(4, 14))
    assert {m.image.shape for m in moments if m.image is not None} == {(256, 256, 3)}
    assert stream.missing == 8


@pytest.mark.weights
def test_first_face_of_a_still_and_of_a_clip_of_one_frame(tmp_path, dlib):
    Image.fromarray(clips.portrait()).save(tmp_path / "a.png")
    still = first_face(tmp_path / "a.png")
    clip = first_face(clips.encode(tmp_path / "a.mp4", [clips.portrait()]))
    assert still.shape == clip.shape == (256, 256, 3)
    # The same crop, once through H.264; another one is off by 40 and more.
    assert np.abs(still.astype(int) - clip).mean() < 10


@pytest.mark.weights
def test_no_face(tmp_path, dlib):
    Image.fromarray(clips.no_face(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: no face was found in it"):
        first_face(tmp_path / "a.png")
    with pytest.raises(InputError, match="no face was found in 3 frames"):
        first_face(clips.encode(tmp_path / "a.mp4", clips.no_face(3)))


def test_each_time_gets_the_nearest_frame_until_the_video_ends():
    images = [np.full((1, 1, 3), i, np.uint8) for i in range(4)]
    moments = [faces.Moment(i, i / 10, image) for i, image in enumerate(images)]
    found = faces.nearest(iter(moments), [0.0, 0.04, 0.06, 0.2, 0.3, 0.37, 0.38, 0.9], 0.1)
    assert [int(image.max()) for image in found] == [0, 0, 1, 2, 3, 3]
    assert list(faces.nearest(iter([]), [0.0], 0.1)) == []

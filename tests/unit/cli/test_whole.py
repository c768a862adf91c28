"""What is known of a whole clip, in bounded memory."""

import tempfile

import numpy as np
import pytest
import torch

from remime.cli.whole import Spaced, clip_mean, spaced_faces, spooled
from remime.faces.stream import Faces
from remime.reenactment import FLIPS, invert, mean_latent
from tests import clips

ROWS = 2


class FakeInverter(torch.nn.Module):
    """Its latents are the mean colours of the left and the right half."""

    def __init__(self):
        super().__init__()
        self.register_buffer("latent_avg", torch.zeros(ROWS, 512))

    def invert(self, images, batch_size=8):
        halves = torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, dim=3)], 1)
        return halves[..., None].expand(-1, -1, 512).clone()


def clip(n):
    return [np.random.default_rng(i).integers(0, 256, (4, 4, 3)).astype(np.uint8) for i in range(n)]


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
    path, seen = tmp_path / "v.mp4", []
    clips.encode(path, [*clips.no_face(2), *clips.moving_face(10, swing=0.0), *clips.no_face(4)])
    found = spaced_faces(path, 4, lambda: seen.append(1))
    assert len(seen) == 16
    assert 2 <= len(found) <= 5  # of 4 to 8 frames, some without a face
    aligned = [moment.image for moment in Faces(path) if moment.image is not None]
    # Boxes found anew put landmarks a pixel off where those that are followed do, and compression adds noise.
    for image in found:
        assert np.abs(image.astype(int) - aligned[5]).mean() < 8


@pytest.mark.weights
def test_a_video_without_a_face_has_none(tmp_path, weights):
    weights("dlib-landmarks-68")
    clips.encode(tmp_path / "v.mp4", clips.no_face(3))
    assert spaced_faces(tmp_path / "v.mp4", 4) == []


@pytest.mark.parametrize("n", [1, 5, FLIPS])
def test_mean_of_a_short_clip_is_that_of_the_papers_definition(n):
    images = clip(n)
    known = mean_latent(FakeInverter(), np.stack(images), invert(FakeInverter(), np.stack(images)))
    assert torch.allclose(clip_mean(FakeInverter(), iter(images), 3), known, atol=1e-6)


def test_spool_gives_every_latent_back():
    images, calls = clip(7), []
    with tempfile.TemporaryFile() as spool:
        clip_mean(FakeInverter(), images, 3, spool, lambda: calls.append(1))
        found = list(spooled(spool, ROWS))
    assert len(calls) == 3
    assert torch.equal(torch.stack(found), invert(FakeInverter(), np.stack(images)))

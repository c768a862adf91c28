"""What is known of a whole clip, in bounded memory."""

import tempfile

import numpy as np
import pytest
import torch

from remime.cli.whole import clip_mean, spooled
from remime.reenactment import FLIPS, invert, mean_latent

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

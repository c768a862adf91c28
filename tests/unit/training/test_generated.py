"""Generator samples: their latents, their degradation, and the pool that survives a kill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from remime.images import to_image, to_tensor
from remime.training.generated import CHUNK, GeneratedPool, degrade, sample_latents, vary
from tests import tiny

COUNT = 17 * CHUNK + 3  # the pool notes its progress every 16 chunks


@pytest.fixture(scope="module")
def generator():
    return tiny.generator()


def describe(images: Tensor) -> Tensor:
    return images.mean((2, 3))


def test_latents_follow_from_the_seed(generator):
    first = sample_latents(generator, 6, 3, mixing=0.5)
    assert first.shape == (6, tiny.ROWS, 512)
    assert torch.equal(first, sample_latents(generator, 6, 3, mixing=0.5))
    assert not torch.equal(first, sample_latents(generator, 6, 4, mixing=0.5))


def test_truncation(generator):
    mean = generator.mean_latent
    assert torch.allclose(sample_latents(generator, 4, 0, truncation=(0, 0)), mean, atol=1e-6)
    whole = sample_latents(generator, 400, 0, truncation=(1, 1)) - mean
    parts = sample_latents(generator, 400, 0, truncation=(0.4, 0.8)) - mean
    psi = (parts * whole).sum((1, 2)) / whole.square().sum((1, 2))
    assert torch.allclose(parts, psi[:, None, None] * whole, atol=1e-5)
    assert 0.4 <= psi.min() < 0.42
    assert 0.78 < psi.max() <= 0.8


def test_style_mixing_splits_the_rows_once(generator):
    plain = sample_latents(generator, 64, 0)
    assert torch.equal(plain, plain[:, :1].expand_as(plain))
    mixed = sample_latents(generator, 64, 0, mixing=1)
    changes = (mixed[:, 1:] != mixed[:, :-1]).any(2)
    assert (changes.sum(1) == 1).all()
    assert changes.any(0).all()
    assert torch.equal(mixed[:, 0], plain[:, 0])
    share = (
        sample_latents(generator, 400, 0, mixing=0.3)[:, 0]
        != sample_latents(generator, 400, 0, mixing=0.3)[:, -1]
    )
    assert 0.2 < share.any(1).float().mean() < 0.4


def test_varied_images_are_other_views_of_the_same():
    ramp = torch.linspace(-0.6, 0.6, 64).expand(1, 3, 64, 64)
    images = ramp.repeat(40, 1, 1, 1)
    seen = vary(images, 5)
    assert torch.equal(seen, vary(images, 5))
    assert not torch.equal(seen, vary(images, 6))
    assert seen.shape == images.shape
    assert seen.abs().max() <= 1
    slope = seen.mean((1, 2))[:, 44] - seen.mean((1, 2))[:, 20]
    # About half are mirrored; light and colour change, but a ramp stays a ramp of about the same size.
    assert 10 < (slope < 0).sum() < 30
    assert (slope.abs() > 0.1).all()
    assert (slope.abs() < 0.8).all()
    assert seen.mean((1, 2, 3)).std() > 0.05
    assert (seen[:, 0] - seen[:, 2]).abs().mean() > 0.02


def test_varied_faces_need_not_be_mirrored():
    images = torch.linspace(-0.6, 0.6, 64).expand(40, 3, 64, 64)
    profile = vary(images, 5, mirror=False).mean((1, 2))
    assert (profile[:, 44] > profile[:, 20]).all()
    # All other choices are the same.
    assert torch.isclose(profile.mean(1), vary(images, 5).mean((1, 2, 3)), atol=0.05).all()


def test_degraded_images():
    checkers = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 1.6 - 0.8
    images = checkers.expand(200, 3, -1, -1)
    out = degrade(images, 5)
    assert torch.equal(out, degrade(images, 5))
    assert not torch.equal(out, degrade(images, 6))
    assert out.shape == images.shape
    assert out.abs().max() <= 1
    blurred = out.std((1, 2, 3)) < 0.75  # any loss of resolution flattens a checkerboard of single pixels
    assert 0.35 < blurred.float().mean() < 0.65
    noise = (out - images)[~blurred].std((1, 2, 3))
    assert 0 < noise.min() < noise.max() < 0.031


@pytest.mark.parametrize("side", [32, 256])
def test_images_of_any_size_can_be_degraded(side):
    assert degrade(torch.zeros(8, 3, side, side), 0).shape == (8, 3, side, side)


def test_pool_holds_what_it_says(tmp_path, generator):
    pool = GeneratedPool(tmp_path, generator, describe, 11, 0, tiny.SIZE)
    latents = pool.latents(0, 11)
    assert latents.shape == (11, tiny.ROWS, 512)
    for start, stop in ((0, 3), (5, 11), (8, 9), (7, 9)):
        assert torch.equal(pool.latents(start, stop), latents[start:stop])
    assert torch.equal(pool.all_latents(), latents.half())
    images = to_image(torch.cat([generator.synthesize(w) for w in latents.split(1)]))
    assert np.array_equal(pool.images, images)
    assert pool.features.shape == (11, 3)
    assert np.abs(pool.features - describe(to_tensor(images)).numpy()).max() < 0.1


def test_pool_decodes_at_the_resolution_asked_for(tmp_path, generator):
    pool = GeneratedPool(tmp_path, generator, describe, 2, 0, tiny.SIZE, resolution=16)
    small = generator.synthesize(pool.latents(0, 1), resolution=16)
    expected = torch.nn.functional.interpolate(small, size=tiny.SIZE, mode="bilinear", align_corners=False)
    assert np.array_equal(pool.images[:1], to_image(expected))


class Interrupting(torch.nn.Module):
    """Passes everything on to a generator, and gives up at a decode."""

    def __init__(self, generator, decodes):
        super().__init__()
        self.inner, self.left = generator, decodes

    def __getattr__(self, name):
        return super().__getattr__(name) if name in ("inner", "left") else getattr(self.inner, name)

    def synthesize(self, *arguments, **named):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner.synthesize(*arguments, **named)


def test_interrupted_pool_continues(tmp_path, generator):
    whole = GeneratedPool(tmp_path / "whole", generator, describe, COUNT, 1, tiny.SIZE)
    with pytest.raises(KeyboardInterrupt):
        GeneratedPool(
            tmp_path / "cut", Interrupting(generator, 16 * CHUNK + 5), describe, COUNT, 1, tiny.SIZE
        )
    rest = Interrupting(generator, COUNT - 16 * CHUNK)
    pool = GeneratedPool(tmp_path / "cut", rest, describe, COUNT, 1, tiny.SIZE)
    assert rest.left == 0
    assert np.array_equal(pool.images, whole.images)
    assert np.array_equal(pool.features, whole.features)
    again = GeneratedPool(tmp_path / "cut", Interrupting(generator, 0), describe, COUNT, 1, tiny.SIZE)
    assert np.array_equal(again.images, whole.images)


@pytest.mark.parametrize("what", ["json", "npy", "both"])
def test_a_damaged_pool_is_made_again(tmp_path, generator, what):
    pool = GeneratedPool(tmp_path, generator, describe, 2 * CHUNK, 0, tiny.SIZE)
    images = np.array(pool.images)
    for path in [p for kind in ("json", "npy") for p in tmp_path.glob(f"*.{kind}") if what in (kind, "both")]:
        path.write_bytes(path.read_bytes()[:5])
    again = GeneratedPool(tmp_path, generator, describe, 2 * CHUNK, 0, tiny.SIZE)
    assert np.array_equal(again.images, images)
    kept = GeneratedPool(tmp_path, Interrupting(generator, 0), describe, 2 * CHUNK, 0, tiny.SIZE)
    assert np.array_equal(kept.images, images)


def test_pools_of_other_options_do_not_mix(tmp_path, generator):
    pools = [
        GeneratedPool(tmp_path, generator, describe, count, seed, size)
        for count, seed, size in ((4, 0, 32), (5, 0, 32), (4, 1, 32), (4, 0, 16))
    ]
    assert [pool.images.shape for pool in pools] == [
        (4, 32, 32, 3),
        (5, 32, 32, 3),
        (4, 32, 32, 3),
        (4, 16, 16, 3),
    ]
    assert not np.array_equal(pools[0].images, pools[2].images)


def test_pools_of_other_networks_and_mixing_do_not_mix(tmp_path, generator):
    """What a retrained generator shows is not what the old one showed."""
    first = GeneratedPool(tmp_path, generator, describe, 4, 0, tiny.SIZE)
    plain = GeneratedPool(tmp_path, generator, describe, 4, 0, tiny.SIZE, mixing=0.0)
    rows = plain.latents(0, 4)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert not np.array_equal(first.images, plain.images)
    generator.input.input.data += 1
    assert not np.array_equal(
        first.images, GeneratedPool(tmp_path, generator, describe, 4, 0, tiny.SIZE).images
    )


@pytest.mark.parametrize("change", [degrade, vary])
def test_a_share_of_a_batch_is_changed_as_in_the_whole(change):
    images = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(1)) - 0.5
    whole = change(images, 5)
    for rank in range(3):
        rows = slice(rank, None, 3)
        assert torch.allclose(change(images[rows], 5, 7, rows), whole[rows], atol=1e-6)
    assert change(images[:0], 5, 2, slice(2, None, 3)).shape == (0, 3, 32, 32)

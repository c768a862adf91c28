"""Reenactment as a stream: one frame out for each in, in order, with little in memory."""

from __future__ import annotations

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from remime import reenactment, yuv
from remime.cli.inputs import PRECISIONS
from remime.errors import InputError
from remime.images import to_image, to_tensor
from remime.methods import Driving
from remime.methods.base import Identity, Method
from remime.methods.linear import Linear
from remime.reenactment import Decoder, Reenactor, compiled, invert, mean_latent, random_face
from tests import tiny


@pytest.fixture(scope="module")
def generator():
    return tiny.generator()


IMAGE = torch.zeros(3, 8, 8)


class Bright(Method):
    """A latent that says how bright a driving frame is."""

    needs_latents = False

    def __init__(self):
        super().__init__()
        self.batches = []

    def identify(self, latent, image):
        return Identity(latent, image)

    def drive(self, identity, frames, latents=None, driving=None):
        self.batches.append(len(frames))
        return identity.latent + frames.mean((1, 2, 3))[:, None, None]


class Inverter:
    """Inverts a frame to its brightness left and right; counts its batches."""

    def __init__(self):
        self.latent_avg, self.batches = torch.zeros(tiny.ROWS, 512), []

    def invert(self, images, batch):
        self.batches.append(len(images))
        half = images.shape[-1] // 2
        sides = torch.stack([images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))], 1)
        return sides.repeat(1, 256)[:, None].expand(-1, tiny.ROWS, -1).clone()


def pictures(n, side=32):
    grey = np.linspace(0, 255, n).round().astype(np.uint8)
    return grey[:, None, None, None] * np.ones((1, side, side, 3), np.uint8)


def expected(generator, w_plus):
    return to_image(torch.cat([generator.synthesize(w) for w in w_plus.split(1)]))


@pytest.mark.parametrize(("n", "batch"), [(7, 3), (6, 3), (1, 8), (0, 4)])
def test_one_frame_out_for_each_in(generator, n, batch):
    method, frames = Bright(), pictures(n)
    out = list(
        Reenactor(generator, method, 32, batch).frames(
            method.identify(torch.zeros(tiny.ROWS, 512), IMAGE), frames
        )
    )
    assert len(out) == n
    assert sum(method.batches) == n
    assert max(method.batches, default=0) <= batch
    if n:
        levels = to_tensor(frames).mean((1, 2, 3))
        truth = expected(generator, levels[:, None, None].expand(-1, tiny.ROWS, 512))
        assert np.abs(np.stack(out).astype(int) - truth).max() <= 1


def test_frames_as_a_video_holds_them(generator):
    method, frames = Bright(), pictures(3)
    identity = method.identify(torch.zeros(tiny.ROWS, 512), IMAGE)
    out = Reenactor(generator, method, 32, 2, "yuv420p").frames(identity, frames)
    levels = to_tensor(frames).mean((1, 2, 3))[:, None, None].expand(-1, tiny.ROWS, 512)
    truth = np.concatenate([yuv.from_tensor(generator.synthesize(w)) for w in levels.split(1)])
    assert np.abs(np.stack(list(out)).astype(int) - truth).max() <= 1


def test_only_a_batch_is_read_ahead(generator):
    method, read = Bright(), []

    def endless():
        while True:
            read.append(1)
            yield pictures(1)[0]

    stream = Reenactor(generator, method, 32, 4).frames(
        method.identify(torch.zeros(tiny.ROWS, 512), IMAGE), endless()
    )
    for i in range(1, 10):
        next(stream)
        assert len(read) <= 4 * -(-i // 4)


def test_targets_are_seen_as_the_generator_shows_them(generator):
    latent = torch.randn(tiny.ROWS, 512)
    made = Reenactor(generator, Bright(), 16).identify(latent)
    assert torch.equal(made.latent, latent)
    assert torch.equal(made.prepared, generator.synthesize(latent[None])[0].clamp(-1, 1))


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_rest_is_told_by_all_frames_that_are_shown(generator, n):
    class Resting(Bright):
        needs_rest = True

        def observe(self, frames):
            self.batches.append(len(frames))
            return frames.mean((2, 3))

        def rest(self, observed):
            return observed.amax(0)

    method, images = Resting(), pictures(n)
    found = Reenactor(generator, method, 32, 3).at_rest(list(images)).rest
    if n < 2:
        assert found is None  # nobody knows whether a single image rests
        return
    assert torch.equal(found, to_tensor(images).mean((2, 3)).amax(0))
    assert max(method.batches) <= 3
    assert Reenactor(generator, Bright(), 32, 3).at_rest(list(images)).rest is None  # it does not ask


def test_latents_go_with_their_frames(generator):
    method = Linear()
    identity = method.identify(torch.full((tiny.ROWS, 512), 0.1), IMAGE)
    latents, mean = torch.randn(5, tiny.ROWS, 512), torch.randn(tiny.ROWS, 512)
    out = Reenactor(generator, method, 32, 2).frames(identity, pictures(5), iter(latents), Driving(mean))
    assert np.abs(np.stack(list(out)).astype(int) - expected(generator, 0.1 + latents - mean)).max() <= 1


def test_missing_latents_are_noticed(generator):
    method = Linear()
    stream = Reenactor(generator, method, 32, 4).frames(
        method.identify(torch.zeros(tiny.ROWS, 512), IMAGE),
        pictures(4),
        [torch.zeros(tiny.ROWS, 512)],
        Driving(torch.zeros(tiny.ROWS, 512)),
    )
    with pytest.raises(ValueError, match="4 frames have 1 latents"):
        next(stream)


@pytest.mark.parametrize("resolution", [16, 20, 32, 64])
def test_resolution(generator, resolution):
    """Smaller frames show the full image, scaled down, whatever the generator has at that size."""
    made = Reenactor(generator, Bright(), resolution)
    assert made.decode_at == 32
    w_plus = torch.zeros(1, tiny.ROWS, 512)
    (image,) = made.decode(w_plus)
    assert (image.shape, image.dtype) == ((resolution, resolution, 3), np.uint8)
    if resolution == 16:
        full = generator.synthesize(w_plus)
        assert np.abs(to_image(F.avg_pool2d(full, 2))[0].astype(int) - image).max() <= 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_frames_of_another_precision_are_nearly_those_of_full(generator, precision):
    """What is stored has 8 (bfloat16) or 11 (float16) significant bits; a few layers add up."""
    w_plus = tiny.latents("fox-1", "fox", 3)
    images = Decoder(generator, 32, precision=precision).synthesize(w_plus)
    plain = generator.synthesize(w_plus)
    assert images.dtype == torch.float32
    error = float((images - plain).abs().mean()) / float(plain.std())
    assert (
        error == 0 if precision == "float32" else 0 < error < {"bfloat16": 0.02, "float16": 0.003}[precision]
    )


def test_motion_is_computed_in_full_precision(generator):
    class Told(Bright):
        def drive(self, identity, frames, latents=None, driving=None):
            assert not torch.is_autocast_enabled("cpu")
            return super().drive(identity, frames)

    told = Told()
    identity = told.identify(torch.zeros(tiny.ROWS, 512), IMAGE)
    made = Reenactor(generator, told, 32, precision="bfloat16").frames(identity, pictures(2))
    assert len(list(made)) == len(told.batches) + 1 == 2


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_a_compiled_generator_makes_the_same_frames(generator):
    w_plus = tiny.latents("fox-1", "fox", 2)
    made = np.stack(list(Decoder(generator, 32, compile=True).decode(w_plus)))
    assert np.abs(made.astype(int) - expected(generator, w_plus)).max() <= 1


def test_whatever_is_left_is_decoded_as_a_whole_batch_when_compiled(generator, monkeypatch):
    shapes = []

    def spy(network):
        def call(w_plus, **options):
            shapes.append(len(w_plus))
            return network(w_plus, **options) if options else network(w_plus)

        return call

    monkeypatch.setattr(torch, "compile", spy)
    decoder = Decoder(generator, 32, compile=True)
    assert shapes == [1, 1]  # whether it can be compiled, and what a compiler would see first
    monkeypatch.setattr(Decoder, "decode_batch", 4)
    w_plus = tiny.latents("fox-1", "fox", 6)
    made = np.stack(list(decoder.decode(w_plus)))
    assert shapes[2:] == [4, 4]
    assert np.abs(made.astype(int) - expected(generator, w_plus)).max() <= 1


def test_batches_that_a_gpus_memory_is_too_small_for_become_smaller(generator, monkeypatch):
    """A device that is a GPU by its name, and has memory for three images."""
    shapes = []

    def small(w_plus, **options):
        shapes.append(len(w_plus))
        if len(w_plus) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return type(generator).synthesize(generator, w_plus, **options)

    monkeypatch.setattr(generator, "synthesize", small)
    decoder, w_plus = Decoder(generator, 32, batch=8), tiny.latents("fox-1", "fox", 9)
    decoder.device = torch.device("cuda")
    monkeypatch.setattr(decoder, "_autocast", nullcontext)
    made = np.stack(list(decoder.decode(w_plus)))
    assert shapes == [8, 4, 2, 2, 2, 2, 1]
    assert np.abs(made.astype(int) - expected(generator, w_plus)).max() <= 1
    assert decoder.decode_batch == 2


def test_where_nothing_can_be_compiled(monkeypatch):
    def broken(network):
        def call(*_):
            raise RuntimeError("no compiler\nat all")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"(?s)--compile: torch.compile fails here \(no compiler\).*C\+\+"):
        compiled(torch.neg, torch.device("cpu"))


def test_inversion_in_batches():
    inverter = Inverter()
    w_plus = invert(inverter, pictures(7), batch=3)
    assert inverter.batches == [3, 3, 1]
    assert torch.allclose(w_plus[:, 0, 0], to_tensor(pictures(7)).mean((1, 2, 3)))


@pytest.mark.parametrize("n", [1, 5, 40])
def test_mean_latent_is_over_frames_and_mirror_images(n):
    """Left and right change places in the mirror images."""
    inverter, images = Inverter(), pictures(n)
    images[:, :, 16:] = 0
    latents = invert(inverter, images)
    inverter.batches.clear()
    mean = mean_latent(inverter, images, latents)
    assert sum(inverter.batches) == min(n, reenactment.FLIPS)
    bright, dark = latents[:, 0, 0].mean(), latents[:, 0, 1].mean()
    assert torch.allclose(mean, ((bright + dark) / 2).expand(tiny.ROWS, 512), atol=0.02)


def test_random_faces(generator):
    face = random_face(generator, 5, 32)
    assert (face.shape, face.dtype) == ((32, 32, 3), np.uint8)
    assert np.array_equal(face, random_face(generator, 5, 32))
    assert not np.array_equal(face, random_face(generator, 6, 32))
    assert random_face(generator, 5, 64).shape == (64, 64, 3)

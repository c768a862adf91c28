"""Fitting latents to images by gradient descent, from an encoder's guess.

An encoder that generalises from few faces finds a face like the one it is shown; the person is nearby in W+
and a few steps of descent find it (Zhu et al. 2016 call this hybrid inversion; losses as pSp's, Richardson et
al. 2021, Eq. 5). Worth its time for a target, which is inverted once, not for every frame of a video.

The guess is truncated first. An encoder's latents of unusual pictures lie far from those that the generator
was trained with; there a fit finds the picture all the same, but what it finds does not move like a face.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from remime.errors import shape_error
from remime.generators.base import Generator
from remime.images import fit
from remime.training.losses import ImageLosses

SIZE = 256  # height and width of the compared images
LEARNING_RATE = 0.03
_WARM_UP = 5  # steps until the full learning rate: Adam's first ones have no measure of the gradient yet
_L2, _LPIPS, _IDENTITY = 1.0, 0.8, 0.2
# Between any two people dlib's embeddings have a cosine above 0.9, where ArcFace's kind has about 0.
_IDENTITY_OF = {"dlib-resnet-id": 1.0}
IDENTITY = "edgeface-s"
TRUNCATION = 0.5  # chosen on validation people (docs/experiments.md)


def load_optimiser(
    generator: Generator,
    steps: int,
    identity: str = IDENTITY,
    device: str | torch.device = "cpu",
    truncation: float = TRUNCATION,
) -> LatentOptimiser:
    """An optimiser with its networks.

    Args:
        generator: see ``LatentOptimiser``.
        steps: of descent.
        identity: name of the identity network, which must not be the one that judges later. Its weight is
            0.2, for dlib's 1.
        device: the generator's.
        truncation: of the first guess.

    Raises:
        WeightsError: a network is missing.
    """
    losses = ImageLosses(identity).to(device)
    return LatentOptimiser(generator, losses, steps, _IDENTITY_OF.get(identity, _IDENTITY), truncation)


class LatentOptimiser:
    """Moves latents until the generator shows the images: Adam on L2, LPIPS and identity.

    Args:
        generator: decodes at 256² (or its next larger resolution); left as it is.
        losses: their networks.
        steps: of descent; 0 returns latents unchanged.
        identity: weight of the loss of identity (see ``load_optimiser``).
        truncation: the first guess is pulled towards the mean latent: 1 leaves it, 0 is the mean.
    """

    def __init__(
        self,
        generator: Generator,
        losses: ImageLosses,
        steps: int,
        identity: float = _IDENTITY,
        truncation: float = TRUNCATION,
    ) -> None:
        self.generator, self.losses, self.steps, self.identity = generator, losses, steps, identity
        self.truncation = truncation
        self._resolution = generator.decode_resolution(SIZE)

    @torch.inference_mode(False)
    @torch.enable_grad()
    def __call__(self, image: Tensor, latent: Tensor, update: Callable[[], None] = lambda: None) -> Tensor:
        """The latent W+ [rows, 512] of an image [3, R, R] in [-1, 1].

        Args:
            image: what to show.
            latent: the first guess [rows, 512].
            update: called after every step.

        Raises:
            ValueError: image or latent have another shape.
        """
        if latent.shape != (self.generator.rows, 512):
            raise shape_error("latent", f"[{self.generator.rows}, 512]", latent.shape)
        # A clone of an inference tensor made here is an ordinary one.
        wanted = fit(image.detach().clone()[None], SIZE)
        latent = latent.detach().clone()[None]
        if self.steps:
            latent = self.generator.truncate(latent, self.truncation)
        latent.requires_grad_()
        optimizer = torch.optim.Adam([latent], betas=(0.9, 0.99))
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * _schedule(step, self.steps)
            (gradient,) = torch.autograd.grad(self._loss(latent, wanted), latent)
            latent.grad = gradient
            optimizer.step()
            update()
        return latent.detach()[0]

    def _loss(self, latent: Tensor, wanted: Tensor) -> Tensor:
        shown = fit(self.generator.synthesize(latent, resolution=self._resolution), SIZE)
        return (
            _L2 * self.losses.l2(shown, wanted)
            + _LPIPS * self.losses.perceptual(shown, wanted)
            + self.identity * self.losses.same_person(shown, wanted)
        )


def _schedule(step: int, steps: int) -> float:
    """The share of the learning rate: a short rise, then half a cosine to 0."""
    return min(1.0, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2

"""Finding what closes lids: descent on a direction of W+, since generated faces hardly ever close their eyes.

A closed eye is the one expression that puppets need and a regression over generated faces cannot tell. The
mesh network is differentiable, so a direction can be asked for that closes the lids of any face, and changes
nothing else of it: a global direction by gradients, as StyleCLIP's (Patashnik et al. 2021, Sec. 5) is, with a
mesh where that has CLIP.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remime.errors import InputError
from remime.faces.mesh import BLENDSHAPES, POINTS, load_mesh
from remime.generators.base import Generator
from remime.images import fit
from remime.sources.directions import EYES, LIDS, ROWS, SHUT, Directions, to_tensors
from remime.training.generated import sample_latents
from remime.training.loop import Task, Updater
from remime.training.losses import ImageLosses
from remime.training.processes import Processes

SIZE = 256  # height and width of the frames that are compared
IDENTITY = "edgeface-s"  # in the loss; another network judges
MIXING, NOISE = 0.5, 0.15  # faces are spread about the generator's own as inversions of real ones are
# Points of the mesh: both eyes' contours, the lids around them, the irises.
_CONTOURS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
_AROUND = (
    *(247, 30, 29, 27, 28, 56, 190, 243, 112, 26, 22, 23, 24, 110, 25, 130),
    *(467, 260, 259, 257, 258, 286, 414, 463, 341, 256, 252, 253, 254, 339, 255, 359),
    *range(468, POINTS),
)
# Where lids close over the eye: along its contour's upper and lower edge, opposite points; and skin near by,
# the fold above and the bags below.
_UPPER = ((161, 160, 159, 158, 157), (388, 387, 386, 385, 384))
_LOWER = ((163, 144, 145, 153, 154), (390, 373, 374, 380, 381))
_SKIN = ((27, 28, 29, 118, 119, 120, 229, 230, 231), (257, 258, 259, 347, 348, 349, 449, 450, 451))
# Parts of the way down: skin, and where the line of lashes may lie.
_LID, _LINE = (0.15, 0.3, 0.45), (0.7, 0.85, 1.0)
# How far the mask reaches beyond an eye's contour, in its width: above, where lids fold, below and aside.
_ABOVE, _BELOW, _ASIDE = 0.45, 0.35, 0.25
# Per unit of eyeBlink, pixel² of all other points, LPIPS, 1 - cosine, squared values (twice), and 512 of the
# squared direction.
_WEIGHTS = {"closed": 4.0, "stays": 0.02, "lpips": 2.0, "id": 0.6, "skin": 2.0, "lashes": 6.0, "size": 0.002}
START = 8.0  # standard deviations of the regression's own direction, from which the descent starts
OPEN = 0.06  # eyeBlink of eyes that are wide open; of rendered heads it is 0.04
VALIDATION_FACES, VALIDATION_SEED = 16, 7_000_000


class _Closing(nn.Module):
    """Directions, of which those of the lids are learned.

    Args:
        directions: with lids, or without, which then start as the regression has them.
    """

    def __init__(self, directions: Directions) -> None:
        super().__init__()
        for name, array in to_tensors(replace(directions, lids=None)).items():
            self.register_buffer(name, torch.from_numpy(array.copy()))
        start = directions.lids
        if missing := [name for name in LIDS if name not in directions.names]:
            raise InputError(
                "directions", f"have no {missing[0]}", "fit them to more samples, whose lids move"
            )
        if start is None:
            start = START * sum(directions.steps[directions.column(name)] for name in LIDS)
        self.lids = nn.Parameter(torch.from_numpy(np.asarray(start, np.float32).copy()))
        self.register_buffer("moved", (torch.arange(ROWS) >= EYES).float()[:, None], persistent=False)

    def closing(self) -> Tensor:
        """What closes lids, [ROWS, 512]."""
        return self.lids * self.get_buffer("moved")

    def forward(self, w_plus: Tensor) -> Tensor:
        """Faces [B, rows, 512] with their eyes closed."""
        return w_plus + F.pad(self.closing(), (0, 0, 0, w_plus.shape[1] - ROWS))


class LidsTask(Task):
    """Find the direction that closes lids.

    Loss: how far eyeBlink stays below what it is when rendered heads shut their eyes, and a little more;
    squared steps of all points of the mesh but the eyes'; LPIPS of the picture but the eyes; identity; how
    far the lids' colour is from that of skin near by, without which they come out pale as eyeballs; how much
    paler their line of lashes is than the open eye's, without which a closed eye is no eye; the direction's
    own size.

    Args:
        generator: frozen.
        directions: that have none yet, or others.
        batch: faces per step, at least 2.
        learning_rate: Adam's.
        seed: of the faces.
        processes: those that train together.

    Raises:
        InputError: fewer faces, or the processes cannot share them evenly.
    """

    def __init__(
        self,
        generator: Generator,
        directions: Directions,
        batch: int,
        learning_rate: float,
        seed: int,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes()
        self.processes.check("batch", batch)
        if batch < 2:
            raise InputError("batch", f"is {batch}", "faces are spread as those of a batch; give at least 2")
        device = generator.mean_latent.device
        self.generator, self.size, self.seed = generator, batch, seed
        self.resolution = generator.decode_resolution(SIZE)
        self.mesh = load_mesh().to(device).requires_grad_(False)
        self.losses = ImageLosses(IDENTITY).to(device)
        self.module = self.closing = _Closing(directions).to(device)
        self.optimizers = {"main": torch.optim.Adam(self.module.parameters(), learning_rate, (0.9, 0.99))}
        self.blinks = [BLENDSHAPES.index(name) for name in LIDS]
        eyes = {*_CONTOURS[0], *_CONTOURS[1], *_AROUND}
        self.still = [point for point in range(POINTS) if point not in eyes]

    def batch(self, step: int) -> Tensor:
        """Latents [B,rows,512]."""
        return self._faces(self.size, self.seed + step)[self.processes.rows()]

    def _faces(self, count: int, seed: int) -> Tensor:
        latents = sample_latents(self.generator, count, seed, MIXING)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
        return latents + NOISE * latents.std(0).mean() * noise

    def _terms(self, w_plus: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The loss's terms for faces, and eyeBlink [B,2] when their eyes are closed."""
        with torch.no_grad():
            before = fit(self.generator.synthesize(w_plus, resolution=self.resolution), SIZE)
            seen = self.mesh(before)
            eyes = _around_eyes(seen.points, SIZE)
        after = fit(self.generator.synthesize(self.closing(w_plus), resolution=self.resolution), SIZE)
        found = self.mesh(after)
        blinks = found.blendshapes[:, self.blinks]
        steps = (found.points - seen.points)[:, self.still, :2]
        terms = {
            "closed": F.relu(OPEN + SHUT - blinks).mean(),
            "stays": steps.square().sum(2).mean(),
            "lpips": self.losses.perceptual(torch.lerp(after, before, eyes), before),
            "id": self.losses.same_person(after, before),
            **_off_colour(after, before, seen.points),
            "size": self.closing.closing().square().sum() / 512,
        }
        return terms, blinks

    def training_step(self, batch: Tensor, step: int, updater: Updater) -> dict[str, Any]:
        figures: dict[str, Any] = {"loss": 0.0}
        for face in batch.split(1):
            terms, _ = self._terms(face)
            loss = sum((_WEIGHTS[k] * v for k, v in terms.items()), torch.zeros((), device=face.device))
            updater.backward(loss / len(batch))
            for name, value in {"loss": loss, **terms}.items():
                figures[name] = figures.get(name, 0.0) + float(value.detach()) / len(batch)
        updater.step()
        return figures

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss over faces of its own, and the mean of eyeBlink when their eyes are closed."""
        figures = {"score": 0.0, "blink": 0.0}
        for face in self._faces(VALIDATION_FACES, VALIDATION_SEED).split(1):
            terms, blinks = self._terms(face)
            figures["score"] += sum(_WEIGHTS[k] * float(v) for k, v in terms.items()) / VALIDATION_FACES
            figures["blink"] += float(blinks.mean()) / VALIDATION_FACES
        return figures


def _off_colour(after: Tensor, before: Tensor, points: Tensor) -> dict[str, Tensor]:
    """Means of squares: how far lids that have closed differ from skin near them in `before`, and how much
    brighter their line of lashes is than that along the upper edge of the open eye.

    Args:
        after, before: [B,3,S,S].
        points: [B,478,3], of `before`, in pixels.
    """
    soft, sharp = ([_blur(image, side) for image in (after, before)] for side in (5, 3))
    plane, skins, lines = points[..., :2], [], []
    for upper, lower, skin in zip(_UPPER, _LOWER, _SKIN, strict=True):
        edges = plane[:, list(upper)], plane[:, list(lower)]
        lids = _sample(soft[0], torch.cat([torch.lerp(*edges, height) for height in _LID], 1))
        wanted = _sample(soft[1], plane[:, list(skin)]).median(2, keepdim=True).values
        skins.append((lids - wanted).square().sum(1).mean())
        closed = torch.stack([_sample(sharp[0], torch.lerp(*edges, height)).mean(1) for height in _LINE])
        line = _sample(sharp[1], edges[0]).mean(1)
        lines.append(F.relu(closed.amin(0) - line).square().mean())
    return {"skin": torch.stack(skins).mean(), "lashes": torch.stack(lines).mean()}


def _blur(images: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(images, side, stride=1, padding=side // 2, count_include_pad=False)


def _sample(images: Tensor, points: Tensor) -> Tensor:
    """Colours [B,3,n] of images [B,3,S,S] at points [B,n,2] in pixels, whose centres are integers."""
    grid = (points + 0.5) / images.shape[-1] * 2 - 1
    return F.grid_sample(images, grid[:, None], padding_mode="border", align_corners=False)[:, :, 0]


def _around_eyes(points: Tensor, side: int) -> Tensor:
    """A mask [B,1,side,side] that is 1 around the eyes, with soft edges, for points [B,478,3]."""
    mask = points.new_zeros(len(points), 1, side, side)
    for row, face in enumerate(points):
        for contour in _CONTOURS:
            low, high = face[list(contour), :2].aminmax(dim=0)
            width = high[0] - low[0]
            left, right = int(low[0] - _ASIDE * width), int(high[0] + _ASIDE * width)
            top, bottom = int(low[1] - _ABOVE * width), int(high[1] + _BELOW * width)
            mask[row, 0, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = 1
    return _blur(mask, 9)

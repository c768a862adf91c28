"""Motion directions in the generator's latent space: how the puppets move.

A ridge regression of W on what is measured on generated faces (head pose and blendshapes) gives, in closed
form, the average change of the latent per degree or coefficient. Added to the first rows of W+, it turns
heads and moves mouths of any identity; strong edits drift in identity. Expressions leave the coarsest rows
alone, which hold the head's shape and much of who somebody is: measured on eight faces, a smile loses a
twelfth of its size by that and keeps the identity's cosine at 0.95 instead of 0.88, a blink a sixth and 0.85
instead of 0.65 (docs/methods.md).

Eyes are open in nearly all generated faces, and the regression knows little of lids that close. What closes
them is found by descent instead (``remime.training.lids``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remime.errors import InputError
from remime.faces.mesh import BLENDSHAPES

if TYPE_CHECKING:
    from remime.models import Model

POSES = ("yaw", "pitch", "roll")
ROWS = 8  # W+ rows that are edited: 4² to 64²
EYES, _EXPRESSION = 4, 2  # the first rows that eyes, and brows and mouths, move
LIDS = ("eyeBlinkLeft", "eyeBlinkRight")
SHUT = 0.56  # by how much these rise while lids of rendered heads close (docs/datasets.md)
MIN_SPREAD = 0.02  # blendshapes that vary less than this over generated faces carry no direction


@dataclass(frozen=True)
class Directions:
    """A linear map from motion to offsets of W+ rows 0 … ROWS-1.

    Attributes:
        names: motion parameters: yaw, pitch, roll in degrees, then blendshapes.
        basis: [k, 512], the latent's change per standard deviation of a parameter.
        mean, spread: [k], of the parameters over generated faces.
        correlation: [k], between each parameter and its linear prediction from held-out latents.
        lids: [ROWS, 512], what closes open lids of both eyes, or None: as the regression has it.
    """

    names: tuple[str, ...]
    basis: NDArray[np.float32]
    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    correlation: NDArray[np.float32]
    lids: NDArray[np.float32] | None = None

    @property
    def steps(self) -> NDArray[np.float32]:
        """[k, ROWS, 512], the change of the rows per standard deviation of a parameter."""
        first = np.array([_first_row(name) for name in self.names])
        moved = np.arange(ROWS) >= first[:, None]
        steps = moved[:, :, None] * self.basis[:, None]
        if self.lids is not None:
            for column in (self.column(name) for name in LIDS if name in self.names):
                steps[column] = self.lids / len(LIDS) * self.spread[column] / SHUT
        return steps

    def offset(self, motion: NDArray[np.floating]) -> NDArray[np.float32]:
        """Offsets [n, ROWS, 512] for motions [n, k], given as differences in the parameters' own units."""
        return np.tensordot(motion / self.spread, self.steps, 1).astype(np.float32)

    def column(self, name: str) -> int:
        """The position of a parameter."""
        return self.names.index(name)


def _first_row(name: str) -> int:
    if name in POSES:
        return 0
    return EYES if name.startswith("eye") else _EXPRESSION


def fit_directions(
    latents: NDArray[np.floating], measured: NDArray[np.floating], ridge: float = 20.0
) -> Directions:
    """Fit directions to generated faces.

    Args:
        latents: [n, 512], W (of mixed samples the mean of the edited rows).
        measured: [n, 3 + 52], pose in degrees, then all blendshapes.
        ridge: added to the diagonal, in samples.
    """
    latents, measured = np.asarray(latents, np.float64), np.asarray(measured, np.float64)
    every = (*POSES, *BLENDSHAPES)
    wide = measured.std(0) > MIN_SPREAD
    wide[every.index("_neutral")] = False
    # Roll is fixed by the alignment: what is left of it is noise.
    wide[every.index("roll")] = False
    measured = measured[:, wide]
    mean, spread = measured.mean(0), measured.std(0)
    motion = (measured - mean) / spread
    centred = latents - latents.mean(0)
    basis = np.linalg.solve(motion.T @ motion + ridge * np.eye(motion.shape[1]), motion.T @ centred)
    return Directions(
        tuple(n for n, w in zip(every, wide, strict=True) if w),
        basis.astype(np.float32),
        mean.astype(np.float32),
        spread.astype(np.float32),
        _held_out(centred, motion).astype(np.float32),
    )


def _held_out(latents: NDArray[np.float64], motion: NDArray[np.float64], ridge: float = 100.0) -> NDArray:
    """How well each parameter is a linear function of the latent: correlation on the last fifth."""
    cut = len(latents) * 4 // 5
    train, test = latents[:cut], latents[cut:]
    weights = np.linalg.solve(train.T @ train + ridge * np.eye(train.shape[1]), train.T @ motion[:cut])
    predicted, actual = test @ weights, motion[cut:]
    predicted, actual = predicted - predicted.mean(0), actual - actual.mean(0)
    norm = np.sqrt((predicted**2).sum(0) * (actual**2).sum(0))
    return (predicted * actual).sum(0) / np.maximum(norm, 1e-12)


def to_tensors(directions: Directions) -> dict[str, Any]:
    """As named arrays and names, for a model file."""
    arrays = {
        "basis": directions.basis,
        "mean": directions.mean,
        "spread": directions.spread,
        "correlation": directions.correlation,
    }
    return arrays if directions.lids is None else arrays | {"lids": directions.lids}


def load_directions(name: str = "puppet-directions", generator: str | None = None) -> Directions:
    """The directions that the project ships.

    Args:
        name: of the model.
        generator: whose latent space they are needed for.

    Raises:
        InputError: the file is missing or another model, or belongs to another generator.
    """
    from remime.models import load_model, shipped

    model = load_model(shipped(name), "directions")
    if generator is not None and model.meta["generator"] != generator:
        raise InputError(
            name,
            f"holds directions for {model.meta['generator']!r}, none for {generator!r}",
            "puppets need directions of their own generator; use real clips with this one",
        )
    return of_model(model)


def of_model(model: Model) -> Directions:
    """The directions that a model file of that kind holds."""
    return Directions(tuple(model.meta["names"]), **{k: v.numpy() for k, v in model.tensors.items()})

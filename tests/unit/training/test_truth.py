"""What inversion takes: of a small made-up latent space, in which everything is known."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from remime.faces.mesh import BLENDSHAPES
from remime.sources.directions import ROWS, Directions
from remime.training.data import FaceUnits, Frames, Sample
from remime.training.truth import KINDS, closed_lids, lost_by_inversion

NAMES = ("yaw", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "jawOpen", "mouthSmileLeft")
UNITS = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "mouthSmileLeft")
COUNT, CLIPS, W_ROWS = 40, 3, ROWS + 2
SEEN = 0.6  # of a unit, by the mesh network


class Clips(Frames):
    """Clips of which units and latents are told."""

    def __init__(self, units: list[FaceUnits], latents: Any = ()) -> None:
        count = sum(len(u.where) for u in units)
        super().__init__([], [Sample("d", "s", i, i, "c", "i", "train") for i in range(count)])
        self.units, self.true = units, latents

    def face_units(self) -> Iterator[FaceUnits]:
        yield from self.units

    def true_latents(self) -> Iterator[tuple[list[int], torch.Tensor]]:
        yield from self.true


@pytest.fixture
def directions() -> Directions:
    source = np.random.default_rng(0)
    basis = source.standard_normal((len(NAMES), 512)).astype(np.float32)
    basis[NAMES.index("jawOpen")] += basis[NAMES.index("yaw")]  # as of real ones, none stands alone
    spread = source.uniform(0.05, 0.3, len(NAMES)).astype(np.float32)
    lids = source.standard_normal((ROWS, 512)).astype(np.float32)
    return Directions(NAMES, basis, np.zeros_like(spread), spread, np.ones_like(spread), lids)


@pytest.fixture
def heads() -> Clips:
    source = torch.Generator().manual_seed(1)
    values = torch.rand(CLIPS * COUNT, len(UNITS), generator=source)
    parts = [list(range(i * COUNT, (i + 1) * COUNT)) for i in range(CLIPS)]
    return Clips([FaceUnits(where, values[where], UNITS) for where in parts])


def all_units(heads: Clips) -> torch.Tensor:
    return torch.cat([units.values for units in heads.units])


def seen(heads: Clips) -> torch.Tensor:
    """Blendshapes of the mesh, which sees a part of each unit, and its own rest."""
    shapes = torch.full((len(heads), len(BLENDSHAPES)), 0.1)
    for name in UNITS:
        shapes[:, BLENDSHAPES.index(name)] += SEEN * all_units(heads)[:, UNITS.index(name)]
    return shapes


def inversions(heads: Clips, directions: Directions, kept: float) -> torch.Tensor:
    """Latents of people who turn, move brows, and open jaws and smile by a part of what is seen."""
    turning = torch.sin(torch.arange(len(heads)) / 3)
    motion = torch.zeros(len(heads), len(NAMES))
    motion[:, 0], motion[:, 3] = turning, 0.5 * turning.flip(0)
    for name in ("jawOpen", "mouthSmileLeft"):
        column = directions.column(name)
        motion[:, column] = kept * SEEN * all_units(heads)[:, UNITS.index(name)] / directions.spread[column]
    latents = torch.zeros(len(heads), W_ROWS, 512)
    latents[:, :ROWS] = torch.tensordot(motion, torch.from_numpy(directions.steps), 1)
    for number, units in enumerate(heads.units):
        latents[units.where] += number + 1  # another person
    return latents


def changes(values: torch.Tensor, heads: Clips) -> torch.Tensor:
    """What remains when every clip's offset is left out."""
    return torch.cat([values[units.where] - values[units.where].mean(0) for units in heads.units])


def test_mouths_move_as_the_mesh_sees_their_units(heads, directions):
    """Of which an inversion keeps a part; all else is the inversion's."""
    half = inversions(heads, directions, 0.4)
    lost = lost_by_inversion(heads, half, seen(heads), directions, ["mouth"])
    whole = inversions(heads, directions, 1.0)
    # The ridge, 1 beside the 10 squared units of 120 moments, takes a tenth of what is wanted, and so 0.15
    # of the six tenths that are lost.
    wanted, found = changes(whole - half, heads), changes(lost.float(), heads)
    assert float(found.std()) == pytest.approx(float(wanted.std()), rel=0.2)
    similarity = torch.nn.functional.cosine_similarity(wanted.flatten(1), found.flatten(1), dim=1)
    assert similarity.min() > 0.97


def test_what_an_inversion_shows_beside_the_units_is_taken_back(heads, directions):
    """Jaws that no unit opens are noise of the inversion."""
    still = Clips([FaceUnits(u.where, torch.zeros_like(u.values), u.names) for u in heads.units])
    restless = inversions(heads, directions, 1.0)
    lost = lost_by_inversion(still, restless, seen(still), directions, ["mouth"])
    quiet = inversions(still, directions, 1.0)
    assert torch.allclose(changes(restless + lost.float(), heads), changes(quiet, heads), atol=0.05)


def test_lids_close_as_far_as_they_do(heads, directions):
    latents = inversions(heads, directions, 1.0)
    lost = lost_by_inversion(heads, latents, None, directions, KINDS)
    closing = torch.zeros(W_ROWS, 512)
    closing[:ROWS] = torch.from_numpy(directions.lids)
    closed = torch.cat([closed_lids(units) for units in heads.units])
    along = ((latents + lost.float()).flatten(1) @ closing.flatten()) / closing.square().sum()
    assert along.tolist() == pytest.approx(closed.tolist(), abs=5e-3)  # half precision
    # Nobody looked, so nothing is known of mouths.
    beside = lost.float() - torch.tensordot(
        (lost.float() * closing).sum((1, 2)) / closing.square().sum(), closing, 0
    )
    assert beside.abs().max() < 5e-3


def test_lids_follow_eyes_that_look_down():
    units = FaceUnits(
        [0, 1, 2], torch.tensor([[0.0, 0.4, 0.6, 0, 0, 1], [0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 1, 0]]), UNITS
    )
    assert closed_lids(units).tolist() == pytest.approx([0.5, 0.5, 1.0])


def test_kinds_are_added(heads, directions):
    latents, shapes = inversions(heads, directions, 0.4), seen(heads)
    parts = [lost_by_inversion(heads, latents, shapes, directions, [kind]) for kind in KINDS[1:]]
    both = lost_by_inversion(heads, latents, shapes, directions, KINDS)
    assert torch.allclose(both.float(), sum(part.float() for part in parts), atol=0.02)  # rounded once more


def test_true_latents_of_generated_people(heads, directions):
    latents = inversions(heads, directions, 1.0)
    true = latents[:COUNT] + 1
    generated = Clips(heads.units, [(list(range(COUNT)), true)])
    generated.units = []
    lost = lost_by_inversion(generated, latents, None, directions, KINDS)
    assert torch.equal(lost[:COUNT].float(), (true - latents[:COUNT]).half().float())
    assert lost[COUNT:].abs().max() == 0


@pytest.mark.parametrize("without", ["directions", "units", "kinds"])
def test_nothing_is_known(heads, directions, without):
    frames = Clips([]) if without == "units" else heads
    found = lost_by_inversion(
        frames,
        inversions(heads, directions, 1.0),
        seen(heads),
        None if without == "directions" else directions,
        ["latents"] if without == "kinds" else KINDS,
    )
    assert found is None

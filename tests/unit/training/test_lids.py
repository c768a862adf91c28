"""What closes lids is found by descent on a tiny generator, and nothing but the eyes' rows moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from remime.errors import InputError
from remime.faces.mesh import BLENDSHAPES, POINTS
from remime.sources.directions import EYES, LIDS, ROWS, Directions
from remime.training import lids
from remime.training.lids import START, LidsTask
from remime.training.loop import LoopOptions, Updater, train
from remime.training.processes import Processes
from tests import tiny


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(lids, "load_mesh", tiny.Mesh)
    monkeypatch.setattr(lids, "ImageLosses", tiny.Losses)
    monkeypatch.setattr(lids, "SIZE", 32)


@pytest.fixture(scope="module")
def directions():
    names = ("yaw", *BLENDSHAPES[1:])
    count = len(names)
    basis = 0.02 * np.random.default_rng(0).standard_normal((count, 512)).astype(np.float32)
    ones = np.ones(count, np.float32)
    return Directions(names, basis, 0 * ones, 0.1 * ones, ones)


@pytest.fixture
def made(directions):
    def make(batch=2, seed=0, processes=None, learning_rate=0.02):
        return LidsTask(tiny.generator(), directions, batch, learning_rate, seed, processes)

    return make


def test_it_starts_from_the_regression_and_leaves_coarse_rows_alone(made, directions):
    task = made()
    faces = torch.zeros(1, tiny.ROWS, 512)
    closed = task.closing(faces)[0].detach().numpy()
    expected = START * sum(directions.basis[directions.column(name)] for name in LIDS)
    np.testing.assert_allclose(closed[EYES:ROWS], np.tile(expected, (ROWS - EYES, 1)), rtol=1e-5)
    assert not closed[:EYES].any()


def test_descent_closes_them(made, directions, tmp_path):
    """The loss falls, the file that comes out has the regression as it was, and coarse rows stay put."""
    options = LoopOptions(25, validate_every=25, clip=0.0, keep="last")
    result = train(made(), options, tmp_path, "lids")
    first, last = (r["value"] for r in result.history if (r["split"], r["name"]) == ("val", "score"))
    assert last < 0.9 * first
    found = Directions(directions.names, **{k: v.numpy() for k, v in result.tensors.items()})
    np.testing.assert_array_equal(found.basis, directions.basis)
    assert found.lids is not None
    assert found.lids.shape == (ROWS, 512)
    assert not found.lids[:EYES].any()
    # From there it goes on.
    again = LidsTask(tiny.generator(), found, 2, 0.02, 0)
    assert again.validate()["score"] == pytest.approx(last, rel=1e-3)


def test_the_loss_by_hand(made):
    task = made()
    face = task.batch(3)[:1]
    with torch.no_grad():
        terms, blinks = task._terms(face)
        before, after = (task.generator.synthesize(w) for w in (face, task.closing(face)))
        seen, found = task.mesh(before), task.mesh(after)
    chosen = [BLENDSHAPES.index(name) for name in LIDS]
    assert torch.allclose(blinks, found.blendshapes[:, chosen])
    assert float(terms["closed"]) == pytest.approx(float((0.62 - blinks).clamp(min=0).mean()), abs=1e-6)
    steps = (found.points - seen.points)[0, :, :2].square().sum(1)
    # 64 points around the eyes and ten on the irises may move.
    assert len(task.still) == POINTS - 64 - 10
    assert float(terms["stays"]) == pytest.approx(float(steps[task.still].mean()), rel=1e-4)
    mask = lids._around_eyes(seen.points, 32)
    kept = after * (1 - mask) + before * mask
    assert 0 < float(mask.mean()) < 1
    assert float(terms["lpips"]) == pytest.approx(float(tiny.Losses().perceptual(kept, before)), rel=1e-4)
    assert float(terms["id"]) == pytest.approx(float(tiny.Losses().same_person(after, before)), rel=1e-4)
    colour = lids._off_colour(after, before, seen.points)
    for name in ("skin", "lashes"):
        assert float(terms[name]) == pytest.approx(float(colour[name]), rel=1e-4)
    size = sum(float(row.square().sum()) for row in task.closing.lids.detach()[EYES:]) / 512
    assert float(terms["size"]) == pytest.approx(size, rel=1e-5)
    figures = task.training_step(face, 0, Updater(task, LoopOptions(1, clip=0.0), torch.Tensor.backward))
    weighted = {"closed": 4, "stays": 0.02, "lpips": 2, "id": 0.6, "skin": 2, "lashes": 6, "size": 0.002}
    expected = sum(weight * float(terms[name]) for name, weight in weighted.items())
    assert figures["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["closed", "stays", "lpips", "id", "skin", "lashes", "size"])
def test_all_terms_teach(made, name):
    task = made()
    terms, _ = task._terms(task.batch(3))
    (gradient,) = torch.autograd.grad(terms[name], task.closing.lids)
    assert gradient[EYES:].abs().max() > 0
    assert not gradient[:EYES].any()


def test_directions_without_lids_are_refused(directions):
    few = replace(directions, names=tuple("other" if n == LIDS[1] else n for n in directions.names))
    with pytest.raises(InputError, match="directions: have no eyeBlinkRight"):
        LidsTask(tiny.generator(), few, 2, 0.01, 0)


def test_mask_lies_around_the_eyes():
    """In a frame of 256 pixels an eye 20 pixels wide is covered by half its width more above, less below."""
    points = torch.full((1, POINTS, 3), 500.0)  # all else lies outside
    for contour, left in zip(lids._CONTOURS, (70.0, 160.0), strict=True):
        for i, point in enumerate(contour):
            points[0, point] = torch.tensor([left + 20 * i / 15, 120 + 4 * (i % 2), 0.0])
    mask = lids._around_eyes(points, 256)[0, 0]
    assert mask.shape == (256, 256)
    for left in (70, 160):
        assert mask[122, left + 10] == 1
        assert mask[116, left + 10] == 1
        assert mask[100, left + 10] == 0
        assert mask[140, left + 10] == 0
    assert mask[122, 125] == 0
    assert 0 < float(mask.mean()) < 0.05
    assert not lids._around_eyes(points - 1000, 256).any()


@pytest.fixture
def eyes():
    """Points of a mesh, [1,478,3], whose eyes are open between y = 20 and 40, skin at 50, hair at 5."""
    points = torch.full((1, POINTS, 3), 60.0)
    for eye, left in enumerate((10.0, 34.0)):
        for i, (upper, lower) in enumerate(zip(lids._UPPER[eye], lids._LOWER[eye], strict=True)):
            points[0, upper] = torch.tensor([left + 2 * i, 20.0, 0.0])
            points[0, lower] = torch.tensor([left + 2 * i, 40.0, 0.0])
        for i, skin in enumerate(lids._SKIN[eye]):
            points[0, skin] = torch.tensor([left + i, 50.0 if i < 7 else 5.0, 0.0])
    return points


def test_lids_are_compared_with_skin_near_by(eyes):
    """Pale lids on darker skin; lashes, and hair where two of nine points fell, do not count."""
    before = torch.full((1, 3, 64, 64), 0.1)
    before[:, :, :10] = -1.0
    after = before.clone()
    after[:, :, 18:32] = torch.tensor([0.4, 0.1, 0.2])[:, None, None]
    after[:, :, 34:] = -0.9
    assert float(lids._off_colour(after, before, eyes)["skin"]) == pytest.approx(0.3**2 + 0.1**2, abs=1e-6)
    after[:, :, 18:32, 30:] = 0.1
    assert float(lids._off_colour(after, before, eyes)["skin"]) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("at", "bright", "expected"), [(37, -0.5, 0.09), (34, -0.5, 0.09), (37, -0.9, 0), (27, -0.5, 0.81)]
)
def test_lashes_are_a_line_below(eyes, at, bright, expected):
    """As dark as that of the open eye, anywhere near its lower edge; nowhere else."""
    before, after = torch.full((2, 1, 3, 64, 64), 0.1)
    before[:, :, 19:22] = -0.8
    after[:, :, at - 1 : at + 2] = bright
    assert float(lids._off_colour(after, before, eyes)["lashes"]) == pytest.approx(expected, abs=1e-6)


def test_samples_follow_from_the_step_and_are_shared(made):
    assert torch.equal(made().batch(3), made().batch(3))
    assert not torch.equal(made().batch(3), made().batch(4))
    shares = [made(processes=Processes(rank, 2)).batch(3) for rank in (0, 1)]
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), made().batch(3))
    with pytest.raises(InputError, match="batch: 3 rows"):
        made(batch=3, processes=Processes(0, 2))
    with pytest.raises(InputError, match="batch: is 1"):
        made(batch=1)

"""Motion directions: a planted linear map is found again, what carries no direction is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from remime.errors import InputError
from remime.faces.mesh import BLENDSHAPES
from remime.models import save_model
from remime.sources.directions import (
    EYES,
    LIDS,
    MIN_SPREAD,
    POSES,
    ROWS,
    SHUT,
    fit_directions,
    load_directions,
    to_tensors,
)

NAMES = (*POSES, *BLENDSHAPES)
MOVING = ("yaw", "pitch", "jawOpen", "mouthSmileLeft", "eyeBlinkLeft")
SPREAD = {"yaw": 12.0, "pitch": 7.0, "roll": 2.0, "jawOpen": 0.2, "mouthSmileLeft": 0.3, "eyeBlinkLeft": 0.1}


@pytest.fixture(scope="module")
def planted():
    """Latents [n, 512] that follow measured motion [n, 55] through a known basis [5, 512], with noise."""
    rng = np.random.default_rng(0)
    measured = np.zeros((4000, len(NAMES)))
    for name, spread in SPREAD.items():
        measured[:, NAMES.index(name)] = 0.5 + spread * rng.standard_normal(4000)
    measured[:, NAMES.index("_neutral")] = rng.standard_normal(4000)
    measured[:, NAMES.index("cheekPuff")] = 0.5 * MIN_SPREAD * rng.standard_normal(4000)
    measured[:, NAMES.index("mouthLeft")] = rng.standard_normal(4000)
    basis = rng.standard_normal((5, 512)) * 0.3
    motion = (measured[:, [NAMES.index(n) for n in MOVING]] - 0.5) / [SPREAD[n] for n in MOVING]
    latents = 2 + motion @ basis + 0.1 * rng.standard_normal((4000, 512))
    return latents, measured, basis


@pytest.fixture(scope="module")
def directions(planted):
    return fit_directions(planted[0], planted[1])


def test_planted_map_is_recovered(planted, directions):
    for name, basis in zip(MOVING, planted[2], strict=True):
        found = directions.basis[directions.column(name)]
        assert np.corrcoef(found, basis)[0, 1] > 0.995
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(basis), rel=0.05)
        assert directions.spread[directions.column(name)] == pytest.approx(SPREAD[name], rel=0.05)
        assert directions.mean[directions.column(name)] == pytest.approx(
            0.5, abs=3 * SPREAD[name] / 4000**0.5
        )


def test_what_carries_no_direction_is_left_out(directions):
    assert directions.names == tuple(n for n in NAMES if n in (*MOVING, "mouthLeft"))
    assert directions.basis.shape == (6, 512)
    assert np.linalg.norm(directions.basis[directions.column("mouthLeft")]) < 0.1


def test_correlation_tells_what_the_latent_knows(directions):
    known = {name: directions.correlation[directions.column(name)] for name in directions.names}
    assert all(known[name] > 0.95 for name in MOVING)
    assert abs(known["mouthLeft"]) < 0.15


def test_offsets_are_in_the_parameters_own_units(planted, directions):
    motion = np.zeros((2, len(directions.names)))
    motion[0, directions.column("yaw")] = 12.0
    motion[1, directions.column("yaw")] = 6.0
    motion[1, directions.column("jawOpen")] = 0.2
    offsets = directions.offset(motion)
    assert (offsets.shape, offsets.dtype) == ((2, ROWS, 512), np.float32)
    assert all(np.corrcoef(row, planted[2][0])[0, 1] > 0.99 for row in offsets[0])
    jaw = (
        directions.basis[directions.column("jawOpen")] * 0.2 / directions.spread[directions.column("jawOpen")]
    )
    np.testing.assert_allclose(offsets[1, 2:], offsets[0, 2:] / 2 + jaw, atol=1e-5)


def test_expressions_leave_coarse_rows_alone(directions):
    """Head pose moves all rows, mouths those from the third on, eyes those from the fifth on."""
    motion = np.diag(directions.spread)
    moved = np.abs(directions.offset(motion)).max(2) > 0
    for name, first in (("yaw", 0), ("jawOpen", 2), ("mouthSmileLeft", 2), ("eyeBlinkLeft", 4)):
        assert moved[directions.column(name)].tolist() == [row >= first for row in range(ROWS)]


def test_lids_close_by_their_own_direction(planted, directions):
    """Both eyes together, when both move by what closed eyes measure; all else is as before."""
    measured = planted[1].copy()
    measured[:, NAMES.index("eyeBlinkRight")] = 0.5 + 0.05 * np.random.default_rng(3).standard_normal(4000)
    plain = fit_directions(planted[0], measured)
    lids = np.zeros((ROWS, 512), np.float32)
    lids[EYES:] = 3.0
    closing = replace(plain, lids=lids)
    motion = np.zeros((1, len(plain.names)))
    for name in LIDS:
        motion[0, plain.column(name)] = SHUT
    np.testing.assert_allclose(closing.offset(motion)[0], lids, rtol=1e-5)
    others = [plain.column(n) for n in plain.names if n not in LIDS]
    assert np.array_equal(closing.steps[others], plain.steps[others])


def test_ridge_shrinks(planted):
    few = [fit_directions(planted[0][:60], planted[1][:60], ridge=r) for r in (0.0, 20.0)]
    assert np.linalg.norm(few[1].basis) < np.linalg.norm(few[0].basis)


@pytest.mark.parametrize("lids", [None, np.ones((ROWS, 512), np.float32)])
def test_file_gives_the_same_directions(directions, tmp_path, monkeypatch, lids):
    directions = replace(directions, lids=lids)
    monkeypatch.setenv("REMIME_MODELS", str(tmp_path))
    tensors = {k: torch.from_numpy(v) for k, v in to_tensors(directions).items()}
    save_model(
        tmp_path / "mine.safetensors", tensors, {"kind": "directions", "names": list(directions.names)}
    )
    loaded = load_directions("mine")
    assert loaded.names == directions.names
    for field in ("basis", "mean", "spread", "correlation", "lids"):
        assert np.array_equal(getattr(loaded, field), getattr(directions, field))


def test_shipped_directions_move_what_they_should():
    """The figures of the design: what a linear function of the latent knows of unseen faces."""
    shipped = load_directions()
    known = dict(zip(shipped.names, shipped.correlation, strict=True))
    assert known["yaw"] > 0.9
    assert min(known[n] for n in ("pitch", "mouthSmileLeft", "jawOpen", "eyeBlinkLeft")) > 0.5
    assert shipped.basis.shape == (len(shipped.names), 512)


def test_missing_file():
    with pytest.raises(InputError, match="none of"):
        load_directions("no such directions")

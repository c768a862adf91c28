"""Takes: person, motion and scene are independent of each other."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from remime.heads import take as takes
from remime.heads.assets import WEIGHTS
from remime.heads.take import Take, answer, motion_of, render, scene_of
from tests import heads

TAKE = Take(identity=1, motion=2, scene=3, frames=3, fps=25, size=48, max_yaw=30, max_pitch=12)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(takes, "load_kit", heads.kit)
    takes.figure_of.cache_clear()
    yield
    takes.figure_of.cache_clear()


def test_frames_are_the_same_again():
    first, again = list(render(TAKE)), list(render(TAKE))
    assert len(first) == 3
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.labels, two.labels)
        assert np.array_equal(one.landmarks, two.landmarks)
    assert not np.array_equal(first[0].image, first[1].image)


def test_motion_and_scene_do_not_depend_on_the_person():
    other = replace(TAKE, identity=9)
    assert np.array_equal(motion_of(other).coefficients, motion_of(TAKE).coefficients)
    assert np.array_equal(motion_of(other).pose, motion_of(TAKE).pose)
    assert scene_of(other) == scene_of(TAKE)
    assert scene_of(replace(TAKE, motion=9)) == scene_of(TAKE)
    assert not np.array_equal(motion_of(replace(TAKE, motion=9)).pose, motion_of(TAKE).pose)
    assert scene_of(replace(TAKE, scene=9)) != scene_of(TAKE)


def test_the_answer_is_another_person_in_the_same_take():
    """The background, the camera and the noise are those of the driving clip."""
    own, other = list(render(TAKE)), list(answer(TAKE, 5))
    direct = list(render(replace(TAKE, identity=5)))
    for mine, theirs, wanted in zip(own, other, direct, strict=True):
        assert np.array_equal(theirs.image, wanted.image)
        behind = (mine.labels == 0) & (theirs.labels == 0)
        behind[1:] &= behind[:-1]
        corner = np.zeros_like(behind)
        corner[:6, :6] = True
        assert np.array_equal(mine.image[corner & behind], theirs.image[corner & behind])
        assert not np.array_equal(mine.image, theirs.image)
    assert next(answer(TAKE, TAKE.identity)).image.tobytes() == own[0].image.tobytes()


def test_noise_is_that_of_the_frame():
    quiet = next(seed for seed in range(50) if scene_of(replace(TAKE, scene=seed)).noise > 1.5)
    frames = [frame.image.astype(int) for frame in render(replace(TAKE, scene=quiet))]
    assert np.abs(frames[0][:4, :4] - frames[1][:4, :4]).max() > 0


def test_chosen_frames_are_those_of_the_whole_clip():
    whole, some = list(answer(TAKE, 5)), list(answer(TAKE, 5, [2, 0]))
    assert [frame.image.tobytes() for frame in some] == [whole[2].image.tobytes(), whole[0].image.tobytes()]


_REAL = """
import hashlib
from remime.heads.take import Take, render
(frame,) = render(Take(3, 3, 3, 4, 25.0, 96, 30.0, 15.0), [2])
parts = (frame.image, frame.labels, frame.landmarks, frame.visible)
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


@pytest.mark.weights
def test_a_real_head_has_the_same_bytes_in_every_process(weights):
    for name in WEIGHTS:
        weights(name)
    root = Path(__file__).resolve().parents[3]
    path = os.pathsep.join([str(root), *sys.path])
    said = [
        subprocess.run(
            [sys.executable, "-c", _REAL],
            cwd=root,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for count in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0].strip()) == 64

"""Rendered heads, as networks that never saw one see them."""

import numpy as np
import pytest

from tests.parity.benchmark_heads import GROUPS, Judge, measured, takes

NETWORKS = ("dlib-landmarks-68", "face-mesh", "blendshapes", "hopenet-lite", "sface")
ASSETS = ("head-anatomy", "head-parts")
PEOPLE, FRAMES = 24, 4

pytestmark = [pytest.mark.weights, pytest.mark.slow]


@pytest.fixture(scope="module")
def frames(weights):
    for name in (*NETWORKS, *ASSETS):
        weights(name)
    judge = Judge()
    return [frame for take in takes(PEOPLE, FRAMES, 35.0, 256) for frame in measured(take, judge)]


def test_dlib_finds_every_face(frames):
    """Over 100 people and 1,200 frames, too (docs/datasets.md)."""
    assert len(frames) == PEOPLE * FRAMES
    assert all(frame.error is not None for frame in frames)


@pytest.mark.parametrize(
    ("group", "most"), [("eyes", 0.05), ("nose", 0.06), ("mouth", 0.08), ("brows", 0.08)]
)
def test_dlib_finds_the_true_landmarks(frames, group, most):
    """In distances between the eyes; over 100 people the medians are 0.03, 0.04, 0.06 and 0.05."""
    errors = np.stack([frame.error[slice(*GROUPS[group])] for frame in frames])
    assert np.median(errors) < most


def test_a_person_is_nearer_to_herself_than_to_anybody_else(frames):
    """SFace's cosine: 0.88 and 0.39 over 100 people."""
    vectors = np.stack([frame.vector for frame in frames]).reshape(PEOPLE, FRAMES, -1)
    cosine = np.einsum("aik,bjk->abij", vectors, vectors)
    same = cosine[range(PEOPLE), range(PEOPLE)][:, *np.triu_indices(FRAMES, 1)]
    others = cosine[np.triu_indices(PEOPLE, 1)]
    assert same.mean() > 0.8
    assert others.mean() < 0.5

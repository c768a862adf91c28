"""Renderings: the same bytes every time, and landmarks where an independent projection has them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from remime.heads.identity import sample
from remime.heads.renderer import LABELS, Camera, Figure, Renderer
from remime.heads.scene import sample as sample_scene
from remime.heads.sheet import pose
from tests import heads

KIT = heads.kit()
WHO = replace(sample(0, KIT), hair="hair-short01")
SCENE = sample_scene(1)
TALKS = pose((20, 5, -4), (8, 3), jawOpen=0.7)

_SCRIPT = """
import hashlib
from tests.unit.heads.test_renderer import KIT, SCENE, TALKS, WHO, Figure, Renderer, digest
print(digest(Renderer(96).render(Figure(KIT, WHO), TALKS, SCENE)))
"""


def digest(rendered):
    parts = (rendered.image, rendered.labels, rendered.landmarks, rendered.visible)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


@pytest.fixture(scope="module")
def figure():
    return Figure(KIT, WHO)


def test_what_comes_out(figure):
    rendered = Renderer(96).render(figure, TALKS, SCENE)
    assert (rendered.image.shape, rendered.image.dtype) == ((96, 96, 3), np.uint8)
    assert (rendered.labels.shape, rendered.labels.dtype) == ((96, 96), np.uint8)
    assert (rendered.landmarks.shape, rendered.visible.shape) == ((68, 2), (68,))
    assert rendered.image.std() > 20


def test_bytes_are_the_same_again(figure):
    """Also after another frame, in another renderer, of a person that was built anew."""
    renderer = Renderer(96)
    first = digest(renderer.render(figure, TALKS, SCENE))
    assert digest(renderer.render(figure, pose(), sample_scene(2))) != first
    assert digest(renderer.render(figure, TALKS, SCENE)) == first
    assert digest(Renderer(96).render(Figure(KIT, WHO), TALKS, SCENE)) == first


@pytest.mark.parametrize("threads", ["1", "2"])
def test_bytes_are_the_same_in_another_process(figure, threads):
    root = Path(__file__).resolve().parents[3]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, threads)}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], cwd=root, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == digest(Renderer(96).render(figure, TALKS, SCENE))


@pytest.mark.parametrize("size", [64, 96])
def test_landmarks_are_projected_vertices(figure, size):
    """By matrices in homogeneous coordinates: 3 × 4 camera, pixel centres at integers."""
    rendered = Renderer(size).render(figure, TALKS, SCENE)
    vertices = figure.shape.posed(TALKS)[figure.landmarks].astype(float)
    focal = size * SCENE.distance / SCENE.span
    right, down = SCENE.shift
    inner = np.array([[focal, 0, size / 2 - 0.5], [0, focal, size / 2 - 0.5], [0, 0, 1]])
    outer = np.array([[1, 0, 0, -right], [0, -1, 0, -down], [0, 0, -1, SCENE.distance]])
    seen = inner @ outer @ np.column_stack([vertices, np.ones(68)]).T
    np.testing.assert_allclose(rendered.landmarks, (seen[:2] / seen[2]).T, atol=1e-3)


def test_a_camera_shows_its_span():
    camera = Camera.of(SCENE, 100)
    right, down = SCENE.shift
    edges = np.array([[right - SCENE.span / 2, -down, 0], [right, -down + SCENE.span / 2, 0]], np.float32)
    np.testing.assert_allclose(
        camera.project(edges), [[0, 50, SCENE.distance], [50, 0, SCENE.distance]], atol=1e-4
    )


def test_labels_are_where_things_are(figure):
    rendered = Renderer(96).render(figure, pose(), SCENE)

    def of(name):
        return rendered.labels == LABELS.index(name)

    rows = {name: np.nonzero(of(name))[0].mean() for name in ("hair", "eyes", "skin", "clothes")}
    assert rows["hair"] < rows["eyes"] < rows["skin"] < rows["clothes"]
    assert of("background")[0, 0]
    assert of("eyes")[:, :48].any() == of("eyes")[:, 48:].any() == True  # noqa: E712
    assert set(np.unique(rendered.labels)) <= set(range(len(LABELS)))


def test_what_is_turned_away_is_hidden(figure):
    """On a ball: landmarks whose vertex is on the far side are hidden, the nearest ones are not."""
    rendered = Renderer(96).render(figure, pose(), SCENE)
    depth = figure.shape.posed(pose())[figure.landmarks, 2]
    inside = ((rendered.landmarks > 0) & (rendered.landmarks < 95)).all(1)
    assert not rendered.visible[depth < -1.2].any()
    assert not rendered.visible[~((rendered.landmarks > -0.5) & (rendered.landmarks < 95.5)).all(1)].any()
    assert inside.any()


def test_light_comes_from_the_key_light(figure):
    dark = (0.0, 0.0, 0.0)
    sides = {}
    for azimuth in (-60.0, 60.0):
        key = replace(SCENE.lights[0], azimuth=azimuth, elevation=0.0)
        fill, rim = (replace(light, colour=dark) for light in SCENE.lights[1:])
        scene = replace(SCENE, lights=(key, fill, rim), sky=dark, ground=dark, shift=(0.0, 0.3))
        rendered = Renderer(96).render(figure, pose(), scene)
        skin = rendered.labels == LABELS.index("skin")
        left, right = (
            rendered.image[:, half][skin[:, half]].mean() for half in (slice(0, 48), slice(48, 96))
        )
        sides[azimuth] = right - left
    assert sides[-60.0] < -20
    assert sides[60.0] > 20


def test_hair_is_see_through(figure):
    """Half-transparent cards before a lighter background mix both."""
    bald = Figure(KIT, replace(WHO, hair=""))
    with_hair, without = (Renderer(96).render(who, pose(), SCENE) for who in (figure, bald))
    hair = with_hair.labels == LABELS.index("hair")
    assert hair.sum() > 50
    assert (without.labels != LABELS.index("hair")).all()
    assert np.abs(with_hair.image[hair].astype(int) - without.image[hair]).mean() > 5

"""Scenes: lights, background, camera, noise."""

from __future__ import annotations

import numpy as np
import pytest

from remime.errors import InputError
from remime.heads.scene import Light, Scene, backdrop, sample, sensor

MANY = [sample(seed) for seed in range(100)]


def test_a_scene_follows_from_its_seed():
    assert sample(3) == MANY[3]
    assert len({scene.to_json() for scene in MANY}) == len(MANY)


def test_text_and_back():
    assert all(Scene.from_json(scene.to_json()) == scene for scene in MANY)
    with pytest.raises(InputError, match="spam"):
        Scene.from_json(MANY[0].to_json().replace('"span"', '"spam"'))
    with pytest.raises(InputError, match=r"light: .*height"):
        Scene.from_json(MANY[0].to_json().replace('"elevation"', '"height"'))


def test_lights_shine_from_where_they_stand():
    assert Light(0, 0, (1, 1, 1)).direction == pytest.approx((0, 0, 1))
    assert Light(90, 0, (1, 1, 1)).direction == pytest.approx((1, 0, 0))
    assert Light(17, 90, (1, 1, 1)).direction == pytest.approx((0, 1, 0))


def test_parameters_are_in_their_ranges():
    for scene in MANY:
        assert 7 <= scene.distance <= 16
        assert 3.0 <= scene.span <= 3.7
        assert 15 <= scene.crf <= 23
        assert all(value >= 0 for light in scene.lights for value in light.colour)


@pytest.mark.parametrize("size", [64, 96, 256])
def test_backdrops(size):
    picture = backdrop(MANY[1], size)
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.float32)
    assert 0 < picture.min() < picture.max() < 1.1
    assert np.array_equal(picture, backdrop(MANY[1], size))


def test_noise_is_the_frames_own():
    grey = np.full((64, 64, 3), 128, np.uint8)
    scene = next(scene for scene in MANY if scene.noise > 1)
    first, again, second = (sensor(grey, scene, frame) for frame in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert (first - 128.0).std() == pytest.approx(scene.noise, rel=0.15)
    quiet = Scene.from_json(scene.to_json().replace(f'"noise": {scene.noise}', '"noise": 0.0'))
    assert np.array_equal(sensor(grey, quiet, 0), grey)

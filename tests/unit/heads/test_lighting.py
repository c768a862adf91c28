"""Light on surfaces, where it can be worked out."""

from __future__ import annotations

import numpy as np
import pytest

from remime.heads import lighting
from remime.heads.raster import FAR
from remime.heads.shape import CLOTHES, SKIN

EYE = (0.0, 0.0, 1.0)
GREY = (0.5, 0.5, 0.5)
NONE = np.zeros((2, 3))


def lit(normal, light, kind=CLOTHES, shadow=1.0, ambient=NONE, gloss=0.0, power=1.0):
    lights = np.array([[*light, power, power, power]])
    return np.array(lighting.surface(GREY, normal, EYE, lights, ambient, shadow, 1.0, kind, gloss, 20.0))


def test_a_surface_that_faces_the_light_is_brightest():
    angles = np.radians([0, 30, 60, 89, 150])
    seen = [lit((0.0, 0.0, 1.0), (np.sin(a), 0.0, np.cos(a)))[1] for a in angles]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(0.5)
    assert seen[-1] == 0


def test_shadow_takes_the_light():
    assert lit((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), shadow=0.0).tolist() == [0, 0, 0]
    half = lit((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), shadow=0.5)
    assert half[1] == pytest.approx(0.25)


def test_light_from_around():
    ambient = np.array([[1.0, 0.5, 0.2], [0.1, 0.1, 0.1]])
    up = lit((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), ambient=ambient, power=0.0)
    down = lit((0.0, -1.0, 0.0), (0.0, 0.0, -1.0), ambient=ambient, power=0.0)
    assert up.tolist() == pytest.approx([0.5, 0.25, 0.1])
    assert down.tolist() == pytest.approx([0.05, 0.05, 0.05])


def test_red_light_goes_round_edges_of_skin():
    red, green, blue = lit((0.0, 0.0, 1.0), (1.0, 0.0, -0.1), kind=SKIN)
    assert red > green > blue
    assert red > 0


def test_highlights_are_where_light_is_mirrored():
    mirror = (0.0, np.sin(0.3), np.cos(0.3))  # half way between the eye and a light at twice the angle
    light = (0.0, np.sin(0.6), np.cos(0.6))
    shine = lit(mirror, light, gloss=1.0) - lit(mirror, light)
    aside = lit((0.0, 0.0, 1.0), light, gloss=1.0) - lit((0.0, 0.0, 1.0), light)
    assert shine.min() > 2 * aside.max() > 0


def test_the_shadow_map_is_compared():
    nearest = np.full((8, 8), -FAR, np.float32)
    nearest[:, :4] = 2.0
    assert lighting.lit_share(nearest, 6.5, 4.0, 1.0, 0.05, 1.0) == 1
    assert lighting.lit_share(nearest, 1.5, 4.0, 1.0, 0.05, 1.0) == 0
    assert 0 < lighting.lit_share(nearest, 4.0, 4.0, 1.0, 0.05, 1.0) < 1
    assert lighting.lit_share(nearest, 1.5, 4.0, 2.0, 0.05, 1.0) == 1
    assert lighting.lit_share(nearest, -50.0, 4.0, 0.0, 0.05, 1.0) == 1


def test_tones():
    values = [lighting.tone(x, 1.0) for x in np.linspace(0, 8, 50)]
    assert values[0] == 0
    assert values == sorted(values)
    assert max(values) <= 1
    assert lighting.tone(0.1, 2.0) == lighting.tone(0.2, 1.0)


def test_a_corner_sees_less_of_its_surroundings():
    """A floor before a wall: near the wall less is seen than far from it."""
    side = 64
    view = np.array([100.0, 32.0, 32.0, 0.0, 0.0, 10.0])
    flat = np.full((side, side), 10.0, np.float32)
    step = flat.copy()
    step[:, :32] = 9.6

    def seen(depth, column):
        x = (column + 0.5 - 32) * 10 / 100
        return lighting.openness(depth, view, column, 32, (x, -0.05, 0.0), (0.0, 0.0, 1.0))

    assert seen(flat, 34) == 1
    assert seen(step, 33) < 0.9
    assert seen(step, 33) < seen(step, 60)

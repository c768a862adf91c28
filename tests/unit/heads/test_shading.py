"""What pixels show, in scenes that can be worked out by hand.

A triangle whose corners are one point looks the same wherever it is seen, so a picture needs no geometry:
each sample is told which triangle it shows.
"""

from __future__ import annotations

import numpy as np
import pytest

from remime.heads import shading
from remime.heads.assets import CANVAS
from remime.heads.raster import FAR, atlas, empty_coverage, empty_layers
from remime.heads.shading import LABELS, Mesh, Setting, shade
from remime.heads.shape import BROWS, CLOTHES, EYES, HAIR, LASHES, MATERIALS, SKIN, TEETH, TONGUE

DISTANCE = 10.0
AHEAD, BACK = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
CLOTH = (0.5, 0.4, 0.3)
BACKGROUND = (0.2, 0.4, 0.6)
DARK = (0.0, 0.0, 0.0)
WHITE = (1.0, 1.0, 1.0)


def displayed(light):
    """The tone curve, x (1 + x / 16) / (1 + 0.38 x)."""
    x = np.asarray(light, float)
    return (x + x * x / 16) / (1 + 0.38 * x)


def look(
    *surfaces,
    front=0,
    behind=(),
    sky=WHITE,
    ground=WHITE,
    light=DARK,
    toward=AHEAD,
    map_height=-FAR,
    lens=(0.0, 0.0, DISTANCE),
    uv=((0.5, 0.5), (0.5, 0.5), (0.5, 0.5)),
    exposure=1.0,
):
    """A picture of 1 × 1 pixel, 2 × 2 samples, and its label.

    Args:
        surfaces: (material, colour, alpha, point, normal) of each triangle; the last three may be left out.
            A colour may be that of 2 × 2 texels.
        front: which of them is in front, at all samples or at each; -1 none.
        behind: numbers and alphas of see-through ones, the nearest first.
        light, toward: colour and direction of the only light.
        uv: texture coordinates of the corners; samples show a quarter, a half and a quarter of them.
        map_height: of everything in the shadow map; surfaces are at height 0.
    """
    defaults = (SKIN, WHITE, 0.0, DARK, AHEAD)
    full = [(*surface, *defaults[len(surface) :]) for surface in surfaces] or [defaults]
    kinds, colours, lips, points, normals = zip(*full, strict=True)
    textures = [np.zeros((2, 2, 4), np.float32) for _ in range(len(MATERIALS) + 1)]
    for kind, colour, alpha in zip(kinds, colours, lips, strict=True):
        textures[kind][..., :3], textures[kind][..., 3] = colour, alpha
    corners = 3 * len(full)
    mesh = Mesh(
        np.repeat(np.array(points, np.float32), 3, 0),
        np.repeat(np.array(normals, np.float32), 3, 0),
        np.tile(np.array([4.5, 4.5, 0.0], np.float32), (corners, 1)),
        np.arange(corners, dtype=np.int32).reshape(-1, 3),
        np.tile(np.array(uv, np.float32), (len(full), 1, 1)),
        np.array(kinds, np.int8),
        *atlas(textures),
        # Eyes at x = ±3, the hair's middle behind the origin; the front of the teeth there, facing ahead.
        np.array([[3.0, 0, 0], [-3.0, 0, 0], [0, 0, -1.0], [0, 0, 0], AHEAD]),
    )
    setting = Setting(
        np.array([100.0, 1.0, 1.0, *lens]),
        np.array([[*toward, *light]]),
        np.array([sky, ground]),
        np.full((9, 9), map_height, np.float32),
        np.array([[BACKGROUND]], np.float32),
        1.0,
        exposure,
    )
    coverage, layers = empty_coverage(2), empty_layers(2, 3)
    coverage.triangle[:] = np.reshape(front, (2, 2)) if np.ndim(front) else front
    coverage.depth[coverage.triangle >= 0] = DISTANCE
    coverage.shares[:] = 0.5, 0.25
    layers.filled[:] = len(behind)
    for place, (number, alpha) in enumerate(behind):
        layers.triangle[..., place], layers.alpha[..., place] = number, alpha
        layers.shares[..., place, :] = 0.5, 0.25
    image, labels = np.empty((1, 1, 3), np.float32), np.empty((1, 1), np.uint8)
    shade(mesh, setting, coverage, layers, image, labels)
    return image[0, 0], LABELS[labels[0, 0]]


def shows(picture, light, label):
    np.testing.assert_allclose(picture[0], displayed(light), atol=1e-5)
    assert picture[1] == label


def test_every_material_has_a_label():
    assert [shading.LABELS[label] for label in shading._LABEL_OF] == list(MATERIALS)


def test_where_nothing_is_the_background_shows():
    # 0.2 · 1.0125 / 1.076, 0.4 · 1.025 / 1.152, 0.6 · 1.0375 / 1.228
    expected = [0.1881970, 0.3559028, 0.5069218]
    picture = look(front=-1)
    assert picture[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert picture[1] == "background"
    shows(look(front=-1, exposure=0.5), (0.1, 0.2, 0.3), "background")


def test_light_from_around_is_seen_in_the_colour_of_the_surface():
    shows(look((CLOTHES, CLOTH)), CLOTH, "clothes")
    # A surface that faces the camera gets half from above, half from below.
    shows(look((CLOTHES, CLOTH), sky=(1, 0, 0), ground=(0, 1, 0)), (0.25, 0.2, 0), "clothes")


def test_textures_lie_on_surfaces_and_cards_by_their_corners():
    """Black on the left, white on the right: at the corners' mean of 0.25, 0.75, 0.25 half of both."""
    stripes = np.array([[DARK, WHITE], [DARK, WHITE]])
    uv = ((0.25, 0.5), (0.75, 0.5), (0.25, 0.5))
    shows(look((CLOTHES, stripes), uv=uv), 3 * [0.5], "clothes")
    card = look((LASHES, stripes), uv=uv, front=-1, behind=[(0, 1.0)])
    shows(card, 0.1 * np.array(BACKGROUND) + 0.45, "lashes")


def test_pixels_are_the_mean_of_their_samples_as_displayed():
    colour, label = look((CLOTHES, CLOTH), front=(0, 0, 0, -1))
    np.testing.assert_allclose(colour, 0.75 * displayed(CLOTH) + 0.25 * displayed(BACKGROUND), atol=1e-5)
    assert label == "clothes"
    assert look((CLOTHES, CLOTH), front=(0, -1, -1, -1))[1] == "background"


@pytest.mark.parametrize(
    ("kind", "alpha", "share", "label"),
    [
        (LASHES, 0.5, 0.45, "background"),
        (LASHES, 0.6, 0.54, "lashes"),
        (BROWS, 0.2, 0.34, "background"),
        (BROWS, 0.4, 0.68, "brows"),
        (BROWS, 0.9, 0.92, "brows"),
        (HAIR, 0.5, 0.65, "hair"),
        (HAIR, 0.9, 1.0, "hair"),
    ],
)
def test_cards_hide_by_their_alpha(kind, alpha, share, label):
    """Lashes are flat; brows and hair take 0.78 of the light from around.

    The alphas of lashes, brows, hair count 0.9, 1.7, 1.3 times, up to 0.95, 0.92, 1.
    """
    card = np.array(CLOTH) * (1 if kind == LASHES else 0.78)
    mixed = (1 - share) * np.array(BACKGROUND) + share * card
    shows(look((kind, CLOTH), front=-1, behind=[(0, alpha)]), mixed, label)


def test_cards_are_laid_over_each_other_from_the_farthest():
    near, far = (LASHES, (0.1, 0.2, 0.3)), (HAIR, CLOTH)
    picture = look(near, far, front=-1, behind=[(0, 0.5), (1, 0.5)])
    hair = 0.35 * np.array(BACKGROUND) + 0.65 * 0.78 * np.array(CLOTH)
    shows(picture, 0.55 * hair + 0.45 * np.array([0.1, 0.2, 0.3]), "hair")
    over = look(near, (CLOTHES, CLOTH), front=1, behind=[(0, 1.0)])
    shows(over, 0.1 * np.array(CLOTH) + 0.9 * np.array([0.1, 0.2, 0.3]), "lashes")


def test_a_mouth_is_dark():
    """Teeth lose e^(-1.7) per decimetre from 0.05 on, the tongue e^(-2.4) from 0.08 on."""
    teeth, tongue = ((kind, WHITE, 0.0, (0.0, 0.0, -0.55)) for kind in (TEETH, TONGUE))
    lens = (0.0, 0.0, DISTANCE - 0.55)  # nothing is in front of anything
    shows(look(teeth, lens=lens), 3 * [np.exp(-0.85)], "teeth")
    shows(look(tongue, lens=lens), np.exp(-2.4 * 0.47) * np.array([0.8, 0.6, 0.6]), "tongue")
    ahead = (TEETH, WHITE, 0.0, (0.0, 0.0, 0.3))
    shows(look(ahead, lens=(0.0, 0.0, DISTANCE + 0.3)), WHITE, "teeth")


def test_lamps_shine_into_a_mouth():
    """On teeth: their colour and 0.30 · 0.04 · (60 + 8) / 8 of highlight; in shadow a fifth of it."""
    teeth = (TEETH, CLOTH, 0.0, (0.0, 0.0, -0.55))
    options = {"sky": DARK, "ground": DARK, "light": WHITE, "lens": (0.0, 0.0, DISTANCE - 0.55)}
    lit = np.exp(-0.85) * (np.array(CLOTH) + 0.102)
    shows(look(teeth, **options), lit, "teeth")
    shows(look(teeth, map_height=2.0, **options), 0.2 * lit, "teeth")


@pytest.mark.parametrize("centre", [3.0, -3.0])
def test_eyes_are_balls(centre):
    """Whatever the mesh's normal: the top of either ball faces the sky, and mirrors 0.06 of it."""
    top = (EYES, (0.5, 0.5, 0.5), 0.0, (centre, 0.2, 0.0), AHEAD)
    shows(look(top, ground=DARK), (0.35 + 0.06, 0.34 + 0.06, 0.34 + 0.06), "eyes")
    ahead = (EYES, (0.5, 0.5, 0.5), 0.0, (centre, 0.0, 0.2), AHEAD)
    shows(look(ahead, ground=DARK, lens=(0.0, 0.0, DISTANCE + 0.2)), (0.175, 0.17, 0.17), "eyes")


def test_lips_are_where_the_skin_says():
    assert look((SKIN, CLOTH, 0.4))[1] == "skin"
    shows(look((SKIN, CLOTH, 0.6)), CLOTH, "lips")


def test_lips_are_glossier():
    dull, shiny = (look((SKIN, DARK, lips), sky=DARK, ground=DARK, light=WHITE)[0] for lips in (0.0, 1.0))
    # Mirrored straight back: gloss · 0.04 · (sharpness + 8) / 8.
    np.testing.assert_allclose(dull, displayed(0.30 * 0.04 * (22 + 8) / 8), atol=1e-5)
    np.testing.assert_allclose(shiny, displayed(0.55 * 0.04 * (52 + 8) / 8), atol=1e-5)


def test_the_inside_of_a_collar_is_lit():
    options = {"sky": DARK, "ground": DARK, "light": WHITE}
    outside, inside = (look((CLOTHES, CLOTH, 0.0, DARK, normal), **options) for normal in (AHEAD, BACK))
    # The colour, and 0.02 · 0.04 · (8 + 8) / 8 of highlight.
    shows(outside, np.array(CLOTH) + 0.0016, "clothes")
    np.testing.assert_allclose(inside[0], outside[0], atol=1e-6)
    assert look((TEETH, CLOTH, 0.0, DARK, BACK), **options)[0].max() == 0


def test_shadows_are_cast_on_surfaces_and_hair():
    options = {"sky": DARK, "ground": DARK, "light": WHITE}
    assert look((CLOTHES, CLOTH), map_height=2.0, **options)[0].max() == 0
    shows(look((CLOTHES, CLOTH), map_height=0.04, **options), np.array(CLOTH) + 0.0016, "clothes")
    hair = {"front": -1, "behind": [(0, 1.0)], **options}
    bright = look((HAIR, CLOTH), **hair)[0]
    dark = look((HAIR, CLOTH), map_height=2.0, **hair)[0]
    # Strands that hang across the view and the light: diffuse 1, tinted 0.25, white 0.012. In the shadow
    # of other hair half of the light arrives.
    np.testing.assert_allclose(bright, displayed(1.25 * np.array(CLOTH) + 0.012), atol=1e-5)
    np.testing.assert_allclose(dark, displayed(0.5 * (1.25 * np.array(CLOTH) + 0.012)), atol=1e-5)
    # Brows get no shadow.
    brow = look((BROWS, CLOTH), map_height=2.0, **hair)[0]
    covered = 0.92 * (1.25 * np.array(CLOTH) + 0.012) + 0.08 * np.array(BACKGROUND)
    np.testing.assert_allclose(brow, displayed(covered), atol=1e-5)


def test_pores_tilt_the_skin():
    """By 0.010 times how much the bumps rise over two texels of the skin, along each axis of the texture."""
    rising = np.repeat(np.arange(4, dtype=np.float32)[None, :, None], 4, 0).repeat(4, 2)
    textures = [np.zeros((2, 2, 4), np.float32)] * len(MATERIALS)
    slope = 4 * 2 / CANVAS
    for bumps, tilt in (
        (np.ones((4, 4, 4), np.float32), (0, 0)),
        (rising, (slope, 0)),
        (rising.transpose(1, 0, 2), (0, -slope)),  # the first row is the upper one
    ):
        normal = shading._pores(*atlas([*textures, bumps]), AHEAD, 0.5, 0.5)
        wanted = np.array([0.010 * tilt[0], 0.010 * tilt[1], 1.0])
        np.testing.assert_allclose(normal, wanted / np.linalg.norm(wanted), atol=1e-8)


def test_places_lie_between_their_corners():
    """At a half, a quarter and a quarter of three corners."""
    points = np.array([[0, 0, 0], [4, 0, 0], [0, 8, 4]], np.float32)
    normals = np.array([[0, 0, 1], [0, 0, 1], [0, 4, 1]], np.float32)
    uv = np.array([[[0, 0], [1, 0], [0, 1]]], np.float32)
    triangles = np.array([[0, 1, 2]], np.int32)
    point, shadowed, normal, u, v = shading._place(
        points, normals, 2 * points, triangles, uv, 0, np.float32(0.25), np.float32(0.25)
    )
    assert point == (1, 2, 1)
    assert shadowed == (2, 4, 2)
    assert normal == pytest.approx((0, 0.5**0.5, 0.5**0.5))
    assert (u, v) == (0.25, 0.25)

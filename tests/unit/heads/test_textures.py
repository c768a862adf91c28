"""Textures follow the identity's parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from remime.heads.assets import CANVAS, WEIGHTS, load_kit
from remime.heads.identity import sample
from remime.heads.shape import EYES, HAIR, LASHES, SKIN, TEETH
from remime.heads.textures import BUMP, beard_region, linear, scalp_region, textures
from tests import heads

KIT = heads.kit()
WHO = replace(sample(0, KIT), stubble=0.0, freckles=0.0, hair="hair-short01")


def texture(packed, number):
    start, height, width = packed.places[number]
    return packed.texels[start : start + height * width].reshape(height, width, 4)


@pytest.fixture(scope="module")
def packed():
    return textures(KIT, WHO)


def test_all_materials_have_one(packed):
    assert len(packed.places) == BUMP + 1
    skin = texture(packed, SKIN)
    assert skin.shape == (CANVAS, CANVAS, 4)
    assert np.isfinite(packed.texels).all()
    assert packed.texels[:, :3][: CANVAS**2].min() >= 0


def test_the_same_identity_has_the_same_textures(packed):
    again = textures(KIT, WHO)
    assert np.array_equal(packed.texels, again.texels)
    other = textures(KIT, replace(WHO, seed=WHO.seed + 1))
    assert not np.array_equal(packed.texels, other.texels)


def test_lips_are_marked(packed):
    lips = texture(packed, SKIN)[..., 3]
    assert lips[620, 512] > 0.99
    assert lips[300, 512] < 0.01


def test_colours_are_the_identitys(packed):
    pale = textures(KIT, replace(WHO, skin_gain=tuple(2 * value for value in WHO.skin_gain)))
    place = (slice(380, 420), slice(80, 120))  # neither lips nor hair
    ratio = texture(pale, SKIN)[place][..., :3] / texture(packed, SKIN)[place][..., :3]
    np.testing.assert_allclose(ratio, 2, rtol=1e-3)
    red = textures(KIT, replace(WHO, hair_colour=(0.5, 0.1, 0.1)))
    strand = texture(red, HAIR)[4, 4]
    assert strand[0] == pytest.approx(5 * strand[1], rel=1e-3)
    assert texture(packed, LASHES)[..., :3].max() < 0.02


def test_a_beard_darkens_the_chin():
    bearded = textures(KIT, replace(WHO, stubble=1.0))
    shaven = textures(KIT, WHO)
    painted = KIT.paint(beard_region(KIT))
    assert painted.max() > 0.5
    dense = painted > 0.9 * painted.max()
    assert texture(bearded, SKIN)[dense, :3].mean() < 0.8 * texture(shaven, SKIN)[dense, :3].mean()
    none = painted == 0
    assert np.array_equal(
        texture(bearded, SKIN)[none][:, :3].mean(), texture(shaven, SKIN)[none][:, :3].mean()
    ) or (abs(texture(bearded, SKIN)[none, :3].mean() - texture(shaven, SKIN)[none, :3].mean()) < 0.02)


def test_hair_grows_on_the_scalp():
    region = scalp_region(KIT, "hair-short01")
    up = KIT.vertices[:, 1] - heads.EYE[1]
    assert region[up > 0.75].max() > 0.9
    assert region[(up < 0.3) & (KIT.vertices[:, 2] > 0)].max() == 0


def test_light_is_linear():
    assert linear(np.array([0, 128, 255], np.uint8)).tolist() == pytest.approx([0, (128 / 255) ** 2.2, 1])
    assert texture(textures(KIT, WHO), EYES)[..., 3].min() == 1


@pytest.fixture(scope="module")
def real(weights):
    """The kit of the assets themselves."""
    for name in WEIGHTS:
        weights(name)
    return load_kit()


@pytest.mark.weights
def test_molars_are_as_white_as_the_other_teeth(real):
    given = linear(real.parts["teeth"].texture[..., :3])
    tooth = given[..., 1] > 0.75 * given[..., 0]  # gums are red
    made = texture(textures(real, sample(0, real)), TEETH)[..., :3]
    assert np.percentile(given.mean(-1)[tooth], 5) < 0.1  # as the texture has them
    assert np.percentile(made.mean(-1)[tooth], 5) > 0.35


@pytest.mark.weights
def test_a_hairline_has_painted_roots(real):
    """Below cards of hair lies no bare skin: there the skin has their colour."""
    who = next(each for each in (sample(seed, real) for seed in range(20)) if each.hair)
    scalp = real.paint(scalp_region(real, who.hair)) > 0.99
    skin = texture(textures(real, who), SKIN)[..., :3]
    bare = texture(textures(real, replace(who, hair="", shave=0.0)), SKIN)[..., :3]
    near = np.abs(skin - np.array(who.hair_colour) * 0.8)[scalp].mean()
    assert near < 0.3 * np.abs(bare - np.array(who.hair_colour) * 0.8)[scalp].mean()


@pytest.mark.weights
def test_lashes_are_hairs_and_no_card(real):
    lashes = texture(textures(real, sample(0, real)), LASHES)
    assert lashes[..., :3].max() < 0.02
    assert 0.01 < (lashes[..., 3] > 0.5).mean() < 0.5

"""Shapes: what carries what, and which way heads turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from remime.heads.assets import COEFFICIENTS
from remime.heads.identity import sample
from remime.heads.shape import BROWS, CLOTHES, SKIN, STILL, Pose, Shape, angles, resting, rotated, rotation
from tests import heads

KIT = heads.kit()
WHO = sample(0, KIT)


@pytest.fixture(scope="module")
def shape():
    return Shape(KIT, WHO)


def only(name, value=1.0):
    coefficients = np.zeros(52)
    coefficients[COEFFICIENTS.index(name)] = value
    return Pose(coefficients)


def test_signs_of_angles():
    """The nose, which points at the camera, and the crown."""
    nose, crown = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    assert (rotation(30, 0, 0) @ nose)[0] == pytest.approx(-0.5)  # to the left of the picture
    assert (rotation(0, 30, 0) @ nose)[1] == pytest.approx(0.5)  # up
    assert (rotation(0, 0, 30) @ crown)[0] == pytest.approx(0.5)  # clockwise


def test_the_order_of_turns():
    wanted = Rotation.from_euler("YXZ", [-20, -10, -5], degrees=True).as_matrix()
    np.testing.assert_allclose(rotation(20, 10, 5), wanted, atol=1e-12)
    vectors = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_allclose(rotated(vectors, wanted), vectors @ wanted.T, atol=1e-12)


def test_angles_of_a_rotation():
    for wanted in ((20, 10, 5), (-35, -12, 40), (0, 0, 0), (80, -60, 170)):
        np.testing.assert_allclose(angles(rotation(*wanted)), wanted, atol=1e-9)


def test_macro_targets_are_weighed():
    person = replace(WHO, gender=0.75, age=0.75, ancestry=(0.2, 0.2, 0.6), detail={})
    base = resting(KIT, replace(person, ancestry=(0.5, 0.5, 0.0)))
    moved = resting(KIT, person) - base
    target = KIT.macro["caucasian-male-young"].astype(float)
    # Three quarters male, half way from young to old, six tenths Caucasian.
    np.testing.assert_allclose(moved, 0.75 * 0.5 * 0.6 * target, atol=1e-5)


def test_details_are_added():
    plain, fat = (resting(KIT, replace(WHO, detail={"head-fat-decr-incr": v})) for v in (0.0, 0.5))
    np.testing.assert_allclose(
        fat - plain, 0.5 * KIT.detail["head-fat-decr-incr"][1].astype(float), atol=1e-5
    )


def test_the_eyes_are_the_origin(shape):
    np.testing.assert_allclose(shape.eyes.mean(0), 0, atol=1e-6)
    assert shape.eyes[0, 0] > 0  # the person's left eye is on the right of the picture


def test_materials_come_in_order(shape):
    assert (np.diff(shape.material) >= 0).all()
    assert shape.material[shape.closed - 1] < CLOTHES <= shape.material[shape.closed]
    assert shape.material[shape.opaque - 1] < BROWS <= shape.material[shape.opaque]
    assert shape.triangles.max() < len(shape.bones)


def test_skin_below_clothes_is_left_out(shape):
    assert (shape.material == SKIN).sum() < len(KIT.triangles)


def test_a_still_face_is_the_resting_one(shape):
    np.testing.assert_allclose(shape.posed(STILL)[: shape.base], shape.neutral, atol=1e-6)


def test_coefficients_add_their_offsets(shape):
    moved = shape.relaxed(only("jawOpen", 0.5)) - shape.neutral
    np.testing.assert_allclose(moved, 0.5 * KIT.expression[COEFFICIENTS.index("jawOpen")], atol=1e-6)


def test_parts_follow_the_skin(shape):
    brows = shape.parts["brows"]
    moved = shape.posed(only("jawOpen")) - shape.posed(STILL)
    np.testing.assert_allclose(
        moved[brows.start : brows.end], moved[: shape.base][brows.anchors[:, 0]], atol=1e-6
    )


def test_heads_turn_and_shoulders_stay(shape):
    turn, shift = shape.head_move(Pose(np.zeros(52), head=(30, 0, 0)))
    np.testing.assert_allclose(turn, rotation(30, 0, 0), atol=1e-6)
    moved = shape.posed(Pose(np.zeros(52), head=(30, 0, 0)))
    still = shape.posed(STILL)
    head, torso = shape.bones[:, 4] == 1, shape.bones[:, 0] == 1
    np.testing.assert_allclose(moved[head], still[head] @ turn.T + shift, atol=1e-5)
    np.testing.assert_allclose(moved[torso], still[torso], atol=1e-6)
    assert torso.any()


def test_eyes_turn_about_their_centres(shape):
    eyes = shape.parts["eyes"]
    moved = shape.posed(Pose(np.zeros(52), gaze=(20, 10)))[eyes.start : eyes.end]
    still = shape.posed(STILL)[eyes.start : eyes.end]
    left = still[:, 0] > 0
    for side, centre in ((left, shape.eyes[0]), (~left, shape.eyes[1])):
        np.testing.assert_allclose(
            moved[side] - centre, (still[side] - centre) @ rotation(20, 10, 0).T, atol=1e-6
        )


def test_lids_slide_over_the_eyeball(shape):
    """No vertex of a lid comes nearer to the middle of the eye than it was, unless it was far."""
    for amount in (0.3, 0.6, 1.0):
        moved = shape.relaxed(only("eyeBlinkLeft", amount))
        near, centre, distance = shape._lids[0]
        now = np.linalg.norm(moved[near] - centre, axis=1)
        assert (now > np.minimum(distance, 1.25 * shape.radius) - 1e-5).all()
    assert len(near)


def test_blinks_are_scaled_per_eye():
    shape = Shape(KIT, WHO)
    shape.blink = np.array([0.5, 2.0])
    for side, factor in (("Left", 0.5), ("Right", 2.0)):
        scaled = shape.relaxed(only(f"eyeBlink{side}"))
        shape.blink, kept = np.ones(2), shape.blink
        np.testing.assert_allclose(scaled, shape.relaxed(only(f"eyeBlink{side}", factor)), atol=1e-6)
        shape.blink = kept

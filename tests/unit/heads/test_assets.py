"""The kit: assembled from arrays, and painted on."""

from __future__ import annotations

import numpy as np
import pytest

from remime.faces.mesh import BLENDSHAPES
from remime.heads import identity
from remime.heads.assets import COEFFICIENTS, WEIGHTS, assemble, load_kit
from remime.heads.shape import Pose, Shape
from remime.layout import _KIT
from tests import heads


def test_coefficients_are_arkits():
    assert len(set(COEFFICIENTS)) == 52
    assert set(BLENDSHAPES[1:]) < set(COEFFICIENTS)


def test_the_workflow_fetches_the_kit():
    assert _KIT == WEIGHTS


def test_expression_is_sorted_by_name():
    anatomy, parts, names = heads.arrays()
    shuffled = list(reversed(names["expression"]))
    kit = assemble(
        anatomy | {"expression": anatomy["expression"][::-1]}, parts, names | {"expression": shuffled}
    )
    assert np.array_equal(kit.expression, heads.kit().expression)


def test_eyeballs_have_no_expression():
    kit = heads.kit()
    assert not kit.expression[:, np.concatenate(kit.eyes)].any()
    assert kit.expression.any()


def test_what_hangs_on_the_body_is_left_out():
    anatomy, parts, names = heads.arrays()
    name = "clothes-male-shirt"
    part = heads.kit().parts[name]
    gone = int(parts[f"{name}.triangles"][0, 0])
    anchors = parts[f"{name}.anchors"].copy()
    anchors[gone] = 9999  # a vertex of a leg
    kept = assemble(anatomy, parts | {f"{name}.anchors": anchors}, names).parts[name]
    lost = (parts[f"{name}.triangles"] == gone).any(1)
    assert len(kept.triangles) == len(part.triangles) - lost.sum()
    assert len(kept.uv) == len(kept.triangles)
    # The rest of the part lies where it lay.
    vertices = heads.kit().vertices
    old = vertices[part.anchors[:, 0]][part.triangles[~lost]]
    assert np.array_equal(vertices[kept.anchors[:, 0]][kept.triangles], old)


def test_paint_is_linear_between_vertices():
    kit = heads.kit()
    picture = kit.paint(kit.vertices[:, 1])
    # Texture coordinates of the ball run evenly from its top to its bottom: y = 7 + cos(angle).
    rows = np.array([256, 512, 768])
    angles = np.pi * (rows + 0.5) / 1024
    np.testing.assert_allclose(picture[rows, 300], 7 + np.cos(angles), atol=0.03)
    assert (kit.paint(np.ones(len(kit.vertices))) > 0.999).mean() > 0.99


def test_named():
    assert heads.kit().named("lashes") == ["lashes01", "lashes02"]


@pytest.mark.weights
class TestReal:
    """The converted packages."""

    @pytest.fixture(scope="class")
    def kit(self, weights):
        for name in WEIGHTS:
            weights(name)
        return load_kit()

    def test_what_there_is(self, kit):
        assert len(kit.vertices) == 6832
        assert (len(kit.macro), len(kit.detail), len(kit.skins), len(kit.irises)) == (72, 146, 20, 9)
        assert {kind: len(kit.named(kind)) for kind in ("hair", "brows", "lashes", "clothes")} == {
            "hair": 6, "brows": 12, "lashes": 4, "clothes": 10,
        }  # fmt: skip
        np.testing.assert_allclose(kit.bones.sum(1), 1, atol=1e-5)

    def test_nothing_of_other_terms_is_read(self, weights):
        """The package also holds parts under CC BY, and contributions of unknown origin."""
        known = weights("head-parts").meta["parts"]
        hair = {name for name in known if name.startswith("hair")}
        assert hair == {f"hair-{style}" for style in heads.HAIR}
        assert not {name for name in known if "glasses" in name or "_01" in name}
        assert weights("head-parts").meta["terms"]["class"] == "permissive"

    def test_identities_differ_in_shape(self, kit):
        first, second = (Shape(kit, identity.sample(seed, kit)) for seed in (0, 1))
        assert np.abs(first.neutral - second.neutral).max() > 0.1
        assert 0.11 < first.radius < 0.19  # an eyeball has a diameter of some 25 mm

    def test_jaw_and_teeth_open_together(self, kit):
        shape = Shape(kit, identity.sample(0, kit))
        coefficients = np.zeros(52)
        coefficients[COEFFICIENTS.index("jawOpen")] = 1
        moved = shape.posed(Pose(coefficients)) - shape.posed(Pose(np.zeros(52)))
        teeth = shape.parts["teeth"]
        down = moved[teeth.start : teeth.end, 1]
        assert down.min() < -0.1  # the lower ones
        assert np.abs(down).min() < 0.01  # the upper ones

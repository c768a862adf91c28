"""The mesh in pixels of the aligned frame, its expression, and what a mirror does to both."""

import pytest
import torch
import torch.nn.functional as F

from remime.faces.mesh import BLENDSHAPES, IRIS_LEFT, IRIS_RIGHT, load_mesh

from ...stills import aligned

pytestmark = pytest.mark.weights

# Mesh points and the dlib landmarks that mark the same place: corners of the eyes, nose, mouth, chin.
PAIRS = ((33, 36), (133, 39), (362, 42), (263, 45), (1, 30), (61, 48), (291, 54), (152, 8))


@pytest.fixture(scope="module")
def mesh(weights):
    for name in ("face-mesh", "blendshapes"):
        weights(name)
    return load_mesh()


def coefficient(result, name):
    return result.blendshapes[:, BLENDSHAPES.index(name)]


@pytest.mark.parametrize("size", [128, 256, 512])
def test_points_lie_on_dlib_landmarks_at_any_size(mesh, size):
    images, landmarks = aligned(size=size)
    result = mesh(images)
    assert result.points.shape == (4, 478, 3)
    ours, theirs = (torch.tensor(p) for p in zip(*PAIRS, strict=True))
    distance = (result.points[:, ours, :2] - landmarks[:, theirs]).norm(dim=-1).mean(1)
    eyes = (landmarks[:, 36] - landmarks[:, 45]).norm(dim=-1)
    # Two predictors agree to about 3 % of the eye distance on these photos.
    assert (distance / eyes).max() < 0.05
    assert (result.score > 0.9).all()


def test_irises_lie_within_the_eyes(mesh):
    images, landmarks = aligned("obama", "biden")
    points = mesh(images).points
    for iris, eye in ((IRIS_RIGHT, slice(36, 42)), (IRIS_LEFT, slice(42, 48))):
        outline = landmarks[:, eye]
        assert (points[:, iris, :2] - outline.mean(1)).norm(dim=-1).max() < 8
        assert (points[:, iris, 0] > outline[..., 0].amin(1)).all()
        assert (points[:, iris, 0] < outline[..., 0].amax(1)).all()


def test_depth_grows_from_the_nose_to_the_ears(mesh):
    points = mesh(aligned("obama")[0]).points[0]
    assert points[1, 2] < points[168, 2] < points[[127, 356], 2].min()


def test_a_smile_is_seen_where_there_is_one(mesh):
    smiling, serious = mesh(aligned("obama", "obama-3")[0]).blendshapes[
        :, BLENDSHAPES.index("mouthSmileLeft")
    ]
    assert smiling > 0.8
    assert serious < 0.3


def test_a_mirror_swaps_left_and_right(mesh):
    images, _ = aligned("obama-2")
    plain, mirrored = mesh(images), mesh(images.flip(-1))
    other = {
        name: name.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for name in BLENDSHAPES
    }
    swapped = mirrored.blendshapes[:, [BLENDSHAPES.index(other[name]) for name in BLENDSHAPES]]
    as_swapped = (plain.blendshapes - swapped).abs().sum()
    assert as_swapped < 0.75 * (plain.blendshapes - mirrored.blendshapes).abs().sum()
    # A look to one side becomes a look to the other.
    assert coefficient(mirrored, "eyeLookInRight") > 0.5
    assert coefficient(plain, "eyeLookInLeft") > 0.5
    assert coefficient(plain, "eyeLookOutLeft") < 0.2
    flipped = 255 - mirrored.points[0, [33, 1, 263], 0]
    torch.testing.assert_close(flipped, plain.points[0, [263, 1, 33], 0], atol=4.0, rtol=0)


def test_no_face_gets_a_low_score(mesh):
    assert mesh(torch.zeros(1, 3, 256, 256)).score < 0.5


def test_the_names_are_the_52_coefficients():
    assert len(BLENDSHAPES) == len(set(BLENDSHAPES)) == 52
    sides = {name.removesuffix("Left") for name in BLENDSHAPES if name.endswith("Left")}
    assert all(f"{name}Right" in BLENDSHAPES for name in sides)


def test_gradients_reach_the_image_and_a_step_along_them_opens_the_smile(mesh):
    images, _ = aligned("obama-3", size=128)
    image = images.clone().requires_grad_()
    before = coefficient(mesh(image), "mouthSmileLeft")
    before.sum().backward()
    assert image.grad.isfinite().all()
    step = 2.0 * image.grad / image.grad.norm()
    with torch.no_grad():
        assert coefficient(mesh(images + step), "mouthSmileLeft") > before + 0.02


def test_a_batch_is_its_items(mesh):
    images, _ = aligned("obama", "biden")
    together, alone = mesh(images), [mesh(images[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(together.points, torch.cat([r.points for r in alone]), atol=5e-3, rtol=0)
    torch.testing.assert_close(
        together.blendshapes, torch.cat([r.blendshapes for r in alone]), atol=1e-3, rtol=0
    )


def test_the_points_follow_the_face_when_the_frame_moves(mesh):
    images, _ = aligned("biden")
    shifted = F.pad(images, (6, 0, 0, 0), mode="replicate")[..., :256]
    moved = (mesh(shifted).points - mesh(images).points)[0, [33, 263, 1, 61, 291]]
    torch.testing.assert_close(moved[:, 0], torch.full((5,), 6.0), atol=1.5, rtol=0)


def test_a_grey_image_is_refused_with_its_shape(mesh):
    with pytest.raises(ValueError, match=r"\[B, 3, R, R\].*\(1, 1, 64, 64\)"):
        mesh(torch.zeros(1, 1, 64, 64))

"""Identity networks tell real people apart, with the fixed crop and with landmarks."""

import numpy as np
import pytest
import torch

from remime.errors import InputError, WeightsError
from remime.faces.identity import NETWORKS, load_identity
from remime.weights import original

from ...stills import aligned

# Cosine similarities on three photos of one man and one of another (measured: same .70-.81, .79-.82, .94-.97;
# different .07-.26, -.19-0, .81-.85). dlib's vectors share a large common part.
LIMITS = {"sface": (0.6, 0.4), "edgeface-s": (0.7, 0.2), "dlib-resnet-id": (0.92, 0.88)}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, weights):
    weights(request.param)
    return load_identity(request.param)


@pytest.mark.weights
@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("exact", [False, True])
def test_same_and_different_people_are_apart(network, size, exact):
    images, landmarks = aligned(size=size)
    vectors = network.embed(images, landmarks if exact else None)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    similarity = vectors @ vectors.T
    same, different = LIMITS[network.name]
    assert similarity[[0, 0, 1], [1, 2, 2]].min() > same
    assert similarity[3, :3].max() < different


@pytest.mark.weights
def test_the_fixed_crop_comes_close_to_the_exact_one(network):
    images, landmarks = aligned()
    assert (network.embed(images) * network.embed(images, landmarks)).sum(1).min() > 0.93


@pytest.mark.weights
def test_landmarks_undo_a_rotation(network):
    images, landmarks = aligned("biden", size=256)
    turned = torch.rot90(images, 1, (2, 3))
    points = torch.stack([landmarks[..., 1], 255 - landmarks[..., 0]], -1)
    plain = network.embed(images, landmarks)
    assert (plain * network.embed(turned, points)).sum() > 0.995
    assert (plain * network.embed(turned)).sum() < 0.93


@pytest.mark.weights
def test_gradients_reach_the_image(network):
    images, _ = aligned("obama", "biden", size=128)
    image = images[:1].clone().requires_grad_()
    similarity = (network.embed(image) * network.embed(images[1:])).sum()
    similarity.backward()
    assert image.grad.isfinite().all()
    step = 1.0 * image.grad / image.grad.norm()
    with torch.no_grad():
        assert (network.embed(images[:1] + step) * network.embed(images[1:])).sum() > similarity
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.weights
def test_descriptors_are_those_of_dlib(weights):
    dlib = pytest.importorskip("dlib")
    weights("dlib-resnet-id")
    ours = load_identity("dlib-resnet-id")
    reference = dlib.face_recognition_model_v1(str(original("dlib-resnet-id")))
    images, landmarks = aligned(size=256)
    landmarks = landmarks.round()
    vectors = ours.embed(images, landmarks)
    for image, points, vector in zip(images, landmarks, vectors, strict=True):
        pixels = np.ascontiguousarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        shape = dlib.full_object_detection(
            dlib.rectangle(0, 0, 255, 255), [dlib.point(int(x), int(y)) for x, y in points]
        )
        theirs = torch.tensor(list(reference.compute_face_descriptor(pixels, shape)))
        # The networks agree to 1e-7 on one chip; what is left is dlib's own interpolation of the chip. Unlike
        # faces are 0.4 apart on this scale.
        assert (vector - theirs / theirs.norm()).norm() < 0.03


def test_an_unknown_network_is_refused_with_those_that_exist():
    with pytest.raises(WeightsError, match=r"'facenet'(.|\n)*sface"):
        load_identity("facenet")


@pytest.mark.weights
def test_a_network_of_another_role_is_refused(weights):
    weights("hopenet-lite")
    with pytest.raises(InputError, match=r"'hopenet-lite' is no identity network(.|\n)*ir-se50"):
        load_identity("hopenet-lite")


@pytest.mark.weights
def test_a_grey_image_is_refused_with_its_shape(network):
    with pytest.raises(ValueError, match=r"\(1, 1, 64, 64\)"):
        network.embed(torch.zeros(1, 1, 64, 64))

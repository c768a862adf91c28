"""LPIPS: a distance that is zero for equal images, grows with distortion, and has clean gradients."""

import pytest
import torch

from remime.errors import InputError
from remime.perceptual import LPIPS, load_lpips

from ..clips import view


def random_lpips(net="alex"):
    torch.manual_seed(0)
    module = LPIPS(net)
    for p in module.parameters():
        p.data = torch.rand_like(p) * 0.1 if p.shape[0] == 1 else torch.randn_like(p) * 0.05
    return module


def photo():
    return torch.from_numpy(view(1.2, size=128)).permute(2, 0, 1)[None] / 127.5 - 1


def test_the_distance_of_an_image_to_itself_is_zero_and_it_is_symmetric():
    module, a, b = random_lpips(), torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    assert module(a, a).tolist() == [0, 0]
    torch.testing.assert_close(module(a, b), module(b, a))
    assert module(a, b).shape == (2,)


def test_each_item_of_a_batch_is_compared_alone():
    module, a, b = random_lpips("vgg"), torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    alone = torch.cat([module(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(module(a, b), alone)


def test_features_can_be_computed_once():
    module, a, b = random_lpips(), torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(module.distance(module.features(a), module.features(b)), module(a, b))


def test_the_gradient_is_finite_where_no_channel_is_active():
    module = LPIPS()  # all weights of the trunk below are zero: every feature is
    for p in module.parameters():
        p.data.zero_()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    module(image, torch.rand(1, 3, 64, 64)).sum().backward()
    assert image.grad.isfinite().all()


def test_half_precision_activations_do_not_overflow():
    module = random_lpips().to(torch.bfloat16)
    features = module.features(torch.rand(1, 3, 64, 64, dtype=torch.bfloat16))
    assert all(f.dtype == torch.float32 for f in features)


def test_it_is_frozen():
    assert not any(p.requires_grad for p in LPIPS().parameters())


@pytest.mark.weights
def test_more_distortion_is_more_distance(weights):
    weights("lpips-alex")
    module, image = load_lpips("alex"), photo()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    distances = [module(image, image + s * noise).item() for s in (0.02, 0.1, 0.3)]
    assert 0 < distances[0] < distances[1] < distances[2] < 1.5
    assert all((head >= 0).all() for head in module.heads)


def test_an_unknown_trunk_is_refused_with_those_that_exist():
    with pytest.raises(InputError, match=r"'squeeze'(.|\n)*alex, vgg"):
        load_lpips("squeeze")


def test_a_grey_image_is_refused_with_its_shape():
    with pytest.raises(ValueError, match=r"\(1, 1, 64, 64\)"):
        LPIPS()(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))


def test_a_mask_of_everything_changes_nothing():
    module, a, b = random_lpips(), torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(module(a, b, torch.ones(2, 64, 64)), module(a, b))
    torch.testing.assert_close(module(a, b, torch.full((2, 64, 64), 0.3)), module(a, b))


def test_a_mask_leaves_out_what_features_beside_it_see():
    """Only the right half differs: far from it on the left there is no distance, on the right more."""
    module, a = random_lpips(), torch.rand(1, 3, 64, 256)
    b = a.clone()
    b[..., 128:] = torch.rand(1, 3, 64, 128)
    left, right = torch.zeros(1, 64, 256), torch.zeros(1, 64, 256)
    left[..., :16], right[..., 128:] = 1, 1
    assert module(a, b, left) < 0.02 * module(a, b)
    assert module(a, b, right) > module(a, b)

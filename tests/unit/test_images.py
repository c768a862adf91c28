"""Images to tensors and back."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from remime.images import fit, to_image, to_tensor


def test_images_survive_the_way_to_tensors_and_back():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    image[..., 1] = 255 - image[..., 1]
    tensor = to_tensor(image[None])
    assert (tensor.shape, tensor.dtype) == ((1, 3, 16, 16), torch.float32)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert tensor[0, 1, 0, 3] == pytest.approx((255 - 3) / 127.5 - 1)
    assert np.array_equal(to_image(tensor)[0], image)
    assert to_image(torch.tensor([-7.0, 9.0, 0.0]).view(3, 1, 1)).tolist() == [[[0, 255, 128]]]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_images_are_rounded_and_clamped(kind, last):
    source = torch.Generator().manual_seed(0)
    tensor = (1.5 * torch.randn(2, 3, 5, 7, generator=source)).to(kind)
    tensor[0, 0, 0, :3] = torch.tensor([torch.inf, -torch.inf, 1e30])
    if last:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    expected = np.rint((np.clip(tensor.double().numpy(), -1, 1) + 1) * 127.5).transpose(0, 2, 3, 1)
    assert to_image(tensor).dtype == np.uint8
    assert np.abs(to_image(tensor).astype(int) - expected).max() <= 1
    assert (to_image(tensor) != expected).mean() < 0.01
    assert to_image(tensor[:0]).shape == (0, 5, 7, 3)


def test_a_list_of_images_is_a_batch():
    images = [np.full((4, 5, 3), value, np.uint8) for value in (0, 255)]
    assert torch.equal(to_tensor(images), to_tensor(np.stack(images)))
    with pytest.raises(ValueError, match="shape"):
        to_tensor([images[0], images[1][:3]])


def test_fit_pools_down_interpolates_up_and_refuses_rectangles():
    x = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(fit(x, 8), F.avg_pool2d(x, 2))
    assert fit(x, 16) is x
    assert fit(x, 24).shape == (1, 3, 24, 24)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 16\)"):
        fit(x[:, :, :8], 8)

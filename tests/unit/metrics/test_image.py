"""Image distances: hand-computed cases and properties; equality with scikit-image is in tests/parity."""

import numpy as np
import pytest

from remime.metrics import image

RNG = np.random.default_rng(0)
A = RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)
B = RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)


def test_hand_computed_distances():
    black, white = np.zeros((12, 12, 3), np.uint8), np.full((12, 12, 3), 255, np.uint8)
    grey = np.full((12, 12, 3), 51, np.uint8)
    assert image.l1(black, grey) == 51
    assert image.mse(black, grey) == pytest.approx(0.04)
    assert image.psnr(black, white) == pytest.approx(0)
    assert image.psnr(black, grey) == pytest.approx(-10 * np.log10(0.04))


def test_difference_does_not_wrap_around_in_uint8():
    assert image.l1(np.full((12, 12, 3), 250, np.uint8), np.full((12, 12, 3), 5, np.uint8)) == 245


def test_equal_images():
    assert image.l1(A, A) == image.mse(A, A) == 0
    assert image.psnr(A, A) == float("inf")
    assert image.ssim(A, A) == pytest.approx(1)


@pytest.mark.parametrize("metric", [image.l1, image.mse, image.psnr, image.ssim])
def test_symmetric(metric):
    assert metric(A, B) == pytest.approx(metric(B, A))


def test_ssim_falls_with_noise():
    flat = np.full((40, 40, 3), 128.0)
    values = [image.ssim(A_like(flat, 0), A_like(flat, sigma)) for sigma in (5, 20, 60)]
    assert values == sorted(values, reverse=True)


def A_like(base: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1, base.shape)
    texture = 40 * np.sin(np.arange(40))[:, None, None]
    return np.clip(base + texture + sigma * noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("metric", [image.l1, image.mse, image.psnr, image.ssim])
def test_wrong_input_is_refused(metric):
    with pytest.raises(ValueError, match="second image"):
        metric(A, B[:20])
    with pytest.raises(ValueError, match="uint8"):
        metric(A.astype(np.float32), B)
    with pytest.raises(ValueError, match="expected shape"):
        metric(A[..., 0], B[..., 0])


def test_ssim_needs_room_for_its_window():
    with pytest.raises(ValueError, match="11 pixels"):
        image.ssim(A[:10, :10], B[:10, :10])


def test_resize_keeps_a_flat_image_flat_and_averages_areas():
    checker = np.zeros((8, 8, 3), np.uint8)
    checker[::2] = 200
    assert (image.resize(checker, 4) == 100).all()
    assert image.resize(checker, 8) is checker
    assert image.resize(np.full((8, 8, 3), 7, np.uint8), 16).shape == (16, 16, 3)


METRICS = [image.l1, image.mse, image.psnr, image.ssim]


@pytest.mark.parametrize("metric", METRICS)
def test_a_mask_of_everything_changes_nothing_and_an_empty_one_has_no_value(metric):
    whole, nothing = np.ones(A.shape[:2], bool), np.zeros(A.shape[:2], bool)
    assert metric(A, B, whole) == pytest.approx(metric(A, B), abs=1e-12)
    assert np.isnan(metric(A, B, nothing))
    with pytest.raises(ValueError, match="mask"):
        metric(A, B, whole[1:])


def test_a_mask_leaves_out_the_rest():
    mask = np.zeros(A.shape[:2], bool)
    mask[:10] = True
    other = B.copy()
    other[10:] = A[10:]
    assert image.l1(A, other, mask) == image.l1(A[:10], other[:10])
    assert image.mse(A, other, ~mask) == 0
    assert image.psnr(A, other, ~mask) == float("inf")


def test_ssim_with_a_mask_is_the_mean_over_windows_centred_in_it():
    """A mask of one pixel leaves the window around it."""
    mask = np.zeros(A.shape[:2], bool)
    mask[12, 9] = True
    assert image.ssim(A, B, mask) == pytest.approx(image.ssim(A[7:18, 4:15], B[7:18, 4:15]), abs=1e-9)

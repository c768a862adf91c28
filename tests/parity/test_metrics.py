"""Metrics against scipy and scikit-image."""

import numpy as np
import pytest
from scipy import stats
from skimage import metrics as reference

from remime.metrics import image
from remime.metrics.expression import fl_corr, signals
from remime.metrics.statistics import spearman
from remime.metrics.temporal import pearson


@pytest.fixture(params=[(64, 64), (96, 40), (11, 33)], ids=str)
def pair(request) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (*request.param, 3))
    smooth = np.cumsum(rng.normal(0, 4, base.shape), axis=0) + 128
    a = np.clip(smooth, 0, 255).astype(np.uint8)
    return a, np.clip(0.9 * smooth + 0.1 * base, 0, 255).astype(np.uint8)


def test_pearson_equals_scipy():
    rng = np.random.default_rng(0)
    for n in (3, 10, 500):
        a, b = rng.normal(size=n), rng.normal(size=n)
        assert pearson(a, a + b) == pytest.approx(stats.pearsonr(a, a + b).statistic, abs=1e-12)


def test_fl_corr_equals_the_mean_of_scipys_correlations():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 100, (30, 68, 2)), rng.uniform(0, 100, (30, 68, 2))
    expected = np.mean(
        [stats.pearsonr(x, y).statistic for x, y in zip(signals(a).T, signals(b).T, strict=True)]
    )
    assert fl_corr(a, b).value == pytest.approx(expected, abs=1e-12)


def test_psnr_and_mse_equal_scikit_image(pair):
    a, b = pair
    assert image.psnr(a, b) == pytest.approx(
        reference.peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9
    )
    assert image.mse(a, b) == pytest.approx(reference.mean_squared_error(a / 255, b / 255), abs=1e-12)


def test_ssim_equals_scikit_image(pair):
    a, b = pair
    expected = reference.structural_similarity(
        a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert image.ssim(a, b) == pytest.approx(expected, abs=1e-9)


def test_masked_ssim_is_the_mean_of_scikit_images_map(pair):
    a, b = pair
    _, values = reference.structural_similarity(
        a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    mask = np.zeros(a.shape[:2], bool)
    mask[5:-5, 5:-5] = np.random.default_rng(1).random((a.shape[0] - 10, a.shape[1] - 10)) < 0.5
    mask[5, 5:-5] = True
    assert image.ssim(a, b, mask) == pytest.approx(values[mask].mean(), abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_equals_scipy(ties):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), rng.normal(size=40)
    a, b = (np.round(x) for x in (a, b)) if ties else (a, a + b)
    clips = [str(i % 8) for i in range(40)]
    assert spearman(a, b, clips, samples=10).value == pytest.approx(
        stats.spearmanr(a, b).statistic, abs=1e-12
    )

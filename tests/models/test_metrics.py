"""Metrics agree with scikit-image, and with their definitions."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stillscan.models.metrics.image_quality import gmsd, psnr, ssim


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(64, 80, generator=generator)
    return truth + 0.1 * torch.randn(64, 80, generator=generator), truth


def test_psnr_agrees_with_scikit_image(pair):
    estimate, truth = pair
    expected = peak_signal_noise_ratio(truth.numpy(), estimate.numpy(), data_range=1.0)
    assert psnr(estimate, truth) == pytest.approx(expected, abs=1e-4)


def test_ssim_agrees_with_scikit_image(pair):
    estimate, truth = pair
    expected = structural_similarity(
        truth.double().numpy(),
        estimate.double().numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(estimate, truth) == pytest.approx(expected, abs=1e-6)


def test_psnr_of_the_truth_is_infinite(pair):
    assert psnr(pair[1], pair[1]) == float("inf")


def test_psnr_of_the_foreground_looks_only_there(pair):
    estimate, truth = pair
    where = truth > 0.5
    changed = torch.where(where, estimate, torch.zeros_like(estimate))
    assert psnr(changed, truth, where=where) == psnr(estimate, truth, where=where)
    assert psnr(changed, truth) < psnr(estimate, truth)


def test_gmsd_of_the_truth_is_zero_and_grows_with_damage(pair):
    estimate, truth = pair
    worse = truth + 3 * (estimate - truth)
    assert gmsd(truth, truth) == 0
    assert 0 < gmsd(estimate, truth) < gmsd(worse, truth)


def test_gmsd_agrees_with_its_definition_written_in_numpy(pair):
    """Xue et al. 2014 on 0..255, with scipy's convolution."""

    def gradient(plane):
        small = plane.double().numpy().reshape(32, 2, 40, 2).mean((1, 3)) * 255
        prewitt = np.array([[1.0, 0.0, -1.0]] * 3) / 3
        across, down = (convolve2d(small, k, mode="valid") for k in (prewitt, prewitt.T))
        return np.hypot(across, down)

    x, y = (gradient(plane) for plane in pair)
    expected = ((2 * x * y + 170) / (x**2 + y**2 + 170)).std()
    assert gmsd(*pair) == pytest.approx(expected, abs=1e-9)

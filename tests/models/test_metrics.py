"""Metrics agree with scikit-image."""

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.metrics import psnr, ssim


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

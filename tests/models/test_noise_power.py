"""What an estimate leaves of the noise: frequencies, correlation, and how its patches look."""

import math

import pytest
import torch

from stillscan.models.metrics.noise_power import (
    error_noise_correlation,
    mean_frequency,
    mean_frequency_shift,
    noise_power_spectrum,
    patch_distance,
)
from stillscan.models.noise import synthesis

SIZE = torch.Size((128, 96))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def truth():
    return torch.linspace(0, 1, 96).expand(SIZE)


def test_white_noise_has_a_flat_spectrum_and_mean_frequency_of_a_quarter(generator):
    frequency, power = noise_power_spectrum(0.5 * synthesis.white_noise(SIZE, generator))
    assert power[4:].mean().item() == pytest.approx(0.25, rel=0.03)  # sigma^2
    assert frequency[-1].item() == 0.5
    assert mean_frequency(synthesis.white_noise(SIZE, generator)) == pytest.approx(0.25, abs=0.02)


def test_spectrum_of_correlated_noise_is_the_one_it_was_made_with(generator):
    spectrum = synthesis.gaussian_spectrum(*SIZE, 1.2, 1.2)
    planes = [synthesis.correlated_noise(spectrum, generator) for _ in range(8)]
    frequency, power = (
        torch.stack(part).mean(0) for part in zip(*map(noise_power_spectrum, planes), strict=True)
    )
    expected = torch.exp(-4 * math.pi**2 * (1.2 * frequency) ** 2) / spectrum.mean()
    low = frequency < 0.15
    assert torch.allclose(power[low], expected[low].double(), rtol=0.35)


def test_coarse_leftovers_shift_the_mean_frequency_down(generator, truth):
    n = synthesis.white_noise(SIZE, generator)
    blobs = synthesis.correlated_noise(synthesis.gaussian_spectrum(*SIZE, 2.0, 2.0), generator)
    assert mean_frequency_shift(truth + n, truth, n) == pytest.approx(0, abs=1e-6)
    assert mean_frequency_shift(truth + blobs, truth, n) < -0.1


def test_error_of_the_noisy_image_is_its_noise_and_fresh_noise_is_not(generator, truth):
    n, other = (synthesis.white_noise(SIZE, generator) for _ in range(2))
    assert error_noise_correlation(truth + n, truth, n) == pytest.approx(1, abs=1e-5)
    assert abs(error_noise_correlation(truth + other, truth, n)) < 0.05


def test_correlation_of_an_mmse_estimate_is_its_error_over_sigma(generator):
    """Wiener filter of a Gaussian signal: the closed form of the docstring."""
    x = 2 * synthesis.white_noise(SIZE, generator)
    n = synthesis.white_noise(SIZE, generator)
    estimate = 0.8 * (x + n)
    rmse = float((estimate - x).square().mean().sqrt())
    assert error_noise_correlation(estimate, x, n) == pytest.approx(rmse, abs=0.03)


def test_patch_distance_of_shifted_intensities_is_the_shift(truth):
    assert patch_distance(truth, truth) == pytest.approx(0, abs=1e-6)
    assert patch_distance(truth + 0.25, truth) == pytest.approx(0.25, rel=1e-6)


def test_patch_distance_of_white_noise_levels_is_their_difference(generator):
    """Between normal laws s1^2 I and s2^2 I it is |s1 - s2| per pixel."""
    large = torch.Size((512, 512))
    first, second = (s * synthesis.white_noise(large, generator) for s in (0.3, 0.1))
    assert patch_distance(first, second) == pytest.approx(0.2, abs=0.004)

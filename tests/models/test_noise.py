"""Noise models: their moments and their correlation are those that they are named after."""

import math

import pytest
import torch

from stillscan.models.noise import synthesis

FLAT = torch.full((256, 256), 0.4)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_gaussian_noise_has_mean_zero_and_its_sigma(generator):
    residual = synthesis.add_gaussian(FLAT, 0.05, generator) - FLAT
    assert residual.mean().item() == pytest.approx(0, abs=0.05 * 4 / 256)
    assert residual.std().item() == pytest.approx(0.05, rel=0.02)


def test_poisson_variance_is_the_signal_over_the_intensity(generator):
    noisy = synthesis.add_poisson(FLAT, 200.0, generator)
    assert noisy.mean().item() == pytest.approx(0.4, rel=0.005)
    assert noisy.var().item() == pytest.approx(0.4 / 200, rel=0.03)


def test_gamma_deviation_is_the_signal_over_the_root_of_the_shape(generator):
    noisy = synthesis.add_gamma(FLAT, 100.0, generator)
    assert noisy.mean().item() == pytest.approx(0.4, rel=0.005)
    assert noisy.std().item() == pytest.approx(0.4 / 10, rel=0.02)


@pytest.mark.parametrize("length", [0.5, 1.2])
def test_correlated_noise_has_the_correlation_of_its_gaussian(length, generator):
    residual = synthesis.add_correlated(FLAT, 0.1, length, generator) - FLAT
    assert residual.std().item() == pytest.approx(0.1, rel=0.05)
    neighbour = (residual[:, 1:] * residual[:, :-1]).mean() / residual.var()
    # sampled Gaussian kernel: exact in the frequency domain, exp(-1 / 4 length^2) for length >= 1
    spectrum = synthesis.gaussian_spectrum(256, 256, length, length)
    expected = synthesis.autocorrelation(spectrum)[0, 1].item()
    assert neighbour.item() == pytest.approx(expected, abs=0.03)
    if length >= 1:
        assert expected == pytest.approx(math.exp(-1 / (4 * length**2)), abs=0.01)


@pytest.mark.parametrize("level", [0.0, 0.05, 0.4])
def test_rician_moments_match_the_closed_form(level, generator):
    true = torch.full((512, 512), level)
    noisy = synthesis.add_rician(true, 0.05, generator)
    assert noisy.mean().item() == pytest.approx(
        synthesis.rician_mean(true[0, :1], 0.05).item(), rel=0.01
    )
    assert noisy.std().item() == pytest.approx(
        synthesis.rician_deviation(true[0, :1], 0.05).item(), rel=0.01
    )


def test_every_spectrum_gives_unit_variance(generator):
    for spectrum in (
        synthesis.zero_filled_spectrum(128, 128, 0.6, 0.8, 0.3),
        synthesis.backprojection_spectrum(128, 128, 0.3, 2.0),
        synthesis.gaussian_spectrum(128, 128, 2.0, 1.0),
    ):
        values = torch.stack([synthesis.correlated_noise(spectrum, generator) for _ in range(8)])
        assert values.std().item() == pytest.approx(1, rel=0.05)


def test_the_same_generator_state_gives_the_same_noise():
    first, second = (
        synthesis.add_rician(FLAT, 0.1, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)

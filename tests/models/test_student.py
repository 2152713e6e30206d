"""The student network: what its construction promises, whatever its weights."""

import pytest
import torch

from stillscan.models.denoisers.student import StudentDenoiser, pad_to_multiple
from stillscan.models.networks.student import BOUND, StudentNetwork
from stillscan.models.noise.profile import CORRELATION_LAGS, MAX_LAG, NoiseProfile


def white_profile(sigma: float) -> NoiseProfile:
    import numpy as np

    acf = np.zeros((2 * MAX_LAG + 1, 2 * MAX_LAG + 1))
    acf[MAX_LAG, MAX_LAG] = 1
    return NoiseProfile(sigma, (0.0,), (sigma,), acf, "gaussian")


@pytest.fixture
def network():
    """Random weights, large enough that the output is far from zero."""
    torch.manual_seed(0)
    network = StudentNetwork(widths=(8, 16, 16), middle_blocks=1)
    torch.nn.init.normal_(network.noise.weight, std=0.3)
    return network


def test_an_untrained_student_is_the_identity():
    image = torch.rand(1, 1, 40, 48)
    denoiser = StudentDenoiser(StudentNetwork(widths=(8, 16, 16)), precision=torch.float32)
    assert torch.equal(denoiser.denoise(image, white_profile(0.1)).mean, image)


@pytest.mark.parametrize("size", [(67, 61), (8, 8), (1, 1), (3, 200), (64, 64)])
def test_output_has_the_size_of_the_input(network, size):
    image = torch.rand(2, 1, *size)
    estimate = StudentDenoiser(network).denoise(image, white_profile(0.1))
    assert estimate.mean.shape == image.shape
    assert estimate.spread is not None
    assert estimate.spread.shape == image.shape


def test_a_network_of_two_levels_takes_images_of_every_size():
    image = torch.rand(1, 1, 116, 108)
    denoiser = StudentDenoiser(StudentNetwork(widths=(4, 8)))
    assert denoiser.denoise(image, white_profile(0.1)).mean.shape == image.shape


def test_no_pixel_changes_by_more_than_the_bound(network):
    torch.nn.init.normal_(network.noise.weight, std=100.0)
    image = torch.randn(1, 1, 64, 64)
    estimate = StudentDenoiser(network, precision=torch.float32).denoise(image, white_profile(0.1))
    assert (estimate.mean - image).abs().max() <= BOUND * 0.1 * (1 + 1e-5)


@pytest.mark.parametrize("gain", [1e-3, 7.0, 4096.0])
def test_scaling_the_image_and_its_noise_scales_the_estimate(network, gain):
    denoiser = StudentDenoiser(network, precision=torch.float32)
    image = torch.rand(1, 1, 64, 64)
    one = denoiser.denoise(image, white_profile(0.1)).mean
    other = denoiser.denoise(gain * image, white_profile(0.1).rescaled(gain, 0.0)).mean
    torch.testing.assert_close(other / gain, one, rtol=1e-4, atol=1e-5)


def test_adding_a_constant_to_the_image_adds_it_to_the_estimate(network):
    denoiser = StudentDenoiser(network, precision=torch.float32)
    image = torch.rand(1, 1, 64, 64)
    one = denoiser.denoise(image, white_profile(0.1)).mean
    other = denoiser.denoise(image + 3, white_profile(0.1)).mean
    torch.testing.assert_close(other - 3, one, rtol=1e-4, atol=1e-4)


def test_bfloat16_does_not_round_the_image(network):
    """The residual is rounded, never the image: 12 bits of intensity survive a tiny sigma."""
    image = torch.rand(1, 1, 64, 64)
    estimate = StudentDenoiser(network, precision=torch.bfloat16).denoise(
        image, white_profile(1e-5)
    )
    assert (estimate.mean - image).abs().max() < BOUND * 1.001e-5


def test_what_the_uncertainty_learns_does_not_reach_the_mean(network):
    image, sigma = torch.rand(1, 1, 32, 32), torch.full((1, 1, 32, 32), 0.1)
    _, log_variance = network(image, sigma, torch.zeros(1, len(CORRELATION_LAGS)))
    log_variance.sum().backward()
    assert network.noise.weight.grad is None
    assert all(parameter.grad is None for parameter in network.body.parameters())


def test_padding_keeps_the_image_in_its_corner():
    image = torch.rand(1, 1, 13, 9)
    padded = pad_to_multiple(image, 8)
    assert padded.shape == (1, 1, 16, 16)
    assert torch.equal(padded[..., :13, :9], image)


@pytest.mark.parametrize(("in_hardware", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_unless_told_it_computes_in_what_the_processor_has(
    network, monkeypatch, in_hardware, precision
):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: in_hardware)
    assert StudentDenoiser(network).engine.precision == precision

"""The blind-spot network sees nothing of its own pixel, nor of the square around it."""

import pytest
import torch

from stillscan.models.denoisers.blind_spot import BlindSpotDenoiser
from stillscan.models.networks.blind_spot import BlindSpotNetwork, RingConvolution, with_centre
from stillscan.models.training.loop import Training, train
from stillscan.models.training.losses import blind_spot_loss
from stillscan.models.training.noisy_images import NoisyImage, draw_noisy_batches
from tests.models.test_student import white_profile

RADII = range(5)


def network(radius):
    torch.manual_seed(radius)
    return BlindSpotNetwork(radius, width=6, blocks=3)


@pytest.mark.parametrize("radius", RADII)
def test_blind_spot_output_ignores_its_own_square(radius):
    """The Jacobian through autograd: zero for max(|dx|, |dy|) <= r, alive just beyond."""
    size = 4 * radius + 25
    middle = size // 2
    image = torch.rand(1, 1, size, size, requires_grad=True)
    mean, log_variance = network(radius)(image, torch.tensor([0.1]))
    both = mean[0, 0, middle, middle] + log_variance[0, 0, middle, middle]
    (jacobian,) = torch.autograd.grad(both, image)
    hidden = slice(middle - radius, middle + radius + 1)
    assert (jacobian[0, 0, hidden, hidden] == 0).all()
    seen = slice(middle - radius - 1, middle + radius + 2)
    assert (jacobian[0, 0, seen, seen] != 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("radius", RADII)
def test_an_exported_network_ignores_its_own_square(radius):
    """By perturbation: the exported program has no gradients to ask."""
    size = 4 * radius + 25
    image, level = torch.rand(1, 1, size, size), torch.tensor([0.1])
    exported = torch.export.export(network(radius).eval(), (image, level)).module()
    middle = size // 2
    moved = image.clone()
    moved[0, 0, middle - radius : middle + radius + 1, middle - radius : middle + radius + 1] += 5
    before, after = exported(image, level)[0], exported(moved, level)[0]
    assert before[0, 0, middle, middle] == after[0, 0, middle, middle]
    assert not torch.equal(before, after)


def test_the_ring_sees_the_pixels_just_beyond_the_radius():
    ring = RingConvolution(1, 1, 1)
    torch.nn.init.ones_(ring.convolution.weight)
    torch.nn.init.zeros_(ring.convolution.bias)
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[0, 0, 4, 4] = 1
    seen = ring(impulse)[0, 0]
    assert seen.sum() == 16
    assert seen[3:6, 3:6].sum() == 0


def test_the_mask_survives_training():
    blind = network(0)
    training = Training.begin(blind, 1e-2)
    images = [NoisyImage(torch.rand(96, 96), white_profile(0.1))]
    batches = draw_noisy_batches(images, 2, 0, 0, patch=32)
    losses = [step.loss for step in train(training, batches, blind_spot_loss, 20, 1e-2)]
    assert losses[-1] < losses[0]
    image = torch.rand(1, 1, 25, 25, requires_grad=True)
    (jacobian,) = torch.autograd.grad(blind(image, torch.tensor([0.1]))[0][0, 0, 12, 12], image)
    assert jacobian[0, 0, 12, 12] == 0


def test_the_centre_pixel_comes_back_with_the_weight_of_its_noise():
    mean, image = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 5.0)
    one, two = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 1, 1, 1), 2.0)
    estimate, variance = with_centre(mean, one, image, two)
    assert float(estimate) == pytest.approx((2 * 2 + 5 * 1) / 3)
    assert float(variance) == pytest.approx(2 / 3)
    surest, _ = with_centre(mean, one, image, torch.zeros_like(one))
    assert float(surest) == 5.0


def test_the_estimate_with_the_centre_lies_between_prediction_and_pixel():
    blind, image = network(1), torch.rand(2, 1, 40, 33)
    bare = BlindSpotDenoiser(blind, centre=False).denoise(image, white_profile(0.1))
    full = BlindSpotDenoiser(blind).denoise(image, white_profile(0.1))
    low, high = torch.minimum(bare.mean, image), torch.maximum(bare.mean, image)
    assert (full.mean >= low - 1e-5).all()
    assert (full.mean <= high + 1e-5).all()
    assert bare.spread is not None
    assert full.spread is not None
    assert (full.spread <= bare.spread).all()

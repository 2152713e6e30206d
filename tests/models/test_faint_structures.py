"""Structures near the threshold of visibility."""

import pytest
import torch

from stillscan.models.noise.profile import smooth
from stillscan.models.noise.synthesis import correlated_noise, gaussian_spectrum
from stillscan.models.training.faint_structures import SIGNAL, add_faint_structures, share_at_scale

SIDE = 80
WHITE = torch.ones(SIDE, SIDE)


def drawn(seed, image, sigma=0.02, spectrum=WHITE):
    return add_faint_structures(image, sigma, spectrum, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(8))
def test_no_structure_is_stronger_than_a_few_sigma_at_a_pixel(seed):
    added = drawn(seed, torch.full((SIDE, SIDE), 0.5)) - 0.5
    assert 0 < float(added.abs().max()) < 12 * 0.02


def test_structures_are_as_strong_as_the_noise_makes_them_hard_to_see():
    flat = torch.full((SIDE, SIDE), 0.5)
    weak, strong = (drawn(1, flat, sigma) - 0.5 for sigma in (0.01, 0.02))
    torch.testing.assert_close(strong, 2 * weak, atol=1e-6, rtol=1e-4)


def test_air_stays_air():
    image = torch.zeros(SIDE, SIDE)
    image[:, SIDE // 2 :] = 0.4
    for seed in range(8):
        result = drawn(seed, image)
        assert torch.equal(result[image <= SIGNAL], image[image <= SIGNAL])
        assert not torch.equal(result, image)


def test_the_same_draw_gives_the_same_structures():
    image = torch.full((SIDE, SIDE), 0.5)
    assert torch.equal(drawn(5, image), drawn(5, image))
    assert not torch.equal(drawn(5, image), drawn(6, image))


@pytest.mark.parametrize("length", [0.0, 1.2])
def test_the_share_at_a_scale_is_what_smoothing_leaves_of_the_noise(length):
    spectrum = gaussian_spectrum(256, 256, length, length)
    noise = correlated_noise(spectrum, torch.Generator().manual_seed(0))
    left = smooth(noise[None, None])[0, 0, 16:-16, 16:-16].std() / noise.std()
    assert share_at_scale(spectrum, 2.0) == pytest.approx(float(left), rel=0.05)

"""Structures near the threshold of visibility."""

import pytest
import torch

from stillscan.models.noise.profile import smooth
from stillscan.models.noise.synthesis import correlated_noise, gaussian_spectrum
from stillscan.models.training.faint_structures import (
    LESION_VISIBILITY,
    MOST_LESIONS,
    SIGNAL,
    add_faint_structures,
    draw_lesions,
    share_at_scale,
)

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


@pytest.mark.parametrize("length", [0.0, 1.2])
def test_the_visibility_of_lesions_is_what_a_matched_filter_reads(length):
    spectrum = gaussian_spectrum(SIDE, SIDE, length, length)
    generator = torch.Generator().manual_seed(2)
    noise = torch.stack([0.02 * correlated_noise(spectrum, generator) for _ in range(400)])
    read = []
    for _ in range(30):
        flat = torch.full((SIDE, SIDE), 0.5)
        lesions, visibility = draw_lesions(flat, 0.02 * flat / 0.5, spectrum, generator)
        assert LESION_VISIBILITY[0] <= visibility <= LESION_VISIBILITY[1]
        spread = (noise * lesions).sum((1, 2)).std()
        read.append(float(lesions.square().sum() / spread) / visibility)
    assert min(read) == pytest.approx(1, abs=0.2)  # a single one
    assert max(read) < 1.2 * MOST_LESIONS**0.5


def test_no_lesion_lies_in_air():
    image = torch.zeros(SIDE, SIDE)
    image[:, SIDE // 2 :] = 0.4
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        lesions, _ = draw_lesions(image, torch.full_like(image, 0.02), WHITE, generator)
        assert lesions[image <= SIGNAL].abs().max() == 0

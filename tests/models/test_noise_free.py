"""Places without noise: the network sees noise there, and they come back bit by bit."""

import numpy as np
import pytest
import torch

from stillscan.models.denoisers.denoiser import Estimate
from stillscan.models.denoisers.noise_everywhere import denoise_with_noise_everywhere
from stillscan.models.noise.noise_free import constant_places, exact_places, noise_everywhere
from stillscan.models.noise.profile import MAX_LAG, NoiseProfile

WHITE = np.pad([[1.0]], MAX_LAG)
NOISE = NoiseProfile(0.1, (0.5,), (0.1,), WHITE, "gaussian")


@pytest.fixture
def image():
    """Noise around 0.5 with air of 0 above and a collimated strip of 0.2 on the left."""
    image = torch.from_numpy(np.random.default_rng(1).normal(0.5, 0.1, (96, 80))).float()
    image[:30] = 0
    image[:, :9] = 0.2
    return image


class Watched:
    """Takes 0.01 away everywhere and remembers what it saw."""

    def denoise(self, image, noise):
        self.seen = image
        return Estimate(image - 0.01, torch.full_like(image, 0.05))


def test_constant_places_are_those_of_squares_of_three_pixels(image):
    image[60:62, 40:60] = 0.7  # two rows are no square of three
    image[70:73, 40:43] = 0.7
    places = constant_places(image)
    expected = torch.zeros_like(places)
    expected[:30] = expected[:, :9] = expected[70:73, 40:43] = True
    assert torch.equal(places, expected)
    assert not constant_places(torch.zeros(2, 9)).any()


def test_a_zero_keeps_its_value_wherever_it_is(image):
    image[50, 50] = 0
    assert exact_places(image)[50, 50]
    assert not constant_places(image)[50, 50]


def test_an_extreme_that_many_pixels_share_keeps_its_value(image):
    saturated = torch.rand(96, 80, generator=torch.Generator().manual_seed(2)) < 0.05
    image[saturated] = 1.5
    assert exact_places(image)[saturated].all()
    image[40, 40] = 1.6  # alone at the top
    assert not exact_places(image)[40, 40]


def test_the_network_sees_noise_of_the_measured_law_everywhere(image):
    watched = Watched()
    estimate = denoise_with_noise_everywhere(watched, image[None, None], NOISE)
    seen, exact = watched.seen[0, 0], exact_places(image)
    assert torch.equal(seen[~exact], image[~exact])
    assert float(seen[:25, 12:].std()) == pytest.approx(0.1, rel=0.1)
    assert float(seen[35:, :6].std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal(estimate.mean[0, 0][exact], image[exact])
    assert (estimate.spread[0, 0][exact] == 0).all()
    assert torch.allclose(estimate.mean[0, 0][~exact], image[~exact] - 0.01)


def test_air_of_a_rician_image_is_filled_with_a_magnitude(image):
    sigma = 0.05
    rician = NoiseProfile(sigma, (0.0, 0.2), (0.655 * sigma, sigma), WHITE, "rician")
    air = noise_everywhere(image, rician)[:25, 12:]
    assert float(air.min()) > 0
    assert float(air.mean()) == pytest.approx(1.2533 * sigma, rel=0.1)


def test_noise_is_told_with_its_correlation(image):
    acf = WHITE.copy()
    acf[MAX_LAG, MAX_LAG - 1] = acf[MAX_LAG, MAX_LAG + 1] = 0.5
    profile = NoiseProfile(0.1, (0.5,), (0.1,), acf, "correlated")
    air = noise_everywhere(image, profile)[:25, 12:].numpy()
    air = air - air.mean()
    assert (air[:, 1:] * air[:, :-1]).mean() / air.var() == pytest.approx(0.5, abs=0.1)
    assert (air[1:] * air[:-1]).mean() / air.var() == pytest.approx(0, abs=0.1)


def test_an_image_with_noise_everywhere_is_shown_as_it_is(image):
    whole, watched = image[35:, 12:], Watched()
    denoise_with_noise_everywhere(watched, whole[None, None], NOISE)
    assert torch.equal(watched.seen[0, 0], whole)

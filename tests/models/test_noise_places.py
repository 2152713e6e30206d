"""Noise that differs over the image: measured by place, and only where it does."""

import numpy as np
import pytest
import torch

from stillscan.models.noise import synthesis
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.noise_free import noise_everywhere
from stillscan.models.noise.profile import MAX_LAG, NoiseProfile, PlaceMap
from stillscan.models.training.dead_leaves import dead_leaves

WHITE = np.pad([[1.0]], MAX_LAG)


@pytest.fixture(scope="module")
def leaves():
    rng = np.random.default_rng(7)
    return [torch.from_numpy(dead_leaves(192, rng)) for _ in range(3)]


def distance_from_centre(side):
    y, x = np.mgrid[:side, :side] + 0.5
    return torch.from_numpy(np.hypot(y - side / 2, x - side / 2) / (side / 2)).float()


@pytest.mark.parametrize("ends", [(5, 20), (20, 5)], ids=["noisy centre", "noisy rim"])
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_level_of_rim_and_centre_is_found(leaves, ends, modality):
    rim, centre = (end / 255 for end in ends)
    distance = distance_from_centre(192)
    true = rim + (centre - rim) * torch.exp(-((distance / 0.5) ** 2))
    generator = torch.Generator().manual_seed(3)
    noisy = [image + true * synthesis.white_noise(image.shape, generator) for image in leaves]
    profile = estimate_noise_profile(noisy, signal_dependent=modality != "MR")
    assert profile.certainty == "confirmed"
    measured = torch.stack([profile.sigma_map(image[None, None])[0, 0] for image in noisy])
    for place in (distance < 0.35, distance > 0.9):
        ratio = measured[:, place].square().mean().sqrt() / true[place].square().mean().sqrt()
        assert 1 / 1.25 < ratio < 1.25


@pytest.mark.parametrize(
    ("noise", "strength"),
    [("gaussian", 2 / 255), ("gaussian", 15 / 255), ("poisson", 200.0), ("gamma", 100.0)],
)
def test_noise_that_is_the_same_everywhere_has_no_map(leaves, noise, strength):
    generator = torch.Generator().manual_seed(3)
    add = getattr(synthesis, f"add_{noise}")
    profile = estimate_noise_profile([add(image, strength, generator) for image in leaves])
    assert profile.places is None


def profile_with_map():
    factors = np.array([[0.5, 1.0, 2.0], [1.0, 1.5, 0.5]])
    places = PlaceMap(factors, (10.0, 12.0), (30.0, 20.0))
    return NoiseProfile(0.1, (0.5,), (0.1,), WHITE, "gaussian", places=places)


def test_a_part_of_an_image_has_the_map_of_its_place():
    profile = profile_with_map()
    whole = profile.sigma_map(torch.rand(1, 1, 48, 64))
    assert whole.min() < 0.06
    assert whole.max() > 0.19
    part = profile.sigma_map(torch.rand(1, 1, 20, 30), (17, 9))
    assert torch.equal(part, whole[..., 17:37, 9:39])
    moved = profile.places.moved(5, 7).over(48, 64)[5:, 7:]
    assert torch.allclose(0.1 * moved, whole[0, 0, :-5, :-7])


def test_constant_places_are_filled_with_the_noise_of_their_place():
    profile = profile_with_map()
    filled = noise_everywhere(torch.full((48, 64), 0.5), profile)
    standard = (filled - 0.5) / profile.sigma_map(torch.zeros(1, 1, 48, 64))[0, 0]
    for part in (standard[:24], standard[24:], standard[:, :20], standard[:, 40:]):
        assert float(part.std()) == pytest.approx(1, rel=0.1)

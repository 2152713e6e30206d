"""Independent measurements of the noise: what they say together, and what none can say."""

import numpy as np
import pytest
import torch

from stillscan.models.noise import synthesis
from stillscan.models.noise.blocks import Plane, cut_blocks
from stillscan.models.noise.estimation import estimate_noise_profile
from stillscan.models.noise.evenness import is_uneven
from stillscan.models.noise.spectrum import FINE, MIDDLE, measure_band
from stillscan.models.training.dead_leaves import dead_leaves


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture(scope="module")
def leaves():
    rng = np.random.default_rng(7)
    return [torch.from_numpy(dead_leaves(192, rng)) for _ in range(3)]


def discs(generator):
    """Discs of 1 to 4 pixels everywhere: structure at every scale, without a flat place."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:192, :192]
    image = np.full((192, 192), 0.5)
    for _ in range(9000):
        row, column, radius = *rng.uniform(0, 192, 2), rng.uniform(1.2, 4)
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] = rng.uniform(0.2, 0.9)
    return torch.from_numpy(image).float()


@pytest.mark.parametrize("level", [1, 2, 4])
@pytest.mark.parametrize("length", [0.0, 0.5])
def test_weak_noise_is_found_between_sharp_structure(leaves, generator, level, length):
    sigma = level / 255
    add = synthesis.add_correlated if length else synthesis.add_gaussian
    argument = (sigma, length) if length else (sigma,)
    noisy = [add(image, *argument, generator) for image in leaves]
    profile = estimate_noise_profile(noisy)
    assert profile.certainty == "confirmed"
    assert profile.sigma == pytest.approx(sigma, rel=0.15)


def test_structure_of_all_scales_is_not_measured_as_noise(generator):
    noisy = [synthesis.add_gaussian(discs(generator), 0.02, generator) for _ in range(3)]
    profile = estimate_noise_profile(noisy, signal_dependent=False)
    assert profile.certainty == "not measured" or profile.sigma < 1.25 * 0.02


@pytest.mark.parametrize(("band", "length"), [(FINE, 0.0), (FINE, 0.5), (MIDDLE, 1.2)])
def test_a_band_finds_level_and_correlation_of_pure_noise(generator, band, length):
    flat = torch.full((256, 256), 0.5)
    noisy = synthesis.add_correlated(flat, 0.05, max(length, 1e-3), generator).double().numpy()
    found = measure_band(cut_blocks([Plane(noisy)], band.block_size), band)
    expected = synthesis.autocorrelation(
        synthesis.gaussian_spectrum(64, 64, max(length, 1e-3), max(length, 1e-3))
    )
    assert found.proven
    assert found.curve.variance(np.array([0.5])) ** 0.5 == pytest.approx(0.05, rel=0.1)
    assert found.correlation.acf[4, 5] == pytest.approx(float(expected[0, 1]), abs=0.1)


def test_a_band_says_nothing_of_noise_that_has_no_power_in_it(generator):
    flat = torch.full((256, 256), 0.5)
    noisy = synthesis.add_correlated(flat, 0.05, 1.2, generator).double().numpy()
    assert measure_band(cut_blocks([Plane(noisy)], FINE.block_size), FINE) is None


@pytest.mark.parametrize("signal_dependent", [True, False])
def test_noise_that_depends_on_the_signal_is_proven_by_two_measurements(
    leaves, generator, signal_dependent
):
    noisy = [synthesis.add_poisson(image.clamp(min=0), 200.0, generator) for image in leaves]
    profile = estimate_noise_profile(noisy, signal_dependent=signal_dependent)
    assert profile.family in ("poisson", "gamma")


def test_one_measurement_alone_is_called_so(generator):
    """Zero-filled noise has no fine detail and no Gaussian spectrum: flat places alone know it."""
    spectrum = synthesis.zero_filled_spectrum(256, 256, 0.4, 0.4, 0.0)
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    clean = 0.5 + 0.2 * ((y // 64 + x // 64) % 2)
    noisy = [clean + 0.05 * synthesis.correlated_noise(spectrum, generator) for _ in range(3)]
    profile = estimate_noise_profile(noisy)
    supporting = [each for each in profile.witnesses if 0.7 < each.sigma / profile.sigma < 1.4]
    assert (profile.certainty == "confirmed") == (len(supporting) > 1)
    assert profile.sigma == pytest.approx(0.05, rel=0.2)


def test_witnesses_are_rescaled_with_the_profile(leaves, generator):
    profile = estimate_noise_profile([synthesis.add_gaussian(leaves[0], 0.05, generator)])
    larger = profile.rescaled(100.0, -3.0)
    assert [each.sigma for each in larger.witnesses] == pytest.approx(
        [100 * each.sigma for each in profile.witnesses]
    )


def test_slices_of_other_noise_make_a_series_uneven(leaves, generator):
    quiet = [synthesis.add_gaussian(image, 0.02, generator).numpy() for image in leaves]
    strong = [synthesis.add_gaussian(image, 0.08, generator).numpy() for image in leaves]
    assert not is_uneven(quiet)
    assert is_uneven([*quiet, *strong])
    assert not is_uneven([*quiet, np.zeros((192, 192), np.float32)])

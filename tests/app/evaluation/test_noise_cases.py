"""Simulated noise: its stated profile is what the noisy images show."""

import pytest
import torch

from stillscan.app.evaluation.noise_cases import NAMES, UnknownNoiseError, noise_case
from stillscan.models.noise.profile import MAX_LAG


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [0.1, 0.5])
def test_stated_deviation_and_mean_are_those_of_the_noise(name, level):
    case, clean = noise_case(name), torch.full((256, 256), level)
    noisy = case.add(clean, torch.Generator().manual_seed(0))
    profile = case.profile(torch.linspace(0, 1, 200).expand(1, 4, 200))
    stated = profile.sigma_map(case.mean(clean)[None, None]).mean().item()
    assert noisy.std().item() == pytest.approx(stated, rel=0.04)
    assert noisy.mean().item() == pytest.approx(case.mean(clean)[0, 0].item(), abs=stated / 20)


@pytest.mark.parametrize("name", ["correlated 0.5 px 6", "correlated 1.2 px 15", "gaussian 15"])
def test_stated_correlation_is_that_of_the_noise(name):
    case, clean = noise_case(name), torch.zeros(512, 512)
    noisy = case.add(clean, torch.Generator().manual_seed(0))
    acf = case.profile(torch.ones(1, 8, 8)).acf
    for lag in (1, 2):
        measured = (noisy[:, lag:] * noisy[:, :-lag]).mean() / noisy.square().mean()
        assert acf[MAX_LAG, MAX_LAG + lag] == pytest.approx(measured.item(), abs=0.03)


def test_noise_of_any_strength_has_a_name():
    case = noise_case("gaussian 10")
    assert case.strength == pytest.approx(10 / 255)
    assert noise_case("correlated 2 px 9").length == 2


@pytest.mark.parametrize("name", ["", "gauss 15", "gaussian", "gaussian x", "gaussian 0", "rician"])
def test_a_name_that_says_nothing_is_refused(name):
    with pytest.raises(UnknownNoiseError, match="gaussian 15"):
        noise_case(name)

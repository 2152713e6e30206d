"""The clean-free choice of a teacher agrees with the truth."""

import math

import pytest
import torch

from stillscan.models.denoisers.denoiser import Estimate, IdentityDenoiser
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.models.training.teacher_choice import behind_db, choose
from tests.models.test_student import white_profile

SIGMA = 0.1


class Blur:
    """A mean over a square of `size`: right where the image is flat."""

    def __init__(self, size):
        self.size = size

    def denoise(self, image, noise):
        mean = torch.nn.functional.avg_pool2d(
            image, self.size, 1, self.size // 2, count_include_pad=False
        )
        return Estimate(mean)


def noisy(number):
    generator = torch.Generator().manual_seed(number)
    x = torch.linspace(0, 1, 96)[None].expand(96, 96)
    return NoisyImage(x + SIGMA * torch.randn(96, 96, generator=generator), white_profile(SIGMA))


def test_the_best_denoiser_of_smooth_images_is_chosen():
    candidates = {"identity": IdentityDenoiser(), "3": Blur(3), "7": Blur(7)}
    chosen, table = choose(candidates, [noisy(n) for n in range(6)], 0)
    assert chosen == "7"
    behind = {line.name: line.behind_db for line in table}
    assert behind["7"] == 0
    assert behind["identity"] > behind["3"] > 0


def test_the_error_against_the_clean_image_is_estimated():
    _, table = choose({"identity": IdentityDenoiser()}, [noisy(n) for n in range(6)], 0)
    # y + a z as an estimate of x errs by (1 + a^2) sigma^2: 0.97 dB
    assert abs(table[0].error_db - 0.97) < 0.3


def test_the_first_stays_where_a_later_one_is_no_better():
    candidates = {"first": Blur(3), "same": Blur(3)}
    assert choose(candidates, [noisy(n) for n in range(4)], 0)[0] == "first"


def test_the_interval_is_as_wide_as_that_of_the_mean_of_the_differences():
    better = torch.full((400,), 0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    difference = 0.1 + 0.2 * torch.randn(400, generator=generator, dtype=torch.float64)
    found = behind_db(better + difference, better, seed=0)
    mean, error = float(difference.mean()), float(difference.std()) / 20
    expected = [10 * math.log10(1 + (mean + z * error) / 0.5) for z in (0, -1.96, 1.96)]
    assert found.value == pytest.approx(expected[0])
    assert found.ends == pytest.approx(expected[1:], abs=0.02)

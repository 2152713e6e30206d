"""Samplers against closed forms and against MONAI's."""

import math

import pytest
import torch

from stillscan.models.sampling.samplers import (
    ddim_sample,
    gaussian_deviation,
    mean_and_spread,
    srds_sample,
)
from stillscan.models.sampling.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()


def gaussian_predictor(mean, deviation):
    """The exact E[z_0 | z_t] for z_0 ~ N(mean, deviation^2)."""

    def predict(z, a):
        gain = math.sqrt(a) * deviation**2 / (a * deviation**2 + 1 - a)
        return mean + gain * (z - math.sqrt(a) * mean)

    return predict


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 1000])
def test_samples_of_a_gaussian_law_have_the_closed_form_deviation(steps):
    predict = gaussian_predictor(0.3, 0.4)
    sample = ddim_sample(predict, normal(1, 1, 64, 64), SCHEDULE, steps)
    expected = 0.3 + gaussian_deviation(SCHEDULE, steps, 0.4) * normal(1, 1, 64, 64)
    torch.testing.assert_close(sample, expected, rtol=1e-6, atol=3e-3)


def test_many_steps_give_the_law_itself():
    assert gaussian_deviation(SCHEDULE, 1000, 0.4) == pytest.approx(0.4, rel=0.01)


def test_stochastic_samples_have_the_law_at_1000_steps_and_fall_short_of_it_at_few():
    def sample(steps):
        generator = torch.Generator().manual_seed(1)
        noise = normal(1, 1, 128, 128).float()
        predict = gaussian_predictor(0.3, 0.4)
        return ddim_sample(predict, noise, SCHEDULE, steps, eta=1.0, generator=generator)

    assert float(sample(1000).mean()) == pytest.approx(0.3, abs=0.02)
    assert float(sample(1000).std()) == pytest.approx(0.4, rel=0.03)
    assert float(sample(5).std()) < gaussian_deviation(SCHEDULE, 5, 0.4) < 0.4


def test_the_pair_mean_of_an_affine_denoiser_does_not_depend_on_the_noise():
    predict = gaussian_predictor(torch.linspace(-1, 1, 64).view(1, 1, 8, 8).double(), 0.2)
    one, other = (
        srds_sample(predict, normal(1, 1, 1, 8, 8, seed=seed), SCHEDULE, 10, torch.tensor(0.0)).mean
        for seed in (1, 2)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_the_pair_mean_of_an_exact_gaussian_denoiser_is_its_conditional_mean():
    mean = torch.linspace(-1, 1, 64).view(1, 1, 8, 8).double()
    sample = srds_sample(
        gaussian_predictor(mean, 0.2), normal(2, 1, 1, 8, 8), SCHEDULE, 20, torch.tensor(0.2)
    )
    last = math.sqrt(float(SCHEDULE.alpha_bar[-1]))  # what of the mean z_T should have held
    torch.testing.assert_close(sample.mean, mean, rtol=0, atol=2 * last)


def test_srds_negates_the_noise_and_not_the_result():
    seen = []

    def predict(z, a):
        seen.append(z)
        return 0.9 * z.tanh() + 0.1

    noise = normal(2, 3, 1, 8, 8)
    sample = srds_sample(predict, noise, SCHEDULE, 4, torch.tensor(0.0))
    assert sample.mean.shape == (3, 1, 8, 8)
    first = seen[0].view(2, 2, 3, 1, 8, 8)
    torch.testing.assert_close(first[:, 0], noise)
    torch.testing.assert_close(first[:, 1], -noise)


def test_spread_is_what_exceeds_the_noise_of_samples():
    samples = 0.5 * normal(4000, 1, 1, 2, 2) + 0.3
    spread = mean_and_spread(samples, torch.tensor(0.4)).spread
    torch.testing.assert_close(spread, torch.full_like(spread, 0.3), rtol=0.06, atol=0)
    assert (mean_and_spread(samples, torch.tensor(0.9)).spread == 0).all()


@pytest.mark.slow
def test_ddim_agrees_with_monai_at_1000_steps():
    schedulers = pytest.importorskip("monai.networks.schedulers")
    monai = schedulers.DDIMScheduler(
        num_train_timesteps=1000,
        schedule="linear_beta",
        beta_start=1e-4,
        beta_end=2e-2,
        clip_sample=False,
        set_alpha_to_one=True,
    )
    monai.set_timesteps(1000)
    predict = gaussian_predictor(0.3, 0.4)
    noise = normal(1, 1, 16, 16)
    z = noise
    for t in monai.timesteps:
        a = float(monai.alphas_cumprod[t])
        eps = (z - math.sqrt(a) * predict(z, a)) / math.sqrt(1 - a)
        z, _ = monai.step(eps, int(t), z)
    ours = ddim_sample(predict, noise, SCHEDULE, 1000)
    torch.testing.assert_close(ours, z.double(), rtol=0, atol=2e-4)


def test_a_start_in_the_middle_runs_from_there():
    seen = []

    def predict(z, a):
        seen.append(a)
        return z

    ddim_sample(predict, normal(1, 1, 4, 4), SCHEDULE, 3, start=300)
    expected = [float(SCHEDULE.alpha_bar[t]) for t in (300, 150, 0)]
    assert seen == pytest.approx(expected)

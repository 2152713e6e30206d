"""Noise schedules: how much of the image is left."""

import pytest
import torch

from stillscan.models.sampling.schedule import SCHEDULES, NoiseSchedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_share_of_signal_falls_from_nearly_one_to_nearly_nothing(name):
    alpha_bar = NoiseSchedule.named(name).alpha_bar
    assert (alpha_bar[1:] < alpha_bar[:-1]).all()
    assert 0.97 < alpha_bar[0] < 1
    assert 0 < alpha_bar[-1] < 1e-4


@pytest.mark.slow
def test_linear_agrees_with_monai():
    schedulers = pytest.importorskip("monai.networks.schedulers")
    monai = schedulers.DDIMScheduler(
        num_train_timesteps=1000, schedule="linear_beta", beta_start=1e-4, beta_end=2e-2
    )
    ours = NoiseSchedule.linear().alpha_bar.float()
    torch.testing.assert_close(ours, monai.alphas_cumprod, rtol=1e-4, atol=1e-7)


def test_constant_adds_the_same_share_in_every_step():
    alpha_bar = NoiseSchedule.constant().alpha_bar
    ratio = alpha_bar[1:] / alpha_bar[:-1]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_uniform_lowers_the_share_of_signal_evenly():
    difference = NoiseSchedule.uniform().alpha_bar.diff()
    torch.testing.assert_close(difference, difference[:1].expand_as(difference))


def test_timesteps_go_from_the_last_to_the_first():
    schedule = NoiseSchedule.linear()
    assert schedule.timesteps(3) == (999, 500, 0)
    assert schedule.timesteps(1) == (999,)
    assert schedule.timesteps(1000) == tuple(range(999, -1, -1))


def test_the_timestep_of_a_noise_level_has_that_ratio_of_noise_to_signal():
    schedule = NoiseSchedule.linear()
    a = schedule.alpha_bar[schedule.timestep_of_noise(0.25)]
    assert float(((1 - a) / a).sqrt()) == pytest.approx(0.25, rel=0.03)

"""The KL map: how far a diffusion model's step lies from the true one (Pinaya et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.models.sampling.samplers import Predict
from stillscan.models.sampling.schedule import NoiseSchedule

Latents = Float[Tensor, "batch channel row column"]


def kl_timesteps(count: int, first: int = 400, last: int = 600) -> tuple[int, ...]:
    """Return timesteps at equal distances, both ends included."""
    return tuple(int(t) for t in torch.linspace(first, last, count).round())


def kl_map(
    predict: Predict,
    z_0: Latents,
    noise: Latents,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
) -> Float[Tensor, "batch 1 row column"]:
    """Return KL(q(z_{t-1} | z_t, z_0) || p(z_{t-1} | z_t)), summed over channels, mean over t.

    Both laws are normal with the variance of the posterior (Ho et al. 2020, eq. 6 and 7), so the KL
    is w_t |z_0 - z0_hat|^2 / 2 with w_t = a_{t-1} beta_t / ((1 - a_t) (1 - a_{t-1})).

    Args:
        predict: returns z0_hat.
        z_0: standardised latents.
        noise: standard normal; the same for all timesteps.
        schedule: noise schedule of the model.
        timesteps: above 0.
    """
    total = torch.zeros_like(z_0[:, :1])
    for t in timesteps:
        a, before = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[t - 1])
        z0_hat = predict(a**0.5 * z_0 + (1 - a) ** 0.5 * noise, a)
        weight = before * (1 - a / before) / ((1 - a) * (1 - before))
        total += weight / 2 * (z_0 - z0_hat).square().sum(1, keepdim=True)
    return total / len(timesteps)

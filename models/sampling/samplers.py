"""Few-step sampling, encoding, inpainting and guidance; the mean of sample pairs (SRDS).

The stepper is not MONAI's: a schedule's timesteps and the alpha_bar of the *next* timestep are
passed together, so that few steps are exact where the closed form is. (MONAI 1.6's
`DDIMScheduler` spaces them by linspace but strides by `T // n`: at 10 steps its noise has 17
times the right variance.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.sampling.schedule import NoiseSchedule

Image = Float[Tensor, "batch channel height width"]
Level = Float[Tensor, "*broadcast"]

Predict = Callable[[Tensor, float], Tensor]
"""`z0_hat = predict(z_t, alpha_bar_t)`: the expected z_0 given z_t (batch channel height width)."""

LogProbability = Callable[[Tensor, float], Tensor]
"""`log p(class | z_t) = f(z_t, alpha_bar_t)` for each image of the batch."""


@dataclass(frozen=True)
class Sample:
    """Mean and standard deviation over samples, on the scale of z.

    Attributes:
        mean: mean over the samples.
        spread: standard deviation over the samples without the noise that samples contain.
    """

    mean: Image
    spread: Image


def ddim_sample(
    predict: Predict,
    noise: Image,
    schedule: NoiseSchedule,
    steps: int,
    *,
    eta: float = 0.0,
    generator: Generator | None = None,
    start: int | None = None,
    keep: Callable[[Tensor, float], Tensor] | None = None,
) -> Image:
    """Draw one sample for each image of `noise` (DDIM: Song et al. 2021, eq. 12).

    Args:
        predict: returns z0_hat.
        noise: z_T, standard normal; with `start`, z at that timestep.
        schedule: noise schedule of the model.
        steps: S; the timesteps are `schedule.timesteps(S)`.
        eta: 0 is deterministic (DDIM); 1 has the variance of the DDPM posterior.
        generator: source of the fresh noise, needed if eta is above 0.
        start: begin at this timestep instead of T - 1 (then S steps from there to 0).
        keep: changes z after each step, given z and its alpha_bar (`inpaint_sample`).
    """
    timesteps = schedule.timesteps(steps)
    if start is not None:
        timesteps = tuple(int(t) for t in torch.linspace(start, 0, steps).round())
    alpha_bars = [float(schedule.alpha_bar[t]) for t in timesteps]
    z = noise
    for a, a_next in zip(alpha_bars, [*alpha_bars[1:], 1.0], strict=True):
        z0_hat = predict(z, a)
        eps_hat = (z - math.sqrt(a) * z0_hat) / math.sqrt(1 - a)
        sigma = eta * math.sqrt((1 - a_next) / (1 - a) * max(0.0, 1 - a / a_next))
        z = math.sqrt(a_next) * z0_hat + math.sqrt(max(0.0, 1 - a_next - sigma**2)) * eps_hat
        if sigma > 0:
            fresh = torch.randn(z.shape, generator=generator)
            z = z + sigma * fresh.to(z.device)
        if keep is not None:
            z = keep(z, a_next)
    return z


def inpaint_sample(
    predict: Predict,
    z_0: Image,
    mask: Level,
    noise: Image,
    schedule: NoiseSchedule,
    steps: int,
    start: int,
) -> Image:
    """Sample what is masked, given the rest (RePaint, Lugmayr et al. 2022, without jumps).

    Outside the mask every step is replaced by the original with the noise of its timestep.

    Args:
        predict: returns z0_hat.
        z_0: the original.
        mask: 1 where a sample is wanted, 0 where the original stays; broadcastable to z_0.
        noise: standard normal, for the start and for the part that stays.
        schedule: noise schedule of the model.
        steps: number of steps from `start` to 0.
        start: first timestep.
    """

    def forward(a: float) -> Tensor:
        return math.sqrt(a) * z_0 + math.sqrt(1 - a) * noise

    def keep(z: Tensor, a: float) -> Tensor:
        return mask * z + (1 - mask) * forward(a)

    begin = forward(float(schedule.alpha_bar[start]))
    return ddim_sample(predict, begin, schedule, steps, start=start, keep=keep)


def encode(
    predict: Predict, z_0: Image, schedule: NoiseSchedule, steps: int, level: int, order: int = 2
) -> Image:
    """Return the z at timestep `level` from which `decode` gives z_0 back.

    Args:
        predict: returns z0_hat.
        z_0: images or latents.
        schedule: noise schedule of the model.
        steps: number of steps from timestep 0 to `level`.
        level: L, the last timestep.
        order: 2 is Heun's method, 1 the published DDIM encoder, which loses contrast.
    """
    alpha_bars = _alpha_bars(schedule, steps, level)
    return math.sqrt(alpha_bars[-1]) * _flow(predict, z_0, alpha_bars, order)


def decode(
    predict: Predict, z: Image, schedule: NoiseSchedule, steps: int, level: int, order: int = 2
) -> Image:
    """Follow the same path back from timestep `level` to 0; arguments as in `encode`."""
    alpha_bars = _alpha_bars(schedule, steps, level)[::-1]
    return _flow(predict, z / math.sqrt(alpha_bars[0]), alpha_bars, order)


def _alpha_bars(schedule: NoiseSchedule, steps: int, level: int) -> list[float]:
    timesteps = torch.linspace(0, level, steps + 1).round().long()
    return schedule.alpha_bar[timesteps].tolist()


def _flow(predict: Predict, u: Image, alpha_bars: Sequence[float], order: int) -> Image:
    """Solve `du / dsigma = (u - z0_hat) / sigma` (Karras et al. 2022, eq. 1 and algorithm 1).

    u = z / sqrt(a) and sigma = sqrt((1 - a) / a); the same in both directions.
    """

    def slope(u: Tensor, a: float, sigma: float) -> Tensor:
        return (u - predict(math.sqrt(a) * u, a)) / sigma

    sigmas = [math.sqrt((1 - a) / a) for a in alpha_bars]
    for a, a_next, sigma, sigma_next in zip(
        alpha_bars, alpha_bars[1:], sigmas, sigmas[1:], strict=False
    ):
        first = slope(u, a, sigma)
        ahead = u + (sigma_next - sigma) * first
        if order == 2:
            second = slope(ahead, a_next, sigma_next)
            ahead = u + (sigma_next - sigma) * (first + second) / 2
        u = ahead
    return u


def guided(predict: Predict, log_probability: LogProbability, scale: float) -> Predict:
    """Return `predict`, shifted towards a class (Dhariwal and Nichol 2021, algorithm 2).

    `z0_hat + scale (1 - a) / sqrt(a) grad log p(class | z_t)`: Bayes' rule for scale 1.
    """

    def shifted(z: Tensor, a: float) -> Tensor:
        with torch.enable_grad():
            seen = z.detach().float().requires_grad_()
            (gradient,) = torch.autograd.grad(log_probability(seen, a).sum(), seen)
        return predict(z, a) + scale * (1 - a) / math.sqrt(a) * gradient.to(z.dtype)

    return shifted


def srds_sample(
    predict: Predict,
    noise: Float[Tensor, "pair batch channel height width"],
    schedule: NoiseSchedule,
    steps: int,
    sigma: Level,
) -> Sample:
    """Stabilised reverse diffusion: the mean of the samples begun at +eps_k and -eps_k.

    `x_hat = 1 / (2 K) sum_k [G(eps_k; c) + G(-eps_k; c)]` (DiffDenoise, arXiv 2504.00264). What is
    odd in eps cancels. All samples go through the network in one batch, so `predict` is called with
    2 K times the images: the batch under +eps_1, under -eps_1, under +eps_2, and so on.

    Args:
        predict: returns z0_hat.
        noise: eps_1 .. eps_K, standard normal.
        schedule: noise schedule of the model.
        steps: S, at most 20 where the mean is wanted: more steps bring random structure back.
        sigma: standard deviation of the noise that a sample contains, on the scale of z;
            broadcastable against the batch of images.
    """
    starts = torch.stack([noise, -noise], 1).flatten(0, 1)
    samples = ddim_sample(predict, starts.flatten(0, 1), schedule, steps)
    return mean_and_spread(samples.reshape(starts.shape), sigma)


def mean_and_spread(
    samples: Float[Tensor, "sample batch channel height width"], sigma: Level
) -> Sample:
    """Mean, and u with `u^2 = max(0, variance over samples - sigma^2)`: u excludes their noise."""
    variance = samples.var(0, correction=1)
    return Sample(samples.mean(0), (variance - sigma**2).clamp(min=0).sqrt())


def gaussian_deviation(schedule: NoiseSchedule, steps: int, deviation: float) -> float:
    """Standard deviation of DDIM samples of a Gaussian distribution under its exact predictor.

    For z_0 ~ N(m, deviation^2) every step maps z_t - sqrt(a) m linearly, so a sample is m + g eps
    and g is a product over the steps. It tends to `deviation` as S grows; few steps fall short of
    it. The squared error of a single sample exceeds that of the pair mean by g^2.
    """
    alpha_bars = [float(schedule.alpha_bar[t]) for t in schedule.timesteps(steps)]
    gain = 1.0
    for a, a_next in zip(alpha_bars, [*alpha_bars[1:], 1.0], strict=True):
        z0 = math.sqrt(a) * deviation**2 / (a * deviation**2 + 1 - a)
        eps = (1 - math.sqrt(a) * z0) / math.sqrt(1 - a)
        gain *= math.sqrt(a_next) * z0 + math.sqrt(1 - a_next) * eps
    return gain

"""Denoising as the application does it, told nothing: profile of the series, network, gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from models.denoiser import Denoiser, Estimate, Seeded
from models.noise_estimation import NoNoiseError, estimate_noise_profile
from models.noise_profile import NoiseProfile
from operators.gate import judge
from operators.gate_limits import GateLimits

Slices = Float32[np.ndarray, "slice row column"]
Series = Float[Tensor, "slice height width"]

PROFILE_SLICES = 8


@dataclass(frozen=True)
class Denoised:
    """A series and, where the denoiser says it, the deviation of its error per pixel."""

    slices: Series
    spread: Series | None = None


def denoise_blind(denoiser: Denoiser, slices: Slices) -> Slices:
    """What the application would make of these slices on the network's scale, as arrays."""
    return denoise_series(denoiser, torch.from_numpy(slices), gated=True).slices.numpy()


def denoise_series(
    denoiser: Denoiser, noisy: Series, profile: NoiseProfile | None = None, *, gated: bool
) -> Denoised:
    """Slice by slice: a slice's result does not depend on its neighbours.

    Args:
        denoiser: any.
        noisy: slices of one series on the network's scale, where 0 is no signal.
        profile: its noise; estimated from the series where None. A series without any noise comes
            back as it is.
        gated: whether the gate judges each slice, as in the application.
    """
    if profile is None:
        try:
            profile = series_profile(noisy)
        except NoNoiseError:
            return Denoised(noisy)
    estimates = [
        _seeded(denoiser, number).denoise(plane[None, None], profile)
        for number, plane in enumerate(noisy)
    ]
    means = [
        _gated(plane, estimate, profile) if gated else estimate.mean[0, 0]
        for plane, estimate in zip(noisy, estimates, strict=True)
    ]
    return Denoised(torch.stack(means), _spread(estimates))


def _seeded(denoiser: Denoiser, number: int) -> Denoiser:
    """A denoiser that draws random numbers draws others for each slice, and the same every time."""
    return denoiser.seeded((number,)) if isinstance(denoiser, Seeded) else denoiser


def series_profile(noisy: Series) -> NoiseProfile:
    """The noise of a series, from at most PROFILE_SLICES of its slices.

    Raises:
        NoNoiseError: if it is constant.
    """
    step = max(1, len(noisy) // PROFILE_SLICES)
    return estimate_noise_profile(list(noisy[::step][:PROFILE_SLICES]))


def _gated(noisy: Tensor, estimate: Estimate, profile: NoiseProfile) -> Tensor:
    """What the gate lets out; what came in where it refuses."""
    before = noisy[None].numpy()
    lowest = min(float(before.min()), 0.0)  # 0 is no signal: less cannot be
    clean = np.maximum(estimate.mean[:, 0].numpy(), lowest)
    sigma = profile.sigma_map(noisy[None, None])[:, 0].numpy()
    pixels, _ = judge(before, clean, sigma, profile.acf, GateLimits())
    return torch.from_numpy(np.asarray(pixels[0]))


def _spread(estimates: Sequence[Estimate]) -> Series | None:
    spreads = [estimate.spread for estimate in estimates]
    if any(spread is None for spread in spreads):
        return None
    return torch.stack([spread[0, 0] for spread in spreads if spread is not None])

"""Denoising as the application does it, told nothing: profile of the series, network, gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from stillscan.models.denoisers.denoiser import Denoiser, Estimate, Seeded
from stillscan.models.noise.estimation import NoNoiseError, estimate_noise_profile
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.denoising.denoise_series import sample_of
from stillscan.operators.denoising.gate import judge
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.repeats import RepeatCheck, are_alike, check_against_repeats

Slices = Float32[np.ndarray, "slice row column"]
Series = Float[Tensor, "slice height width"]

Again = Sequence[int | None]  # for each slice another acquisition of it, None where there is none


@dataclass(frozen=True)
class Denoised:
    """A series and, where the denoiser says it, the deviation of its error per pixel."""

    slices: Series
    spread: Series | None = None


def denoise_blind(denoiser: Denoiser, slices: Slices, again: Again | None = None) -> Slices:
    """What the application would make of these slices on the network's scale, as arrays."""
    noisy = torch.from_numpy(slices)
    return denoise_series(denoiser, noisy, gated=True, again=again).slices.numpy()


def denoise_series(
    denoiser: Denoiser,
    noisy: Series,
    profile: NoiseProfile | None = None,
    *,
    gated: bool,
    again: Again | None = None,
) -> Denoised:
    """Slice by slice: a slice's result does not depend on its neighbours.

    Args:
        denoiser: any.
        noisy: slices of one series on the network's scale, where 0 is no signal.
        profile: its noise; estimated from the series where None. A series without any noise comes
            back as it is.
        gated: whether the gate judges each slice and repeats inside the series the correction, as
            in the application.
        again: the repeats inside the series.
    """
    if profile is None:
        try:
            profile = series_profile(noisy, again)
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
    denoised = Denoised(torch.stack(means), _spread(estimates))
    if not gated or again is None:
        return denoised
    sigma = torch.cat([profile.sigma_map(plane[None, None]) for plane in noisy])[:, 0]
    check = check_against_repeats(
        (noisy[at].numpy(), denoised.slices[at].numpy(), noisy[other].numpy())
        for at, other in _repeated(len(noisy), again)
        if are_alike(noisy[at].numpy(), noisy[other].numpy(), sigma[at].numpy())
    )
    return denoised if check is None else _borne_out(noisy, denoised, sigma, check)


def _borne_out(noisy: Series, denoised: Denoised, sigma: Series, check: RepeatCheck) -> Denoised:
    """As much of the correction as the repeats bear out."""
    share = check.borne_out
    slices = noisy + share * (denoised.slices - noisy)
    if denoised.spread is None:
        return Denoised(slices)
    return Denoised(slices, torch.hypot(share * denoised.spread, (1 - share) * sigma))


def _repeated(count: int, again: Again) -> list[tuple[int, int]]:
    """The slices of the sample that were acquired again, and where."""
    pairs = [(index, again[index]) for index in sample_of(count)]
    return [(index, other) for index, other in pairs if other is not None]


def _seeded(denoiser: Denoiser, number: int) -> Denoiser:
    """A denoiser that draws random numbers draws others for each slice, and the same every time."""
    return denoiser.seeded((number,)) if isinstance(denoiser, Seeded) else denoiser


def series_profile(noisy: Series, again: Again | None = None) -> NoiseProfile:
    """The noise of a series, from the sample of its slices that the application takes.

    Raises:
        NoNoiseError: if it is constant.
    """
    sample = sample_of(len(noisy))
    others = dict(_repeated(len(noisy), again)) if again is not None else {}
    return estimate_noise_profile(
        [noisy[index] for index in sample],
        again=[noisy[others[index]] if index in others else None for index in sample],
    )


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

"""Arrays through the application's own pipeline: plan, network, gate, repeated acquisitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.array_volume import array_volume
from stillscan.operators.denoising.denoise_series import (
    estimate_block,
    judge_block,
    plan_series,
)
from stillscan.operators.denoising.gate import GateRefusedError
from stillscan.operators.denoising.intensity import Scaling
from stillscan.operators.denoising.plan import plan_from, read_sample
from stillscan.operators.denoising.summary import SeriesSummary
from stillscan.operators.errors import (
    NoiseNotMeasuredError,
    NoNoiseInSeriesError,
    NoSignalError,
)
from stillscan.operators.volume import Place

Slices = Float32[np.ndarray, "slice row column"]
Series = Float[Tensor, "slice height width"]

NETWORK_SCALE = Scaling(0.0, 1.0)  # the arrays are network numbers already


@dataclass(frozen=True)
class Denoised:
    """A series and, where the denoiser says it, the standard deviation of its error per pixel."""

    slices: Series
    spread: Series | None = None


def denoise_blind(
    denoiser: Denoiser, slices: Slices, places: Sequence[Place] | None = None
) -> Slices:
    """Denoise network numbers as the application does; see `denoise_series`."""
    noisy = torch.from_numpy(slices)
    return denoise_series(denoiser, noisy, gated=True, places=places).slices.numpy()


def denoise_series(
    denoiser: Denoiser,
    noisy: Series,
    profile: NoiseProfile | None = None,
    *,
    gated: bool,
    places: Sequence[Place] | None = None,
    modality: str = "",
    strength: float = 1.0,
) -> Denoised:
    """Denoise a series of arrays.

    Args:
        denoiser: any.
        noisy: slices of one series on the network's scale, where 0 is no signal.
        profile: its noise; measured in the series where None.
        gated: whether gate and repeated acquisitions judge the result, as in the application.
        places: of the slices; those of one place are repeated acquisitions.
        modality: of the series.
        strength: share of the correction that is applied.

    Returns:
        The denoised series. A series that the application refuses comes back as it is: its noise
        cannot be measured, or the gate or its repeated acquisitions do not support the result.
    """
    volume = array_volume(noisy.float().numpy(), modality, places or [None] * len(noisy))
    summary = SeriesSummary()
    slices: list[Tensor] = []
    spreads: list[Tensor | None] = []
    try:
        if gated:
            volume, plan = plan_series(volume, denoiser, scaling=NETWORK_SCALE, noise=profile)
        else:
            plan = plan_from(read_sample(volume), scaling=NETWORK_SCALE, noise=profile)
        for block in volume.blocks():
            estimated = estimate_block(denoiser, block, plan)
            if gated:
                denoised = judge_block(estimated, strength)
                summary.add(denoised)
                slices.append(torch.from_numpy(denoised.pixels))
                spread = denoised.spread
                spreads.append(None if spread is None else torch.from_numpy(spread))
            else:
                mean, spread_ = estimated.estimate.mean, estimated.estimate.spread
                slices.append(mean[:, 0])
                spreads.append(None if spread_ is None else spread_[:, 0])
        if gated:
            summary.accepted()
    except (NoNoiseInSeriesError, NoiseNotMeasuredError, NoSignalError, GateRefusedError):
        return Denoised(noisy)
    known = [each for each in spreads if each is not None]
    return Denoised(torch.cat(slices), torch.cat(known) if len(known) == len(spreads) else None)

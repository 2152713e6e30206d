"""Denoises a cine along its motion: a phase with its neighbours, then the network (docs/motion.md).

What the motion does not explain stays the phase's own, pixel by pixel: there the result is that of
the network on the phase alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from stillscan.models.denoisers.denoiser import Denoiser, Estimate
from stillscan.models.denoisers.noise_everywhere import denoise_with_noise_everywhere
from stillscan.models.motion.averaging import average
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.cine import CARDIAC, CineError, CineSeries, cine_series
from stillscan.operators.denoising.multiscale_clamp import clamp
from stillscan.operators.denoising.plan import Plan
from stillscan.operators.volume import Volume

FARTHEST_MM = 25.0  # between neighbouring phases: no wall moves faster

STRUCTURE = 4.0  # score of the residual, as in the quality gate, which allows 4.5

Phases = Float[Tensor, "phase 1 row column"]


def along_the_motion(volume: Volume, plan: Plan) -> tuple[Volume, Plan]:
    """Return a cine place by place, with a plan to denoise it so; else both, with the reason."""
    try:
        cine = cine_series(volume, allow_uneven=True)
    except CineError as error:
        return volume, plan if error.reason == "not-a-cine" else replace(plan, no_cine=str(error))
    if cine.attribute not in CARDIAC:  # of a dynamic series, the contrast changes
        return volume, replace(plan, no_cine="no trigger times tell the phases of the heart")
    if plan.uneven:
        return volume, replace(plan, no_cine="the noise differs between the slices")
    if len({each.path for each in volume.slices}) > 1 and volume.slices[0].frames > 1:
        return volume, replace(plan, no_cine="the phases are in several multi-frame instances")
    order = [index for place in cine.indices for index in place]
    volume = replace(
        volume, slices=tuple(volume.slices[index] for index in order), together=cine.phases
    )
    sample = tuple(sorted(order.index(each) for each in plan.sample))
    return volume, replace(plan, cine=cine, sample=sample)


def estimate_phases(
    denoiser: Denoiser, noisy: Phases, sigma: Phases, noise: NoiseProfile, cine: CineSeries
) -> Estimate:
    """Estimate the clean phases of one place.

    The average and the phase alone go through the network, each with its own noise; between the two
    it is decided at each pixel by the noise that the average has left, and by the structure in the
    residual: where there is some, the phase alone counts.
    """
    alone = denoise_with_noise_everywhere(denoiser, noisy, noise)
    down, across = cine.volume.slices[0].plane.spacing_mm
    correlation = noise.correlation()
    averaged = average(
        noisy,
        sigma,
        (float(correlation[1]), float(correlation[0])),
        closes=cine.closes,
        farthest=FARTHEST_MM / max(down, across),
    )
    usual = float(averaged.share.median())
    if usual > 0.95:  # hardly any neighbour is used
        return alone
    along = denoise_with_noise_everywhere(denoiser, averaged.mean, noise.weakened(usual))
    share = ((1 - averaged.share) / (1 - usual)).clamp(0, 1)
    residual = (noisy - torch.lerp(alone.mean, along.mean, share)) / sigma
    share = share * clamp(residual[:, 0], noise.acf, STRUCTURE).weight[:, None]
    mean = torch.lerp(alone.mean, along.mean, share)
    if alone.spread is None or along.spread is None:
        return Estimate(mean)
    return Estimate(mean, torch.lerp(alone.spread, along.spread, share))

"""From a volume to a denoised volume: a plan for the series, then estimate and gate block by block.

`plan_series` comes first: it reads a sample of the series once and refuses a series that cannot be
denoised, before anything is denoised or written.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32

from stillscan.models.denoisers.denoiser import Denoiser, Estimate, IdentityDenoiser, Seeded
from stillscan.models.denoisers.noise_everywhere import denoise_with_noise_everywhere
from stillscan.models.noise.estimation import remaining_share
from stillscan.models.noise.noise_free import exact_places, unit_noise
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.denoising.expected_error import STEP, ExpectedError, foreground
from stillscan.operators.denoising.gate import GateRefusedError, Verdict, judge
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.intensity import Scaling, without_padding
from stillscan.operators.denoising.pass_through import PassThrough
from stillscan.operators.denoising.plan import (
    NOT_CHECKED,
    Plan,
    SeriesSample,
    plan_from,
    read_sample,
)
from stillscan.operators.denoising.repeats import RepeatCheck, are_alike, check_against_repeats
from stillscan.operators.denoising.temporal import along_the_motion, estimate_phases
from stillscan.operators.errors import NoiseNotMeasuredError, NoSignalError
from stillscan.operators.reading.selection import RADIOGRAPHS
from stillscan.operators.volume import Volume, VolumeBlock

SMALLEST_PROBE, LARGEST_PROBE = 64, 192  # pixels along a side
COARSE = PassThrough(0.0, (3.0, 3.0))  # pixels: put back where the gate clamps too much of a film


@dataclass(frozen=True)
class EstimatedBlock:
    """A block with the denoiser's estimate, in network numbers, before the quality gate.

    Attributes:
        block: what was read.
        plan: the plan of its series.
        noisy: its pixels, with padding replaced.
        sigma: standard deviation of the noise at each pixel.
        estimate: estimate of the clean image, at full strength.
    """

    block: VolumeBlock
    plan: Plan
    noisy: Float32[np.ndarray, "slice row column"]
    sigma: Float32[np.ndarray, "slice row column"]
    estimate: Estimate


@dataclass(frozen=True)
class DenoisedBlock:
    """A block with the pixels of the derived series.

    Attributes:
        block: what was read.
        pixels: pixels in modality units, after gate and strength.
        verdict: verdict of the gate on the full-strength estimate.
        noise_before: standard deviation of the noise of the series, modality units; None where it
            was not measured.
        noise_after: sigma left, in modality units; None where the sample has no slice in the block.
        sigma: standard deviation of the noise at each pixel, modality units.
        spread: standard deviation of the error at each pixel, modality units; None if the denoiser
            gives none.
        repeats: result of the check by repeated acquisitions; None if there are none.
        put_back: what the gate put back into the estimate, modality units; None for nothing.
    """

    block: VolumeBlock
    pixels: Float32[np.ndarray, "slice row column"]
    verdict: Verdict
    noise_before: float | None
    noise_after: float | None
    sigma: Float32[np.ndarray, "slice row column"] | None = None
    spread: Float32[np.ndarray, "slice row column"] | None = None
    repeats: RepeatCheck | None = None
    put_back: Float32[np.ndarray, "slice row column"] | None = None


def plan_series(
    volume: Volume,
    denoiser: Denoiser,
    noise_range: tuple[float, float] | None = None,
    limits: GateLimits | None = None,
    *,
    scaling: Scaling | None = None,
    noise: NoiseProfile | None = None,
    network: AbstractContextManager[object] | None = None,
    temporal: bool = False,
) -> tuple[Volume, Plan]:
    """Read the sample of a series once and plan how all of it is denoised.

    Args:
        volume: the series.
        denoiser: the denoiser that will be used; repeated acquisitions check it.
        noise_range: sigma on the network scale that the bundle was trained for; None for any.
        limits: limits of the quality gate.
        scaling: in place of the one that the unit and the sample give.
        noise: replaces the measured noise, on the scale of `scaling`.
        network: context that is held while the denoiser runs.
        temporal: denoise a cine along its motion.

    Returns:
        The volume, which returns the slices of the sample from memory at the first reading, and the
        plan. Along its motion, the slices of a cine come place by place.

    Raises:
        InputError: if a slice of the sample cannot be read.
        NoNoiseInSeriesError: if every part of the sample is constant.
        NoiseNotMeasuredError: if no measurement of the noise can be relied on.
        NoSignalError: if the images hold noise alone.
        NoiseOutsideBundleError: if the noise is stronger than the bundle was trained for.
        GateRefusedError: if repeated acquisitions do not support the denoised result at all.
    """
    sample = read_sample(volume)
    plan = plan_from(sample, noise_range, scaling, noise)
    if isinstance(denoiser, IdentityDenoiser):  # the control removes nothing
        return sample.volume, replace(plan, noise_check=NOT_CHECKED, uneven=False)
    if plan.noise.certainty == "not measured":
        raise NoiseNotMeasuredError(
            f"series {volume.series_instance_uid}: no measurement of the noise can be relied on, "
            "so nothing may be removed as noise"
        )
    if sample.is_noise_alone(plan):
        raise NoSignalError(f"series {volume.series_instance_uid}: the images hold noise alone")
    if plan.noise_check.refuted:
        raise GateRefusedError(
            f"the noise level used is {plan.noise_check.excess:.1f} times that of an independent "
            "measurement"
        )
    repeated = replace(plan, noise_check=replace(plan.noise_check, repeated=True))
    with network or nullcontext():
        repeats = checked_by_repeats(sample, repeated, denoiser, limits)
    if repeats is not None and repeats.confirmed_share == 0:
        raise GateRefusedError(
            "the repeated acquisitions do not support the denoised result "
            "(0 % of the correction confirmed)"
        )
    if repeats is not None:
        plan = replace(repeated, repeats=repeats)
    with network or nullcontext():
        plan = replace(plan, expected=expected_error(sample, plan, denoiser, limits))
    volume = replace(sample.volume, together=int(plan.uneven))
    return along_the_motion(volume, plan) if temporal else (volume, plan)


def checked_by_repeats(
    sample: SeriesSample, plan: Plan, denoiser: Denoiser, limits: GateLimits | None = None
) -> RepeatCheck | None:
    """Compare the denoised and gated sample with its other acquisitions.

    Returns:
        None if there is no other acquisition, or nothing was corrected.
    """

    def compared() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for block, other in zip(sample.slices(), sample.repeats(), strict=True):
            if other is None:
                continue
            image = torch.from_numpy(
                plan.scaling.to_network(without_padding(block.pixels, block.padding))
            )
            sigma = plan.noise.sigma_map(image[None])[0].numpy() / plan.scaling.gain
            seen = ~(block.padding | other.padding) & foreground(image.numpy())
            if are_alike(block.pixels[seen], other.pixels[seen], sigma[seen]):
                denoised = denoise_block(denoiser, block, plan, limits=limits)
                yield block.pixels[seen], denoised.pixels[seen], other.pixels[seen]

    return check_against_repeats(compared())


def expected_error(
    sample: SeriesSample, plan: Plan, denoiser: Denoiser, limits: GateLimits | None = None
) -> ExpectedError | None:
    """Measure what the full correction does to the error in the middle of slices of the sample.

    Two passes over at most a sixth of the pixels of the series, of a large one much less.
    """
    volume, block = sample.volume, sample.slices()[len(sample.indices) // 2]
    pixels = volume.rows * volume.columns * len(volume.slices)
    side = max(SMALLEST_PROBE, min(LARGEST_PROBE, math.isqrt(pixels // 6)))
    plan = replace(
        plan, sample=(), repeats=None, noise_check=replace(plan.noise_check, alone=False)
    )
    block, plan = cropped(block, plan.for_slice(block) if plan.uneven else plan, side)
    first = estimate_block(denoiser, block, plan)
    image, sigma = first.noisy[0], first.sigma[0] / plan.scaling.gain
    exact = exact_places(torch.from_numpy(image)).numpy() | block.padding[0]
    rows, columns = image.shape
    unit = np.where(exact, 0, unit_noise(plan.noise)[0][:rows, :columns].numpy())
    moved = replace(block, pixels=(block.pixels + STEP * sigma * unit).astype(np.float32))
    one, other = (
        (judge_block(each, limits=limits).pixels - each.block.pixels)[0] / sigma
        for each in (first, estimate_block(denoiser, moved, plan))
    )
    seen = foreground(image) & ~exact
    signal = image / first.sigma[0] if volume.modality == "MR" else np.full_like(image, np.inf)
    excess = plan.noise_check.excess or 1.0
    return ExpectedError.of(signal[seen], unit[seen], one[seen], other[seen], excess)


def cropped(block: VolumeBlock, plan: Plan, side: int) -> tuple[VolumeBlock, Plan]:
    """Return the middle of a block, at most `side` pixels square, and the plan for it."""
    top, left = (max(0, (each - side) // 2) for each in block.pixels.shape[1:])
    at = (slice(None), slice(top, top + side), slice(left, left + side))
    places = plan.noise.places and plan.noise.places.moved(-top, -left)
    even = replace(plan, uneven=False, noise=replace(plan.noise, places=places))
    return replace(block, pixels=block.pixels[at], padding=block.padding[at]), even


def denoise_block(
    denoiser: Denoiser,
    block: VolumeBlock,
    plan: Plan,
    strength: float = 1.0,
    limits: GateLimits | None = None,
) -> DenoisedBlock:
    """Denoise one block, apply the quality gate and the strength.

    Args:
        denoiser: any denoiser; it gets network numbers.
        block: a block of the series of the plan.
        plan: result of `plan_series`.
        strength: share of the correction that is applied, 0 to 1.
        limits: of the gate.
    """
    return judge_block(estimate_block(denoiser, block, plan), strength, limits)


def estimate_block(denoiser: Denoiser, block: VolumeBlock, plan: Plan) -> EstimatedBlock:
    """Return what the denoiser makes of one block; the first half of `denoise_block`."""
    if plan.uneven:
        plan = plan.for_slice(block)
    noisy = torch.from_numpy(plan.scaling.to_network(without_padding(block.pixels, block.padding)))[
        :, None
    ]
    if isinstance(denoiser, Seeded):
        denoiser = denoiser.seeded(seeds_of(block))
    one_by_one = [plan.noise.sigma_map(image[None]) for image in noisy]  # one by one, for the cache
    sigma = torch.cat(one_by_one)
    if plan.cine is not None:
        estimate = estimate_phases(denoiser, noisy, sigma, plan.noise, plan.cine)
    else:
        estimate = denoise_with_noise_everywhere(denoiser, noisy, plan.noise)
    return EstimatedBlock(block, plan, noisy[:, 0].numpy(), sigma[:, 0].numpy(), estimate)


def judge_block(
    estimated: EstimatedBlock, strength: float = 1.0, limits: GateLimits | None = None
) -> DenoisedBlock:
    """Apply the quality gate and the strength to an estimate, the second half of `denoise_block`.

    Only the share of the correction is applied that repeats or measurements of the noise confirm.
    """
    block, plan, sigma = estimated.block, estimated.plan, estimated.sigma
    strength = strength * plan.confirmed_share
    before, estimate = estimated.noisy, estimated.estimate
    clean = np.where(block.padding, before, estimate.mean[:, 0].numpy())
    if plan.pass_through is not None:
        clean = plan.pass_through.apply(before, clean)
    lowest = before.min(axis=(1, 2), keepdims=True)
    clean = np.maximum(
        clean, np.minimum(lowest, 0)
    )  # 0 is no signal, so lower values are impossible
    accepted, verdict = judge(
        before,
        clean,
        sigma,
        plan.noise.acf,
        limits or GateLimits(),
        plan.noise_check.bound,
        COARSE if block.volume.modality in RADIOGRAPHS else None,
    )
    unit = np.float32(1 / plan.scaling.gain)
    applied = np.float32(strength) * unit
    change = applied * (accepted - before)
    pixels = np.where(block.padding, block.pixels, block.pixels + change).astype(np.float32)
    return DenoisedBlock(
        block=block,
        pixels=pixels,
        verdict=verdict,
        noise_before=plan.noise_before,
        noise_after=_noise_after(block, pixels, plan),
        sigma=sigma * unit,
        spread=_spread(estimated, strength, unit),
        repeats=plan.repeats,
        put_back=applied * (accepted - clean) if verdict.decision == "accept with clamp" else None,
    )


def seeds_of(block: VolumeBlock) -> list[int]:
    """One seed per slice, from the UIDs of series and instance: same input, same random numbers."""
    volume = block.volume
    return [
        int.from_bytes(
            hashlib.sha256(
                f"{volume.series_instance_uid} {each.sop_instance_uid} {each.frame}".encode()
            ).digest()[:7],
            "big",
        )
        for each in volume.slices[block.start : block.stop]
    ]


def _spread(estimated: EstimatedBlock, strength: float, unit: np.float32) -> np.ndarray | None:
    """Return the error of the shown pixels: that of the estimate, and of the noise left in."""
    plan, sigma, found = estimated.plan, estimated.sigma, estimated.estimate.spread
    if found is None:
        return None
    spread = found[:, 0].numpy()
    if plan.pass_through is not None:
        share = np.float32(plan.pass_through.noise_share(plan.noise.acf))
        spread = np.hypot((1 - share) * spread, share * sigma)
    if strength == 1:
        return spread * unit
    return np.hypot(np.float32(strength) * spread, np.float32(1 - strength) * sigma) * unit


def denoise_volume(
    denoiser: Denoiser, volume: Volume, strength: float = 1.0, limits: GateLimits | None = None
) -> Iterator[DenoisedBlock]:
    """Yield the whole series, block by block."""
    volume, plan = plan_series(volume, denoiser, limits=limits)
    for block in volume.blocks():
        yield denoise_block(denoiser, block, plan, strength, limits)


def _noise_after(block: VolumeBlock, pixels: np.ndarray, plan: Plan) -> float | None:
    """What is left of the noise, in the flattest places of the slices that the plan was made on."""
    inside = [index - block.start for index in plan.sample if block.start <= index < block.stop]
    if plan.noise_before is None or not inside or not np.isfinite(pixels).all():
        return None
    shares = [
        remaining_share(
            torch.from_numpy(plan.scaling.to_network(block.pixels[index])),
            torch.from_numpy(plan.scaling.to_network(pixels[index])),
            plan.noise,
            torch.from_numpy(~block.padding[index]),
        )
        for index in inside
    ]
    return plan.noise_before * float(np.median(shares))

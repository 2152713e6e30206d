"""From a volume to a quiet volume: a plan from a sample of the series, then block by block."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stillscan.models.denoisers.denoiser import Denoiser, Estimate, Seeded
from stillscan.models.noise.estimation import NoNoiseError, estimate_noise_profile, remaining_share
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.denoising.gate import Verdict, judge
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.intensity import Scaling, scaling_for
from stillscan.operators.denoising.repeats import (
    RepeatCheck,
    acquired_again,
    are_alike,
    check_against_repeats,
)
from stillscan.operators.errors import NoiseOutsideBundleError, NoNoiseInSeriesError
from stillscan.operators.volume import Volume, VolumeBlock

SAMPLE_SLICES = 8
SAMPLE_PIXELS = 2**22  # in all slices of the sample: what the estimate may cost in time and memory

Pixels = Float32[np.ndarray, "row column"]
Padding = Bool[np.ndarray, "row column"]


@dataclass(frozen=True)
class Plan:
    """What holds for a whole series, found from a sample of its slices.

    Attributes:
        scaling: modality units to network numbers.
        noise: the noise in network numbers.
        sample: indices of the slices it was found on.
        again: for each of them another acquisition of the same slice, None where there is none.
        repeats: what those say of the denoiser; None where there are none, or nobody asked.
    """

    scaling: Scaling
    noise: NoiseProfile
    sample: tuple[int, ...]
    again: tuple[int | None, ...] = ()
    repeats: RepeatCheck | None = None

    @property
    def noise_before(self) -> float:
        """Standard deviation of the noise in modality units."""
        return self.noise.sigma / self.scaling.gain


@dataclass(frozen=True)
class EstimatedBlock:
    """A block with what the denoiser makes of it, network numbers, before anyone judges it.

    Attributes:
        block: what was read.
        plan: of its series.
        noisy: its pixels, padding replaced.
        sigma: standard deviation of the noise at each pixel.
        estimate: of the clean image, at full strength.
    """

    block: VolumeBlock
    plan: Plan
    noisy: Float32[np.ndarray, "slice row column"]
    sigma: Float32[np.ndarray, "slice row column"]
    estimate: Estimate


@dataclass(frozen=True)
class DenoisedBlock:
    """A block with the pixels that the derived series will show.

    Attributes:
        block: what was read.
        pixels: modality units, after gate and strength.
        verdict: of the gate on the full-strength estimate.
        noise_before: sigma of the series in modality units.
        noise_after: sigma left, in modality units; None where the sample has no slice in the block.
        sigma: standard deviation of the noise at each pixel, modality units.
        spread: standard deviation of the error at each pixel, modality units; None where the
            denoiser says nothing of its error.
        repeats: what repeats inside the series say of the denoiser; None where it has none.
    """

    block: VolumeBlock
    pixels: Float32[np.ndarray, "slice row column"]
    verdict: Verdict
    noise_before: float
    noise_after: float | None
    sigma: Float32[np.ndarray, "slice row column"] | None = None
    spread: Float32[np.ndarray, "slice row column"] | None = None
    repeats: RepeatCheck | None = None


def plan_denoising(volume: Volume, noise_range: tuple[float, float] | None = None) -> Plan:
    """Scaling and noise of a series, from at most SAMPLE_SLICES of its slices.

    Where the series holds these slices again, their differences say what is noise.

    Args:
        volume: the series.
        noise_range: sigma on the network scale that the bundle was trained for; None for any.

    Raises:
        NoNoiseInSeriesError: if every part of the sample is constant.
        NoiseOutsideBundleError: if the noise is stronger than the bundle was trained for.
    """
    sample = sample_of(len(volume.slices))
    again = tuple(acquired_again([each.place for each in volume.slices], sample))
    blocks = [volume.read(index, index + 1) for index in sample]
    try:
        scaling, noise = measure_noise(
            volume.modality,
            [block.pixels[0] for block in blocks],
            [block.padding[0] for block in blocks],
            [None if index is None else _one(volume, index) for index in again],
        )
    except NoNoiseInSeriesError as error:
        raise NoNoiseInSeriesError(f"series {volume.series_instance_uid}: {error}") from error
    if noise_range is not None and noise.sigma > noise_range[1]:
        raise NoiseOutsideBundleError(
            f"series {volume.series_instance_uid}: noise of {noise.sigma:.3f} of the intensity "
            f"range; the bundle was trained for at most {noise_range[1]:.3f}"
        )
    return Plan(scaling, noise, sample, again)


def _one(volume: Volume, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and padding of a slice."""
    block = volume.read(index, index + 1)
    return block.pixels[0], block.padding[0]


def checked_plan(
    denoiser: Denoiser, volume: Volume, plan: Plan, limits: GateLimits | None = None
) -> Plan:
    """The plan with what the repeats inside the series say of this denoiser.

    Without repeats, the plan as it is. Judged is what the gate with these limits lets pass.
    """

    def compared() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for index, again in zip(plan.sample, plan.again, strict=True):
            if again is None:
                continue
            block, other = volume.read(index, index + 1), volume.read(again, again + 1)
            seen = ~(block.padding | other.padding)
            image = torch.from_numpy(plan.scaling.to_network(without_padding(block)))
            sigma = plan.noise.sigma_map(image[None])[0].numpy() / plan.scaling.gain
            if are_alike(block.pixels[seen], other.pixels[seen], sigma[seen]):
                denoised = denoise_block(denoiser, block, plan, limits=limits)
                yield block.pixels[seen], denoised.pixels[seen], other.pixels[seen]

    return replace(plan, repeats=check_against_repeats(compared()))


def sample_of(count: int) -> tuple[int, ...]:
    """Indices of at most SAMPLE_SLICES of `count` slices, evenly spread."""
    wanted = np.linspace(0, count - 1, min(count, SAMPLE_SLICES)).round()
    return tuple(int(index) for index in np.unique(wanted))


def measure_noise(
    modality: str,
    slices: Sequence[Pixels],
    padding: Sequence[Padding],
    again: Sequence[tuple[Pixels, Padding] | None] | None = None,
) -> tuple[Scaling, NoiseProfile]:
    """Scaling of a series and its noise in network numbers, from a sample of its slices.

    Args:
        modality: of the series.
        slices: in modality units; sizes may differ.
        padding: True where a pixel is no image.
        again: the same slices, acquired once more, and their padding; None where a slice was not.
            One whose padding is another is not looked at.

    Raises:
        NoNoiseInSeriesError: if every part of the sample is constant.
    """
    seen = [pixels[~mask] for pixels, mask in zip(slices, padding, strict=True)]
    if sum(len(pixels) for pixels in seen) == 0:
        raise NoNoiseInSeriesError("every pixel of the series is padding")
    scaling = scaling_for(modality, np.concatenate(seen))
    middles = [_middle(*pixels.shape, count=len(slices)) for pixels in slices]

    def to_network(pixels: Pixels, at: tuple[slice, slice]) -> Tensor:
        return torch.from_numpy(scaling.to_network(pixels[at]))

    images = [to_network(*each) for each in zip(slices, middles, strict=True)]
    others = [
        to_network(other[0], at) if other is not None and np.array_equal(mask, other[1]) else None
        for mask, other, at in zip(padding, again or [None] * len(slices), middles, strict=True)
    ]
    valid = [torch.from_numpy(~mask[at]) for mask, at in zip(padding, middles, strict=True)]
    try:
        return scaling, estimate_noise_profile(images, valid, others)
    except NoNoiseError as error:
        raise NoNoiseInSeriesError(str(error)) from error


def denoise_block(
    denoiser: Denoiser,
    block: VolumeBlock,
    plan: Plan,
    strength: float = 1.0,
    limits: GateLimits | None = None,
) -> DenoisedBlock:
    """Denoise, judge, and apply the strength to one block.

    Args:
        denoiser: any; sees network numbers.
        block: of the series that the plan was made for.
        plan: from `plan_denoising`.
        strength: share of the correction that is applied, 0 to 1.
        limits: of the gate.
    """
    return judge_block(estimate_block(denoiser, block, plan), strength, limits)


def estimate_block(denoiser: Denoiser, block: VolumeBlock, plan: Plan) -> EstimatedBlock:
    """What the denoiser makes of one block; the first half of `denoise_block`."""
    noisy = torch.from_numpy(plan.scaling.to_network(without_padding(block)))[:, None]
    if isinstance(denoiser, Seeded):
        denoiser = denoiser.seeded(seeds_of(block))
    estimate = denoiser.denoise(noisy, plan.noise)
    one_by_one = [plan.noise.sigma_map(image[None]) for image in noisy]  # each in the cache
    sigma = torch.cat(one_by_one)[:, 0].numpy()
    return EstimatedBlock(block, plan, noisy[:, 0].numpy(), sigma, estimate)


def judge_block(
    estimated: EstimatedBlock, strength: float = 1.0, limits: GateLimits | None = None
) -> DenoisedBlock:
    """Judge what a denoiser made of a block and apply the strength; the second half.

    Of the correction no more is applied than repeats inside the series bear out.
    """
    block, plan, sigma = estimated.block, estimated.plan, estimated.sigma
    if plan.repeats is not None:
        strength = strength * plan.repeats.borne_out
    before, estimate = estimated.noisy, estimated.estimate
    clean = np.where(block.padding, before, estimate.mean[:, 0].numpy())
    lowest = before.min(axis=(1, 2), keepdims=True)
    clean = np.maximum(clean, np.minimum(lowest, 0))  # 0 is no signal: less cannot be
    accepted, verdict = judge(before, clean, sigma, plan.noise.acf, limits or GateLimits())
    unit = np.float32(1 / plan.scaling.gain)
    change = np.float32(strength) * (accepted - before) * unit
    pixels = np.where(block.padding, block.pixels, block.pixels + change).astype(np.float32)
    return DenoisedBlock(
        block=block,
        pixels=pixels,
        verdict=verdict,
        noise_before=plan.noise_before,
        noise_after=_noise_after(block, pixels, plan),
        sigma=sigma * unit,
        spread=_spread(estimate, sigma, strength, unit),
        repeats=plan.repeats,
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


def _spread(
    estimate: Estimate, sigma: np.ndarray, strength: float, unit: np.float32
) -> np.ndarray | None:
    """Deviation of the error of what is shown: of the estimate, and of the noise left in."""
    if estimate.spread is None:
        return None
    spread = estimate.spread[:, 0].numpy()
    if strength == 1:
        return spread * unit
    return np.hypot(np.float32(strength) * spread, np.float32(1 - strength) * sigma) * unit


def denoise_volume(
    denoiser: Denoiser, volume: Volume, strength: float = 1.0, limits: GateLimits | None = None
) -> Iterator[DenoisedBlock]:
    """The whole series, block by block."""
    plan = checked_plan(denoiser, volume, plan_denoising(volume), limits)
    for block in volume.blocks():
        yield denoise_block(denoiser, block, plan, strength, limits)


def without_padding(block: VolumeBlock) -> Float32[np.ndarray, "slice row column"]:
    """Padding replaced by the slice's smallest real value, so that no false edge stands there."""
    if not block.padding.any():
        return block.pixels
    pixels = block.pixels.copy()
    for values, padding in zip(pixels, block.padding, strict=True):
        if padding.any() and not padding.all():
            values[padding] = values[~padding].min()
    return pixels


def _middle(rows: int, columns: int, *, count: int) -> tuple[slice, slice]:
    """The middle of an image, as much of it as each of `count` slices of a sample may have."""
    side = math.isqrt(SAMPLE_PIXELS // count)
    top, left = max(0, (rows - side) // 2), max(0, (columns - side) // 2)
    return slice(top, top + side), slice(left, left + side)


def _noise_after(block: VolumeBlock, pixels: np.ndarray, plan: Plan) -> float | None:
    """What is left of the noise, in the flattest places of the slices that the plan was made on."""
    inside = [index - block.start for index in plan.sample if block.start <= index < block.stop]
    if not inside or not np.isfinite(pixels).all():
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

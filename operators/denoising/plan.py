"""The plan of a series: its scaling and noise, from a sample of its slices that is read once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stillscan.models.noise.estimation import NoNoiseError, estimate_noise_profile
from stillscan.models.noise.evenness import is_noise_alone, is_uneven
from stillscan.models.noise.profile import NoiseProfile, Witness
from stillscan.operators.cine import CineSeries, heart_phases
from stillscan.operators.denoising.expected_error import ExpectedError
from stillscan.operators.denoising.intensity import Scaling, scaling_for
from stillscan.operators.denoising.noise_check import NoiseCheck
from stillscan.operators.denoising.pass_through import PassThrough
from stillscan.operators.denoising.repeats import RepeatCheck, acquired_again
from stillscan.operators.errors import NoiseOutsideBundleError, NoNoiseInSeriesError
from stillscan.operators.reading.read_ahead import with_slices_in_memory
from stillscan.operators.volume import Volume, VolumeBlock

NOT_CHECKED = NoiseCheck()
BY_PLACE_WARNING = "the noise differs over the image; it was measured by place"
UNEVEN_WARNING = "the noise differs between the slices; it was measured in each of them"
SAMPLE_SLICES = 8
SAMPLE_PIXELS = 2**22  # in all slices of the sample: limits time and memory of the estimate

Pixels = Float32[np.ndarray, "row column"]
Padding = Bool[np.ndarray, "row column"]


@dataclass(frozen=True)
class Plan:
    """Scaling and noise of a whole series, determined from a sample of its slices.

    Attributes:
        scaling: modality units to network numbers.
        noise: the noise in network numbers.
        sample: indices of the slices of the sample.
        repeats: the check of the denoiser against repeated acquisitions; None where the series has
            none, or nothing was corrected.
        pass_through: the low frequencies that are left as they are; None for none.
        noise_check: the noise level against independent measurements.
        uneven: whether the slices differ in their noise, so that each has its own.
        expected: what the correction does to the error in the foreground; None if not measured.
        cine: places and phases of a cine that is denoised along its motion, a place to a block.
        no_cine: why a series is not denoised along its motion, where that was asked for.
    """

    scaling: Scaling
    noise: NoiseProfile
    sample: tuple[int, ...]
    repeats: RepeatCheck | None = None
    pass_through: PassThrough | None = None
    noise_check: NoiseCheck = NOT_CHECKED
    uneven: bool = False
    expected: ExpectedError | None = None
    cine: CineSeries | None = None
    no_cine: str = ""

    def for_slice(self, block: VolumeBlock) -> Plan:
        """Return the plan of one slice of an uneven series: with its own noise.

        A slice whose own noise is not confirmed keeps the series' noise, if that is lower. The
        share of the correction is that of the series, as provenance and report state it.
        """
        assert len(block.pixels) == 1
        network = self.scaling.to_network(block.pixels[0])
        try:
            own = estimate_noise_profile(
                [torch.from_numpy(network)],
                [torch.from_numpy(~block.padding[0])],
                signal_dependent=block.volume.modality != "MR",
            )
        except NoNoiseError:
            return self
        lower = own.certainty == "one witness" and own.sigma < self.noise.sigma
        if own.certainty != "confirmed" and not lower:
            return self
        check = replace(NoiseCheck.of(own), alone=self.noise_check.alone)
        return replace(self, noise=own, noise_check=check)

    @property
    def confirmed_share(self) -> float:
        """Share of the correction that repeats, else measurements of the noise, confirm."""
        return self.repeats.confirmed_share if self.repeats else self.noise_check.share

    def error_change(self, strength: float) -> float | None:
        """Return by which share the error in the foreground is expected to change."""
        share = strength * self.confirmed_share
        return self.expected.relative(share) if self.expected else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What limits the correction, for users."""
        found = (
            UNEVEN_WARNING if self.uneven else "",
            BY_PLACE_WARNING if self.noise.places is not None else "",
            self.repeats.warning if self.repeats else "",
            self.noise_check.warning,
            *(self.expected.warnings if self.expected else ()),
            self.no_cine and f"each phase was denoised alone: {self.no_cine}",
        )
        return tuple(each for each in found if each)

    @property
    def witnesses(self) -> tuple[Witness, ...]:
        """What each measurement of the noise found, in modality units."""
        return self.noise.rescaled(1 / self.scaling.gain, 0.0).witnesses

    @property
    def noise_before(self) -> float | None:
        """Standard deviation of the noise in modality units; None where it was not measured."""
        if self.noise.certainty == "not measured":
            return None
        return self.noise.sigma / self.scaling.gain


@dataclass(frozen=True)
class SeriesSample:
    """The slices of a series that its plan is made from.

    Attributes:
        volume: the series; its slices of the sample are served from memory.
        indices: indices of the slices, at most SAMPLE_SLICES, evenly spread.
        again: for each of them the index of another acquisition of the same slice, or None.
    """

    volume: Volume
    indices: tuple[int, ...]
    again: tuple[int | None, ...]

    def slices(self) -> list[VolumeBlock]:
        """Return the slices of the sample, each a block of one."""
        return [self.volume.read(index, index + 1) for index in self.indices]

    def is_noise_alone(self, plan: Plan) -> bool:
        """Return whether all slices of the sample hold noise and nothing else."""
        images = [plan.scaling.to_network(block.pixels[0]) for block in self.slices()]
        return is_noise_alone(images, plan.noise)

    def repeats(self) -> list[VolumeBlock | None]:
        """Return the other acquisition of each of them."""
        return [None if at is None else self.volume.read(at, at + 1) for at in self.again]


def read_sample(volume: Volume) -> SeriesSample:
    """Read the sample of a series and, if it has them, other acquisitions of the same slices.

    Raises:
        InputError: if one of them cannot be read.
    """
    indices = sample_of(len(volume.slices))
    phases = heart_phases(volume)  # another phase of a cine is no repeat: the heart has moved
    places = [
        each.place and (*each.place, *at) for each, at in zip(volume.slices, phases, strict=True)
    ]
    again = tuple(acquired_again(places, indices))
    wanted = sorted({*indices, *(index for index in again if index is not None)})
    return SeriesSample(with_slices_in_memory(volume, wanted), indices, again)


def plan_from(
    sample: SeriesSample,
    noise_range: tuple[float, float] | None = None,
    scaling: Scaling | None = None,
    noise: NoiseProfile | None = None,
) -> Plan:
    """Determine scaling and noise of a series; repeated acquisitions are used if there are any.

    Args:
        sample: sample of the series.
        noise_range: sigma on the network scale that the bundle was trained for; None for any.
        scaling: in place of the one that the unit and the sample give.
        noise: replaces the measured noise, on the scale of `scaling`.

    Raises:
        NoNoiseInSeriesError: if every part of the sample is constant.
        NoiseOutsideBundleError: if the noise is stronger than the bundle was trained for.
    """
    uid = sample.volume.series_instance_uid
    spacing_mm = sample.volume.slices[0].plane.spacing_mm
    blocks, repeats = sample.slices(), sample.repeats()
    given = noise if scaling is not None else None
    try:
        scaling, noise = measure_noise(
            sample.volume.unit,
            [block.pixels[0] for block in blocks],
            [block.padding[0] for block in blocks],
            [None if block is None else (block.pixels[0], block.padding[0]) for block in repeats],
            scaling,
            signal_dependent=sample.volume.modality != "MR",
        )
        noise = noise if given is None else replace(given, witnesses=noise.witnesses)
    except NoNoiseInSeriesError as error:
        if given is None or scaling is None:
            raise NoNoiseInSeriesError(f"series {uid}: {error}") from error
        noise = given
    if given is None and noise_range is not None and noise.sigma > noise_range[1]:
        raise NoiseOutsideBundleError(
            f"series {uid}: noise of {noise.sigma:.3f} of the intensity range; the bundle was "
            f"trained for at most {noise_range[1]:.3f}"
        )
    one_acquisition = given is None and not any(repeats)
    return Plan(
        scaling,
        noise,
        sample.indices,
        pass_through=PassThrough.of(sample.volume.modality, spacing_mm),
        noise_check=NoiseCheck.of(noise),
        uneven=one_acquisition and is_uneven([block.pixels[0] for block in blocks]),
    )


def sample_of(count: int) -> tuple[int, ...]:
    """Return indices of at most SAMPLE_SLICES of `count` slices, evenly spaced."""
    wanted = np.linspace(0, count - 1, min(count, SAMPLE_SLICES)).round()
    return tuple(int(index) for index in np.unique(wanted))


def measure_noise(
    unit: str,
    slices: Sequence[Pixels],
    padding: Sequence[Padding],
    again: Sequence[tuple[Pixels, Padding] | None] | None = None,
    scaling: Scaling | None = None,
    *,
    signal_dependent: bool = True,
) -> tuple[Scaling, NoiseProfile]:
    """Determine scaling and noise, in network numbers, from a sample of slices.

    Args:
        unit: of the pixels.
        slices: in this unit; sizes may differ.
        padding: True where a pixel is padding.
        again: the same slices, acquired once more, and their padding; None where a slice was not.
            One whose padding is another is not looked at.
        scaling: in place of the one that the unit and the sample give.
        signal_dependent: False where such a law must be proven (`estimate_noise_profile`).

    Raises:
        NoNoiseInSeriesError: if every part of the sample is constant.
    """
    seen = [pixels[~mask] for pixels, mask in zip(slices, padding, strict=True)]
    if sum(len(pixels) for pixels in seen) == 0:
        raise NoNoiseInSeriesError("every pixel of the series is padding")
    if scaling is None:
        scaling = scaling_for(unit, np.concatenate(seen))
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
        noise = estimate_noise_profile(images, valid, others, signal_dependent=signal_dependent)
    except NoNoiseError as error:
        raise NoNoiseInSeriesError(str(error)) from error
    if noise.places is not None:  # it was measured in the middle of the image
        rows, columns = middles[0]
        noise = replace(noise, places=noise.places.moved(rows.start, columns.start))
    return scaling, noise


def _middle(rows: int, columns: int, *, count: int) -> tuple[slice, slice]:
    """Return the middle of an image, small enough for a sample of `count` slices."""
    side = math.isqrt(SAMPLE_PIXELS // count)
    top, left = max(0, (rows - side) // 2), max(0, (columns - side) // 2)
    return slice(top, top + side), slice(left, left + side)

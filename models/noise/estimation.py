"""Estimate the noise of a series from the series alone.

Noise is what is left in the flattest places. Blocks are freed of their plane; in each range of
intensity the lowest self-consistent cluster of block variances is taken to be noise, all above it
structure. How much noise the removed plane has swallowed, and how far block variances scatter, both
follow from the noise's own correlation, so level and correlation are found in turns. Structure can
only raise a level, never lower it, so the curve of level against intensity is fitted from below.

Places that hold no noise at all (air set to exactly zero, padding, saturation) are left out.

A level counts as proven only where what was measured looks like noise: the flattest places vary by
a nearly normal law, and hardly any place with signal is much flatter than they are. Smooth
structure, taken for correlated noise, fails both.

Where slices were acquired again, their differences contain noise alone; where both ways
prove a level, the lower one holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from stillscan.models.noise.blocks import (
    Array,
    Blocks,
    Correlation,
    NoNoiseError,
    Plane,
    cut_blocks,
    excess_kurtosis,
    holds_noise,
    spread_out,
    windows,
    without_plane,
)
from stillscan.models.noise.levels import (
    DARK,
    FEWEST_BLOCKS,
    Curve,
    Levels,
    fit_curve,
    intensity_ranges,
    level_knots,
    measure_levels,
)
from stillscan.models.noise.places import measure_places
from stillscan.models.noise.profile import (
    MAX_LAG,
    SIGNAL_DEPENDENT,
    NoiseProfile,
    PlaceMap,
    Witness,
)
from stillscan.models.noise.spectrum import FINE, MIDDLE, BandLevel, measure_band

__all__ = ["NoNoiseError", "estimate_noise_profile", "remaining_share"]

BANDS = {"finest detail": FINE, "middle frequencies": MIDDLE}
NEAR = 1.4  # factor within which another witness confirms a level
LAW_PURITY = 0.5  # share of the blocks that must be noise where its law is read
SAME = 1.12  # the same for two of which neither is proven
AGREE = 1.25  # two levels that differ by no more than this factor are the same
BLOCK_SIZES = (16, 8)  # large ones see wide correlation, small ones find flat places in anatomy
WIDEST_SCATTER = 0.45  # of block variances: beyond it the blocks are too small for the correlation
PROOF_BLOCKS, PROOF_PURITY = 100, 0.4  # an intensity range that proves a level
LONGEST_TAILS = 0.7  # excess kurtosis of noise; that of a Gamma law of shape 10 is 0.6
QUIETER, QUIETER_SHARE = 2.5, 0.03  # standard deviations of a block variance; share of the blocks
FEWEST_FLAT, SHORT = 28, 0.15  # flat blocks, and their correlation at two pixels and more
UNPROVEN_SHARE = 0.1  # of a level that is not confirmed: it may be structure
ROUNDING = 1e-7  # of the range of intensities: a level below this is no noise
QUIET = 0.001  # of the brightest places: the highest level that is reported then
COMPARED_BLOCKS = 2000  # of a slice, before and after
FLATTEST = 0.2  # upper edge of the blocks that the correlation is measured on, as CLUSTER


def estimate_noise_profile(
    slices: Sequence[Float[Tensor, "_ _"]],
    valid: Sequence[Bool[Tensor, "_ _"]] | None = None,
    again: Sequence[Float[Tensor, "_ _"] | None] | None = None,
    *,
    signal_dependent: bool = True,
) -> NoiseProfile:
    """Level, signal dependence and correlation of the noise in these slices.

    Args:
        slices: of one series, any sizes, on a scale where 0 means no signal.
        valid: False where a pixel is padding and must not be looked at.
        again: the same slices, acquired once more; None where a slice was not.
        signal_dependent: False (MR) where a law other than constant or Rician must be proven by
            flat places and a band of frequencies together.

    Raises:
        NoNoiseError: if every part of the image is constant, or smooth to the last bit.
    """
    images = [_array(image) for image in slices]
    masks = [mask.cpu().numpy() for mask in valid] if valid is not None else [None] * len(images)
    planes = [Plane(image, mask) for image, mask in zip(images, masks, strict=True)]
    # an empty slice (beyond the patient, an empty tile of a mosaic) has no noise
    cut = _Cut([plane for plane in planes if not _is_constant(plane)] or planes)
    profile = _by_place(cut, signal_dependent)
    if again is not None:
        repeated = [
            Plane(plane.image, plane.valid, _array(other))
            for plane, other in zip(planes, again, strict=True)
            if other is not None and not _is_constant(plane)
        ]
        profile = _lower(profile, _from_repeats(repeated))
    profile = profile or _unproven(cut)
    if profile.sigma < ROUNDING * max(float(np.ptp(image)) for image in images):
        raise NoNoiseError("the image is smooth to the last bit")
    return profile


def _is_constant(plane: Plane) -> bool:
    seen = plane.image if plane.valid is None else plane.image[plane.valid]
    return seen.size == 0 or float(np.ptp(seen)) == 0


class _Cut:
    """Slices and their blocks, cut once for each size; with a map, as if the noise were even."""

    def __init__(self, planes: Sequence[Plane], places: PlaceMap | None = None) -> None:
        self.planes = planes
        self.places = places
        self.smallest = min(min(plane.image.shape) for plane in planes)
        self._blocks: dict[int, Blocks] = {}

    def blocks(self, size: int) -> Blocks:
        if size not in self._blocks:
            blocks = cut_blocks(self.planes, size)
            self._blocks[size] = blocks if self.places is None else blocks.evened(self.places)
        return self._blocks[size]

    def small_blocks(self) -> Blocks:
        return self.blocks(min(BLOCK_SIZES[-1], self.smallest))


@dataclass(frozen=True)
class _BandProfile:
    """The noise measured in one band of frequencies."""

    name: str
    profile: NoiseProfile
    band: BandLevel

    @property
    def witness(self) -> Witness:
        return Witness(self.name, self.profile.sigma, self.band.proven)


def _by_place(cut: _Cut, signal_dependent: bool) -> NoiseProfile | None:
    """The noise of one acquisition, with a map of places where the images prove one."""
    everywhere = _from_one_acquisition(cut, signal_dependent)
    places = _places(cut, everywhere or _estimate(cut.small_blocks(), signal_dependent).profile)
    if places is None:
        return everywhere
    even = _Cut(cut.planes, places)
    bands = _bands(even, signal_dependent)
    if not (bands and bands[0].band.proven):
        return everywhere
    found, flattest = bands[0].profile, _flattest(even)
    # where the map is too high, flat places show less noise
    witnesses = Witness("flat places", flattest, proven=False), bands[0].witness
    certain = _ratio(flattest, found.sigma) < NEAR
    return replace(
        found,
        witnesses=witnesses,
        certainty="confirmed" if certain else "one witness",
        places=places,
    )


def _places(cut: _Cut, noise: NoiseProfile) -> PlaceMap | None:
    shapes = {plane.image.shape for plane in cut.planes}
    if len(shapes) > 1 or cut.smallest < BLOCK_SIZES[-1]:
        return None
    return measure_places(cut.small_blocks(), noise, *shapes)


def _from_one_acquisition(cut: _Cut, signal_dependent: bool) -> NoiseProfile | None:
    """Noise by flat places and two bands of frequencies together; None where none proves a level.

    Structure can only raise a level, so the lower one holds.
    """
    bands, flat = _bands(cut), _from_flat_places(cut)
    if not (signal_dependent or _law_is_proven(bands, flat)):
        bands = _bands(cut, signal_dependent=False)
        flat = _from_flat_places(cut, signal_dependent=False)
    flattest = flat.sigma if flat is not None else _flattest(cut)
    in_band = _supported(bands, flattest)
    used = flat or in_band
    scales = [] if bands else _flat_of_each_size(cut)
    if used is None or not (bands or scales):
        return None
    if flat is not None and in_band is not None:
        same_law = flat.family not in SIGNAL_DEPENDENT or in_band.family in SIGNAL_DEPENDENT
        if flat.sigma > AGREE * in_band.sigma or not same_law:
            used = in_band.weakened(min(1.0, flat.sigma / in_band.sigma))
    witnesses = (
        Witness("flat places", flattest, proven=flat is not None),
        *(each.witness for each in bands),
        *scales,
    )
    near = [each for each in witnesses if 1 / NEAR < each.sigma / used.sigma < NEAR]
    return replace(
        used, witnesses=witnesses, certainty="confirmed" if len(near) > 1 else "one witness"
    )


def _law_is_proven(bands: Sequence[_BandProfile], flat: NoiseProfile | None) -> bool:
    """Whether all find noise that depends on the signal, or none does.

    In ranges of intensity that are mostly structure, bright structure looks like such noise.
    """
    in_band = next((each for each in bands if each.band.proven), None)
    profiles = (flat, in_band.profile if in_band is not None else None)
    found = [each for each in profiles if each is not None]
    dependent = [each.family in SIGNAL_DEPENDENT for each in found]
    if not any(dependent):
        return True
    return in_band is not None and all(dependent) and in_band.band.purity >= LAW_PURITY


def _supported(bands: Sequence[_BandProfile], flattest: float) -> NoiseProfile | None:
    """The level of the bands: proven by one, or likely and supported by a second measurement."""
    for each in bands:
        if each.band.proven:
            return each.profile
    levels = [each.profile for each in bands]
    if len(levels) == len(BANDS) and _ratio(levels[0].sigma, levels[1].sigma) <= AGREE:
        return min(levels, key=lambda each: each.sigma)
    for each in bands:
        if each.band.likely and _ratio(each.profile.sigma, flattest) <= SAME:
            return each.profile
    return None


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def _flat_of_each_size(cut: _Cut) -> list[Witness]:
    """Flat places of large blocks beside those of small ones, where both find the same level.

    Structure grows with the size of the blocks, noise does not. Empty where they differ.
    """
    sizes = [size for size in BLOCK_SIZES if 2 * size <= cut.smallest]
    levels = [_estimate(cut.blocks(size)).profile.sigma for size in sizes]
    if len(levels) < 2 or _ratio(*levels) > SAME:
        return []
    return [Witness("flat places of large blocks", levels[0], proven=False)]


def _flattest(cut: _Cut) -> float:
    """The level of the flattest small blocks, whether it proves noise or not."""
    return _estimate(cut.small_blocks()).profile.sigma


def _bands(cut: _Cut, signal_dependent: bool = True) -> list[_BandProfile]:
    """Noise in each band of frequencies that has enough, up to the first that proves a level.

    Where both look like noise and the coarser one like much more, it is structure of all scales:
    then neither is used.
    """
    found = []
    for name, band in BANDS.items():
        if cut.smallest < 2 * band.block_size:
            continue
        blocks = cut.blocks(band.block_size)
        in_band = measure_band(blocks, band, signal_dependent)
        if in_band is not None:
            profile = _profile(
                in_band.curve, in_band.levels, in_band.edges, in_band.correlation, blocks.means
            )
            found.append(_BandProfile(name, profile, in_band))
    proven = [each.profile.sigma for each in found if each.band.proven]
    if len(proven) == len(BANDS) and proven[1] > NEAR * proven[0]:
        return []
    return found[:1] if found and found[0].band.proven else found


def _array(image: Tensor) -> Array:
    return np.asarray(image.detach().cpu().numpy(), np.float64)


def _lower(one: NoiseProfile | None, other: NoiseProfile | None) -> NoiseProfile | None:
    """Structure can only raise a level: the lower of two."""
    found = [profile for profile in (one, other) if profile is not None]
    if len(found) < 2:
        return found[0] if found else None
    lower = min(found, key=lambda profile: profile.sigma)
    witnesses = tuple(each for profile in found for each in profile.witnesses)
    return replace(lower, certainty="confirmed", witnesses=witnesses)


def _from_repeats(planes: Sequence[Plane]) -> NoiseProfile | None:
    """The noise of slices that were acquired twice; None where their difference proves none."""
    if not planes:
        return None
    try:
        cut = _Cut(planes)
        found = _from_flat_places(cut)
        places = _places(cut, found) if found is not None else None
        if places is not None:
            even = _estimate(_Cut(planes, places).small_blocks())
            found = replace(even.profile, places=places) if even.proven else found
        return found and replace(found, witnesses=(Witness("repeats", found.sigma, proven=True),))
    except NoNoiseError:  # the same image twice, not the same slice
        return None


def _from_flat_places(cut: _Cut, signal_dependent: bool = True) -> NoiseProfile | None:
    """Level and correlation where enough blocks of pure noise prove them, else None.

    All slices together first; where their noise differs (thickness, tube current), slice by slice:
    then the lower quartile is used for the series, since structure can only raise a level.
    """
    sizes = [size for size in BLOCK_SIZES if 2 * size <= cut.smallest]
    for size in sizes:
        found = _estimate(cut.blocks(size), signal_dependent)
        if found.proven:
            return found.profile
    if len(cut.planes) == 1:
        return None
    each = [_from_flat_places(_Cut([plane]), signal_dependent) for plane in cut.planes]
    proven = sorted((p for p in each if p is not None), key=lambda profile: profile.sigma)
    return proven[len(proven) // 4] if 2 * len(proven) >= len(cut.planes) else None


def _unproven(cut: _Cut) -> NoiseProfile:
    """Where nothing proves a level: hardly any noise, so that next to nothing would be removed."""
    blocks = cut.small_blocks()
    profile = _estimate(blocks).profile
    if len(blocks.means) >= FEWEST_BLOCKS:
        quiet = QUIET * float(np.quantile(blocks.means, 0.98)) / profile.sigma
        profile = profile.weakened(min(UNPROVEN_SHARE, max(quiet, 0.0)))
    return replace(profile, certainty="not measured")


@dataclass(frozen=True)
class _Found:
    """A profile, and whether enough blocks of pure noise prove it."""

    profile: NoiseProfile
    proven: bool


def _estimate(blocks: Blocks, signal_dependent: bool = True) -> _Found:
    """Level and correlation in turns, from the whole variance of the blocks."""
    edges, bins = intensity_ranges(blocks.means)
    correlation = Correlation.white(blocks.size)
    for _ in range(4):
        levels = measure_levels(blocks, bins, correlation)
        curve = fit_curve(levels, signal_dependent)
        expected = curve.variance(blocks.means) * correlation.kept
        flat = _flat_blocks(blocks, expected, correlation.scatter)
        correlation = Correlation.measure(
            blocks.residuals[flat] / np.sqrt(expected[flat])[:, None], blocks.size
        )
    levels = measure_levels(blocks, bins, correlation)
    curve = fit_curve(levels, signal_dependent)
    small = blocks.size == BLOCK_SIZES[-1]  # only these find the few flat places of anatomy
    with_signal = blocks.means[flat] > DARK * np.quantile(blocks.means, 0.98)
    proven = _is_pure(levels) or (small and _looks_like_noise(with_signal, correlation))
    proven = proven and correlation.scatter < WIDEST_SCATTER
    proven = proven and _varies_as_noise(blocks.residuals[flat], expected[flat])
    proven = proven and _is_everywhere(blocks, curve, correlation)
    return _Found(_profile(curve, levels, edges, correlation, blocks.means), proven)


def _is_pure(levels: Levels) -> bool:
    """Whether some range of intensity with signal is mostly noise."""
    pure = (levels.counts >= PROOF_BLOCKS) & (levels.purity >= PROOF_PURITY)
    return bool((pure & (levels.centres > DARK * levels.centres.max())).any())


def _looks_like_noise(with_signal: np.ndarray, correlation: Correlation) -> bool:
    """Whether the flattest blocks, though few, are not structure: that correlates over pixels.

    Air proves nothing of the signal, so blocks of air may not be among those that were looked at.
    """
    along = correlation.acf[MAX_LAG, MAX_LAG + 2 :], correlation.acf[MAX_LAG + 2 :, MAX_LAG]
    beyond = float(np.abs(np.concatenate(along)).max())
    return bool(with_signal.all() and len(with_signal) >= FEWEST_FLAT and beyond < SHORT)


def _varies_as_noise(values: Array, variances: Array) -> bool:
    """Whether blocks of these variances vary by a nearly normal law: structure has long tails.

    Args:
        values: of the flattest blocks [block, value].
        variances: that noise should have in each of them.
    """
    scaled = values / np.sqrt(variances)[:, None]
    return excess_kurtosis(scaled) <= LONGEST_TAILS


def _is_everywhere(blocks: Blocks, curve: Curve, correlation: Correlation) -> bool:
    """Whether hardly any block with signal varies less than noise of this level must."""
    signal = blocks.means > DARK * np.quantile(blocks.means, 0.98)
    expected = curve.variance(blocks.means[signal]) * correlation.kept
    quieter = blocks.variances[signal] < expected * (1 - QUIETER * correlation.scatter)
    return float(quieter.mean()) <= QUIETER_SHARE


def _flat_blocks(blocks: Blocks, expected: Array, scatter: float) -> np.ndarray:
    """Blocks that hold noise alone; with signal, where there are enough (air is rectified)."""
    ratio = blocks.variances / expected
    flat = ratio < 1 + FLATTEST * scatter
    with_signal = flat & (blocks.means > DARK * np.quantile(blocks.means, 0.98))
    if with_signal.sum() >= FEWEST_FLAT:
        return with_signal
    return flat if flat.sum() >= FEWEST_BLOCKS else ratio <= np.quantile(ratio, 0.1)


def _profile(
    curve: Curve, levels: Levels, edges: Array, correlation: Correlation, means: Array
) -> NoiseProfile:
    """Put the parts together; `sigma` is the root mean square over the blocks with signal."""
    knots, sigmas = level_knots(curve, levels, edges)
    signal = means[means > DARK * np.quantile(means, 0.98)]
    profile = NoiseProfile(
        sigma=float(np.sqrt(np.mean(np.interp(signal, knots, sigmas) ** 2))),
        levels=tuple(float(level) for level in knots),
        sigmas=tuple(float(sigma) for sigma in sigmas),
        acf=correlation.acf,
        family=curve.family,
    )
    if curve.family == "gaussian" and profile.radius > 0:
        return replace(profile, family="correlated")
    return profile


def remaining_share(
    before: Float[Tensor, "height width"],
    after: Float[Tensor, "height width"],
    noise: NoiseProfile,
    valid: Bool[Tensor, "height width"] | None = None,
) -> float:
    """Share of the noise's standard deviation that a denoiser left in the flattest places.

    The places are those where the image that came in varies no more than its noise; what varies
    there afterwards is compared with what varied before, so that structure cannot count as noise.
    1 where no place can be compared.
    """
    image, cleaned = (plane.numpy().astype(np.float64) for plane in (before, after))
    size = min(BLOCK_SIZES[-1], *image.shape)
    step = spread_out(image.shape, size, COMPARED_BLOCKS)
    usable = holds_noise(image, None if valid is None else valid.numpy(), size, step)
    if not usable.any():
        return 1.0
    sigma = noise.sigma_map(before[None, None].float())[0, 0].numpy()
    expected = (windows(sigma, size, step)[usable] ** 2).mean(1)
    varied = without_plane(windows(image, size, step)[usable], size)
    ratio = (varied**2).mean(1) / expected
    flat = ratio <= max(1.2, float(np.quantile(ratio, 0.05)))
    left = without_plane(windows(cleaned, size, step)[usable][flat], size)
    return float(np.sqrt((left**2).mean() / (varied[flat] ** 2).mean()))

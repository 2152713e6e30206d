"""A band of spatial frequencies as a witness of the noise: level, law and length of correlation.

The power of structure falls steeply with spatial frequency and is rare: most blocks have little of
it above some frequency. So blocks are chosen by one half of the cosines of a band, the other half
is measured in the chosen ones, and noise after a Gaussian blur is fitted to how its power falls
over the band. Choosing and measuring use different cosines, so that the choice does not lower what
is measured; structure can only raise it.

Two bands: the finest detail of small blocks, for noise of short correlation, and the middle
frequencies of larger blocks, for noise that was smoothed or interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from stillscan.models.noise.blocks import (
    Array,
    Blocks,
    Correlation,
    cosines,
    excess_kurtosis,
    normality,
)
from stillscan.models.noise.levels import (
    DARK,
    Curve,
    Levels,
    fit_curve,
    intensity_ranges,
    measure_levels,
)
from stillscan.models.noise.profile import MAX_LAG

FEWEST, MANY = 24, 100  # chosen blocks: needed; enough for long tails to be outliers
LIKELY = 0.91  # normality of a level that another measurement must support
TAILS_OF_FEW = 0.8  # highest excess kurtosis where there are not many
ROUNDS = 5
CHOSEN = 0.2  # upper edge of the chosen blocks, in deviations of their variance
QUIETER, QUIETER_SHARE = 2.5, 0.03  # deviations below the noise; share of the blocks


@dataclass(frozen=True)
class Band:
    """Frequencies in cycles per pixel, size of the blocks, and correlation lengths in pixels."""

    block_size: int
    lowest: float
    highest: float
    lengths: tuple[float, ...]
    longest: float  # noise of a longer correlation has too little power in the band
    normality: float  # least robust deviation / deviation: 1 for noise, less for structure
    tails: float  # highest excess kurtosis


FINE = Band(8, 0.22, 0.71, tuple(0.05 * n for n in range(16)), 0.62, 0.93, np.inf)
MIDDLE = Band(16, 0.09, 0.25, tuple(0.1 * n for n in range(26)), 2.35, 0.94, 0.7)


@dataclass(frozen=True)
class BandLevel:
    """The noise as one band shows it: variance by intensity, and correlation.

    Attributes:
        curve: variance of the noise by intensity.
        levels: what the curve was fitted to.
        edges: of the ranges of intensity.
        correlation: of the noise.
        proven: whether what was measured varies as noise does, and hardly any block is quieter.
        likely: the same with many blocks and a law a little less normal: what needs support.
    """

    curve: Curve
    levels: Levels
    edges: Array
    correlation: Correlation
    proven: bool
    likely: bool

    @property
    def purity(self) -> float:
        """Share of the blocks with signal that are noise, in the median range of intensity."""
        signal = self.levels.centres > DARK * self.levels.centres.max()
        return float(np.median(self.levels.purity[signal]))


def measure_band(blocks: Blocks, band: Band, signal_dependent: bool = True) -> BandLevel | None:
    """Measure the noise in a band; None where there is too little of it."""
    size = blocks.size
    y, x = (axis.ravel() for axis in np.mgrid[:size, :size])
    frequency = np.hypot(y, x) / (2 * size)
    inside = (frequency >= band.lowest) & (frequency <= band.highest)
    choosing, measuring = inside & ((y + x) % 2 == 0), inside & ((y + x) % 2 == 1)
    amplitudes = blocks.residuals @ cosines(size)
    power = amplitudes[:, choosing] ** 2
    edges, bins = intensity_ranges(blocks.means)
    bright = blocks.means > DARK * np.quantile(blocks.means, 0.98)
    scatter = float(np.sqrt(2 / choosing.sum()))
    lengths, share = (0.0, 0.0), 1.0
    for _ in range(ROUNDS):
        variances = (power / _expected(size, lengths)[choosing]).mean(1)
        correlation = Correlation(_acf(lengths), 1.0, scatter)
        chooser = replace(blocks, variances=variances)
        levels = measure_levels(chooser, bins, correlation)
        curve = fit_curve(levels, signal_dependent)
        expected = curve.variance(blocks.means)
        members = bright & (variances < expected * (1 + CHOSEN * scatter))
        if members.sum() < FEWEST:
            return None
        scaled = amplitudes[members] / np.sqrt(expected[members])[:, None]
        before = lengths
        lengths, share = _fit((scaled**2).mean(0), measuring, size, band.lengths)
        if lengths == before:
            break
    if max(lengths) > band.longest:
        return None
    measured = (scaled / np.sqrt(_expected(size, lengths)))[:, measuring]
    quieter = (variances < expected * (1 - QUIETER * scatter))[bright].mean()
    everywhere = float(quieter) <= QUIETER_SHARE
    normal, tails = normality(measured), excess_kurtosis(measured)
    longest = band.tails if len(measured) >= MANY else min(band.tails, TAILS_OF_FEW)
    return BandLevel(
        Curve(curve.family, curve.scale * share, curve.terms, curve.top),
        Levels(levels.centres, levels.variances * share, levels.counts, levels.purity),
        edges,
        Correlation(_acf(lengths), 1.0, scatter),
        proven=everywhere and normal >= band.normality and tails <= longest,
        likely=everywhere and normal >= LIKELY and len(measured) >= MANY,
    )


def _fit(
    power: Array, measuring: np.ndarray, size: int, lengths: tuple[float, ...]
) -> tuple[tuple[float, float], float]:
    """The correlation lengths and the scale that explain the power of the measured cosines."""
    wanted = np.log(np.maximum(power[measuring], 1e-12))
    best = (np.inf, (0.0, 0.0), 1.0)
    for pair in product(lengths, lengths):
        difference = wanted - np.log(_expected(size, pair)[measuring])
        offset = float(np.median(difference))
        loss = float(np.abs(difference - offset).sum())
        if loss < best[0]:
            best = (loss, pair, float(np.exp(offset)))
    return best[1], best[2]


@lru_cache(maxsize=2048)
def _expected(size: int, lengths: tuple[float, float]) -> Array:
    """Power of each cosine [size * size] of noise of unit variance, blurred by these lengths."""
    down, across = (_line_power(size, length) for length in lengths)
    return np.maximum(np.outer(down, across).ravel(), 1e-9)


@lru_cache
def _line_power(size: int, length: float) -> Array:
    k, n = np.mgrid[:size, :size]
    line = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(np.where(k == 0, 1, 2) / size)
    covariance = _line(length)[np.abs(n - n.T)]
    return np.asarray(np.einsum("kn,nm,km->k", line, covariance, line))


@lru_cache
def _line(length: float) -> Array:
    """Correlation at lags 0 to 63 of white noise after a Gaussian blur of this deviation."""
    spectrum = np.exp(-4 * np.pi**2 * (length * np.fft.fftfreq(128)) ** 2)
    line = np.fft.ifft(spectrum).real
    return np.asarray(line[:64] / line[0])


def _acf(lengths: tuple[float, float]) -> Array:
    lags = np.abs(np.arange(-MAX_LAG, MAX_LAG + 1))
    down, across = (_line(length)[lags] for length in lengths)
    return np.outer(down, across)

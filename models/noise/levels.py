"""How much noise there is at each intensity: clusters of flat blocks, a curve through them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from stillscan.models.noise.blocks import Array, Blocks, Correlation
from stillscan.models.noise.profile import Family
from stillscan.models.noise.synthesis import rician_deviation, rician_mean

BINS = 16
FEWEST_BLOCKS = 24  # in an intensity range; fewer are not used
CLUSTER = 1.5  # upper edge of the noise cluster, in standard deviations of a block variance
CLUSTER_SHARE, CLUSTER_BIAS = 0.9332, 0.1388  # of a normal law below that edge: mass, mean shift
ENVELOPE = 0.12  # quantile at which the level curve runs through what the ranges say
COMPLEXITY = 0.01  # what a curve that is not one pure family must gain to be preferred
DARK = (
    0.1  # of the 98th percentile: ranges below hold air, where scanners suppress or rectify noise
)
AIR_WEIGHT = 0.03  # of the disagreement with air, in units of the loss
AIR_PURITY, AIR_REACH = 0.4, 0.6  # least purity of a range that is used; log of variance
RAYLEIGH_RATIO = (1.6, 2.3)  # mean / deviation of rectified noise in air is 1.91
RAYLEIGH_DEVIATION = 0.655  # in sigma
LEAST_OF_AIR = 0.75  # of what ranges with signal allow: scanners also suppress noise in air
# shares of constant, linear and square term, in tenths [mixture, 3]
MIXTURES = np.array(
    [((10 - b - c) / 10, b / 10, c / 10) for b, c in product(range(11), range(11)) if b + c <= 10]
)

CONSTANT = np.array([(1.0, 0.0, 0.0)])


def intensity_ranges(means: Array) -> tuple[Array, np.ndarray]:
    """Edges of BINS ranges, finer towards zero (Poisson, Rician), and each block's range."""
    low, high = np.quantile(means, [0.005, 0.995])
    low = max(low, 0.0)
    edges = np.linspace(np.sqrt(low), np.sqrt(max(high, low + 1e-12)), BINS + 1) ** 2
    return edges, np.clip(np.digitize(means, edges) - 1, 0, BINS - 1)


@dataclass(frozen=True)
class Levels:
    """Per intensity range: where it is, the noise variance that its blocks allow, and how sure.

    `purity` is the share of the range's blocks that belong to the noise cluster (1 = no structure).
    """

    centres: Array
    variances: Array
    counts: Array
    purity: Array

    def chosen(self, mask: np.ndarray) -> Levels:
        """Some of the ranges."""
        return Levels(
            self.centres[mask], self.variances[mask], self.counts[mask], self.purity[mask]
        )


def measure_levels(blocks: Blocks, bins: np.ndarray, correlation: Correlation) -> Levels:
    """The lowest cluster of block variances in each intensity range that has enough blocks."""
    rows = []
    for number in range(BINS):
        chosen = bins == number
        if chosen.sum() < FEWEST_BLOCKS:
            continue
        variance, members = lowest_cluster(blocks.variances[chosen], correlation.scatter)
        purity = min(1.0, members.mean() / CLUSTER_SHARE)
        centre = blocks.means[chosen][members].mean()
        rows.append((centre, variance / correlation.kept, members.sum(), purity))
    if not rows:
        variance, members = lowest_cluster(blocks.variances, correlation.scatter)
        rows.append((blocks.means.mean(), variance / correlation.kept, members.sum(), 1.0))
    return Levels(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def lowest_cluster(variances: Array, scatter: float) -> tuple[float, np.ndarray]:
    """Lowest self-consistent mean of a normal cluster of this relative scatter; its members."""
    if len(variances) < FEWEST_BLOCKS:
        return float(variances.mean()), np.ones(len(variances), bool)
    mean = float(np.quantile(variances, 0.05)) / max(0.3, 1 - 1.3 * scatter)
    members = np.ones(len(variances), bool)
    for _ in range(60):
        members = variances < mean * (1 + CLUSTER * scatter)
        if members.sum() < 5:
            mean *= 1.1
            continue
        better = float(variances[members].mean()) / (1 - CLUSTER_BIAS * scatter)
        if abs(better - mean) < 1e-4 * mean:
            break
        mean = better
    return mean, members


@dataclass(frozen=True)
class Curve:
    """Variance as a function of intensity: scale * (a + b (I/top) + c (I/top)^2), or Rician."""

    family: Family
    scale: float
    terms: tuple[float, float, float]
    top: float

    def variance(self, intensity: Array) -> Array:
        """At each intensity; never below a thousandth of its value at the top."""
        if self.family == "rician":
            return _rician_variance(intensity, np.sqrt(self.scale))
        return self.scale * _polynomial(intensity / self.top, np.array(self.terms))


def _polynomial(x: Array, terms: Array) -> Array:
    """At each x, of one mixture of terms [3], or of many at once [mixture, 3]."""
    a, b, c = np.moveaxis(terms[..., None], -2, 0)
    x = np.clip(x, 0, None)
    return np.maximum(a + b * x + c * x**2, 1e-3)


def _rician_variance(intensity: Array, sigma: float) -> Array:
    """Variance of a Rician magnitude as a function of its mean."""
    true = torch.linspace(0, 6 * sigma, 64, dtype=torch.float64)
    mean = rician_mean(true, sigma).numpy()
    return np.asarray(np.interp(intensity, mean, rician_deviation(true, sigma).numpy() ** 2))


def fit_curve(levels: Levels, signal_dependent: bool = True) -> Curve:
    """The curve that runs through the ranges with signal from below, by the lowest quantile loss.

    Air takes no part: scanners mask, filter or rectify it. Where its noise is Rayleigh and fits
    what the ranges with signal allow, the law is Rician, and air, free of structure, gives sigma.

    Args:
        levels: of the ranges.
        signal_dependent: False where only a constant or Rician law is possible.
    """
    top = float(levels.centres.max())
    mixtures = MIXTURES if signal_dependent else CONSTANT
    dark = levels.centres < DARK * top
    if _is_signed(levels.chosen(dark)):
        return _fit_polynomial(levels, top, mixtures)
    signal = levels.chosen(~dark) if (~dark).sum() >= 3 else levels
    curve = _fit_polynomial(signal, top, mixtures, levels.chosen(dark))
    sigma = _rayleigh_sigma(levels.chosen(dark))
    if sigma is not None:
        allowed = np.sqrt(curve.variance(np.array([top])))[0]
        if LEAST_OF_AIR * allowed < sigma < 1.15 * allowed:
            return Curve("rician", sigma**2, (1.0, 0.0, 0.0), top)
    return curve


def _is_signed(dark: Levels) -> bool:
    """Whether noise in air goes below zero: then nothing has rectified or masked it."""
    signed = (dark.centres < 0.5 * np.sqrt(dark.variances)) & (dark.purity > 0.5)
    return bool(signed.any())


def _rayleigh_sigma(dark: Levels) -> float | None:
    """Sigma of the complex noise, from air that holds it rectified; None where it does not."""
    deviations = np.sqrt(dark.variances)
    ratio = dark.centres / deviations
    rectified = (ratio > RAYLEIGH_RATIO[0]) & (ratio < RAYLEIGH_RATIO[1]) & (dark.purity > 0.5)
    if not rectified.any():
        return None
    most = int(np.argmax(np.where(rectified, dark.counts, 0)))
    return float(deviations[most]) / RAYLEIGH_DEVIATION


def _fit_polynomial(
    levels: Levels, top: float, mixtures: Array, dark: Levels | None = None
) -> Curve:
    """The envelope of the ranges; between curves that serve equally, air may choose.

    Ranges weigh by the square root of their blocks: the rim of a body fills ranges, too.
    """
    weights = np.sqrt(levels.counts)
    weights = weights / weights.sum()
    ratios = np.log(levels.variances) - np.log(_polynomial(levels.centres / top, mixtures))
    offsets = _weighted_quantiles(ratios, weights, ENVELOPE)
    losses = _quantile_losses(ratios - offsets[:, None], weights)
    largest = mixtures.max(1)
    losses += COMPLEXITY * np.where(mixtures[:, 0] == 1, 0, np.where(largest == 1, 1, 2))
    if dark is not None:
        losses += AIR_WEIGHT * _misses(dark, np.exp(offsets), top, mixtures)
    best = int(np.argmin(losses))
    a, b, c = mixtures[best].tolist()
    family: Family = ("gaussian", "poisson", "gamma")[int(np.argmax(mixtures[best]))]
    return Curve(family, float(np.exp(offsets[best])), (a, b, c), top)


def _misses(dark: Levels, scales: Array, top: float, mixtures: Array) -> Array:
    """Distance of each mixture's curve from the variance of air (0..1); 0 where there is none.

    Scanners mask, filter or rectify air: a variance far from every curve prefers none of them.
    """
    clear = dark.chosen((dark.purity > AIR_PURITY) & (dark.counts >= FEWEST_BLOCKS))
    if len(clear.centres) == 0:
        return np.zeros(len(scales))
    predicted = np.log(scales[:, None] * _polynomial(clear.centres / top, mixtures))
    far = np.abs(np.log(clear.variances) - predicted) / AIR_REACH
    return np.asarray(np.minimum(far, 1).mean(1))


def _weighted_quantiles(values: Array, weights: Array, quantile: float) -> Array:
    """Of each row."""
    order = np.argsort(values, 1)
    ordered = np.take_along_axis(values, order, 1)
    positions = np.cumsum(weights[order], 1) - 0.5 * weights[order]
    wanted = quantile * weights.sum()
    return np.array([np.interp(wanted, *row) for row in zip(positions, ordered, strict=True)])


def _quantile_losses(errors: Array, weights: Array) -> Array:
    """Quantile loss of each row: errors above the curve (structure) cost little, below it much."""
    return np.asarray((weights * np.where(errors > 0, ENVELOPE, ENVELOPE - 1) * errors).sum(1))


def level_knots(curve: Curve, levels: Levels, edges: Array) -> tuple[Array, Array]:
    """The curve at every range; the measured variance where a range without structure is lower."""
    knots = np.unique(np.concatenate([[max(edges[0], 0.0)], levels.centres, [edges[-1]]]))
    variances = curve.variance(knots)
    for centre, variance, purity in zip(
        levels.centres, levels.variances, levels.purity, strict=True
    ):
        at = int(np.argmin(np.abs(knots - centre)))
        if purity > 0.6:
            variances[at] = min(variances[at], variance)
    for end, inner in ((0, 1), (-1, -2)):  # nothing was measured there: as far off as beside it
        if len(knots) > 1 and knots[end] not in levels.centres:
            shares = variances / curve.variance(knots)
            variances[end] *= min(1.0, shares[inner])
    return knots, np.sqrt(variances)

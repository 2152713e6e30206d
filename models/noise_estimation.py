"""Estimate the noise of a series from the series alone.

Noise is what is left in the flattest places. Blocks are freed of their plane; in each range of
intensity the lowest self-consistent cluster of block variances is taken to be noise, all above it
structure. How much noise the removed plane has swallowed, and how far block variances scatter, both
follow from the noise's own correlation, so level and correlation are found in turns. Structure can
only raise a level, never lower it, so the curve of level against intensity is fitted from below.

Places that hold no noise at all (air set to exactly zero, padding, saturation) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.noise import rician_deviation, rician_mean
from models.noise_profile import MAX_LAG, Family, NoiseProfile

Array = Float[np.ndarray, "..."]

BLOCK_SIZES = (16, 8)  # large ones see wide correlation, small ones find flat places in anatomy
WIDEST_SCATTER = 0.45  # of block variances: beyond it the blocks are too small for the correlation
PROOF_BLOCKS, PROOF_PURITY = 100, 0.4  # an intensity range that bears a level out
MAX_BLOCKS = 16_000
BINS = 16
FEWEST_BLOCKS = 24  # in an intensity range; fewer say nothing
CONSTANT_SHARE = 0.25  # a block with this share of one extreme value holds no noise
CLUSTER = 1.5  # upper edge of the noise cluster, in standard deviations of a block variance
FLATTEST = 0.2  # the same for the blocks that the correlation is measured on
CLUSTER_SHARE, CLUSTER_BIAS = 0.9332, 0.1388  # of a normal law below that edge: mass, mean shift
ENVELOPE = 0.12  # quantile at which the level curve runs through what the ranges say
COMPLEXITY = 0.01  # what a curve that is not one pure family must gain to be preferred
DARK = (
    0.1  # of the 98th percentile: ranges below hold air, where scanners suppress or rectify noise
)
RAYLEIGH_RATIO = (1.6, 2.3)  # mean / deviation of rectified noise in air is 1.91
RAYLEIGH_DEVIATION = 0.655  # in sigma


class NoNoiseError(ValueError):
    """The image holds no noise that could be estimated: it is constant."""


@dataclass(frozen=True)
class _Blocks:
    """Blocks without their plane [block, pixel], their mean intensities and variances."""

    size: int
    residuals: Array
    means: Array
    variances: Array


def estimate_noise_profile(
    slices: Sequence[Float[Tensor, "height width"]],
    valid: Sequence[Bool[Tensor, "height width"]] | None = None,
) -> NoiseProfile:
    """Level, signal dependence and correlation of the noise in these slices.

    Args:
        slices: of one series, any sizes, on a scale where 0 means no signal.
        valid: False where a pixel is padding and must not be looked at.

    Raises:
        NoNoiseError: if every part of the image is constant.
    """
    images = [image.detach().cpu().numpy().astype(np.float64) for image in slices]
    masks = [mask.cpu().numpy() for mask in valid] if valid is not None else [None] * len(images)
    smallest = min(min(image.shape) for image in images)
    for size in BLOCK_SIZES:
        if 2 * size > smallest:
            continue
        found = _estimate(_cut_blocks(images, masks, size))
        if found.proven:
            return found.profile
    return _estimate_white(_cut_blocks(images, masks, min(BLOCK_SIZES[-1], smallest)))


@dataclass(frozen=True)
class _Found:
    """A profile, and whether enough blocks of pure noise bear it out."""

    profile: NoiseProfile
    proven: bool


def _estimate(blocks: _Blocks) -> _Found:
    """Level and correlation in turns, from the whole variance of the blocks."""
    edges, bins = _intensity_ranges(blocks.means)
    correlation = _Correlation.white(blocks.size)
    for _ in range(4):
        levels = _levels(blocks, bins, correlation)
        curve = _fit_curve(levels)
        expected = curve.variance(blocks.means) * correlation.kept
        flat = _flat_blocks(blocks, expected, correlation.scatter)
        correlation = _Correlation.measure(
            blocks.residuals[flat] / np.sqrt(expected[flat])[:, None], blocks.size
        )
    levels = _levels(blocks, bins, correlation)
    curve = _fit_curve(levels)
    pure = (levels.counts >= PROOF_BLOCKS) & (levels.purity >= PROOF_PURITY)
    pure &= levels.centres > DARK * levels.centres.max()
    proven = bool(pure.any()) and correlation.scatter < WIDEST_SCATTER
    return _Found(_profile(curve, levels, edges, correlation, blocks.means), proven)


def _estimate_white(blocks: _Blocks) -> NoiseProfile:
    """Where no part of the image is flat, only the finest detail tells noise: the level if white.

    Correlated noise has little there, so it is underestimated and too little is removed, never too
    much.
    """
    y, x = (axis.ravel() for axis in np.mgrid[: blocks.size, : blocks.size])
    fine = y + x > 1.25 * blocks.size
    cosines = blocks.residuals @ _cosines(blocks.size)[:, fine]
    detail = _Blocks(blocks.size, blocks.residuals, blocks.means, (cosines**2).mean(1))
    edges, bins = _intensity_ranges(blocks.means)
    white = _Correlation.white(blocks.size)
    correlation = _Correlation(white.acf, 1.0, float(np.sqrt(2 / fine.sum())))
    levels = _levels(detail, bins, correlation)
    return _profile(_fit_curve(levels), levels, edges, correlation, blocks.means)


@lru_cache
def _cosines(size: int) -> Array:
    """Orthonormal discrete cosines over a block [pixel, coefficient]."""
    k, n = np.mgrid[:size, :size]
    line = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(np.where(k == 0, 1, 2) / size)
    return np.asarray(np.kron(line, line).T)


def _flat_blocks(blocks: _Blocks, expected: Array, scatter: float) -> np.ndarray:
    """Blocks that hold noise alone; with signal, where there are enough (air is rectified)."""
    ratio = blocks.variances / expected
    flat = ratio < 1 + FLATTEST * scatter
    with_signal = flat & (blocks.means > DARK * np.quantile(blocks.means, 0.98))
    if with_signal.sum() >= 2 * FEWEST_BLOCKS:
        return with_signal
    return flat if flat.sum() >= FEWEST_BLOCKS else ratio <= np.quantile(ratio, 0.1)


def _profile(
    curve: _Curve, levels: _Levels, edges: Array, correlation: _Correlation, means: Array
) -> NoiseProfile:
    """Put the parts together; `sigma` is the root mean square over the blocks with signal."""
    knots, sigmas = _level_knots(curve, levels, edges)
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


def _cut_blocks(images: Sequence[Array], masks: Sequence[np.ndarray | None], size: int) -> _Blocks:
    """All blocks that can hold noise, at most MAX_BLOCKS, evenly spread."""
    per_image = max(1, MAX_BLOCKS // len(images))
    cut = [_blocks_of(i, m, size, per_image) for i, m in zip(images, masks, strict=True)]
    blocks = np.concatenate(cut)
    if len(blocks) == 0:
        raise NoNoiseError("every part of the image is constant")
    plane = _plane(size)
    residuals = blocks - (blocks @ plane) @ plane.T
    return _Blocks(size, residuals, blocks.mean(1), (residuals**2).mean(1))


def _blocks_of(image: Array, mask: np.ndarray | None, size: int, most: int) -> Array:
    step = max(1, size // 2)
    while ((image.shape[0] - size) // step + 1) * ((image.shape[1] - size) // step + 1) > most:
        step += size // 2
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size))[::step, ::step]
    blocks = windows.reshape(-1, size * size)
    seen = image[mask] if mask is not None and mask.any() else image
    constant = np.maximum((blocks == seen.min()).mean(1), (blocks == seen.max()).mean(1))
    usable = (constant <= CONSTANT_SHARE) & (np.ptp(blocks, axis=1) > 0)
    if mask is not None:
        inside = np.lib.stride_tricks.sliding_window_view(mask, (size, size))[::step, ::step]
        usable &= inside.reshape(-1, size * size).all(1)
    return blocks[usable]


@lru_cache
def _plane(size: int) -> Array:
    """Orthonormal basis of the planes over a block."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    columns = np.stack([np.ones(size * size), x.ravel(), y.ravel()], 1)
    return np.asarray(np.linalg.qr(columns)[0])


def _intensity_ranges(means: Array) -> tuple[Array, np.ndarray]:
    """Edges of BINS ranges, finer towards zero (Poisson, Rician), and each block's range."""
    low, high = np.quantile(means, [0.005, 0.995])
    low = max(low, 0.0)
    edges = np.linspace(np.sqrt(low), np.sqrt(max(high, low + 1e-12)), BINS + 1) ** 2
    return edges, np.clip(np.digitize(means, edges) - 1, 0, BINS - 1)


def _structure(covariance: Array, lags: list[tuple[int, int]], reach: int) -> float:
    """What structure adds at every lag: noise has ended at the longest lags, structure has not."""
    longest = [v for (dy, dx), v in zip(lags, covariance, strict=True) if max(dy, abs(dx)) == reach]
    return float(np.clip(np.median(longest), 0, 0.5 * covariance[0]))


def _half_lags(reach: int) -> list[tuple[int, int]]:
    """Lags (rows, columns) up to `reach`, one of each pair of opposites, (0, 0) first."""
    lags = [(dy, dx) for dy in range(reach + 1) for dx in range(-reach, reach + 1)]
    return [(dy, dx) for dy, dx in lags if dy > 0 or dx >= 0]


@lru_cache
def _plane_effect(size: int, reach: int) -> Array:
    """Matrix from true to expected measured autocovariance when planes are removed from blocks."""
    projection = np.eye(size * size) - _plane(size) @ _plane(size).T
    y, x = (axis.ravel() for axis in np.mgrid[:size, :size])
    dy, dx = y[:, None] - y[None], x[:, None] - x[None]
    pairs = [((dy == a) & (dx == b)) | ((dy == -a) & (dx == -b)) for a, b in _half_lags(reach)]
    effect = np.empty((len(pairs), len(pairs)))
    for column, pair in enumerate(pairs):
        removed = projection @ pair.astype(np.float64) @ projection
        effect[:, column] = [removed[other].sum() / other.sum() for other in pairs]
    return effect


@dataclass(frozen=True)
class _Correlation:
    """The noise's correlation and what it means for blocks without their plane.

    Attributes:
        acf: coefficients at lags -MAX_LAG..MAX_LAG in both axes.
        kept: share of the noise variance that stays when the plane is removed.
        scatter: relative standard deviation of the variance of one block of pure noise.
    """

    acf: Array
    kept: float
    scatter: float

    @classmethod
    def white(cls, size: int) -> _Correlation:
        acf = np.zeros((2 * MAX_LAG + 1, 2 * MAX_LAG + 1))
        acf[MAX_LAG, MAX_LAG] = 1
        return cls(acf, 1 - 3 / size**2, float(np.sqrt(2 / (size**2 - 3))))

    @classmethod
    def measure(cls, residuals: Array, size: int) -> _Correlation:
        """From blocks of (nearly) pure noise, each scaled to unit variance."""
        reach = min(MAX_LAG + 1, size // 2 - 1)
        lags = _half_lags(reach)
        sample = residuals[:: len(residuals) // 3000 + 1].reshape(-1, size, size)
        power = np.abs(np.fft.rfft2(sample, (2 * size, 2 * size))) ** 2
        sums = np.fft.irfft2(power.mean(0), (2 * size, 2 * size))
        pairs = np.array([(size - abs(dy)) * (size - abs(dx)) for dy, dx in lags])
        measured = np.array([sums[dy, dx] for dy, dx in lags]) / pairs
        true = np.linalg.solve(_plane_effect(size, reach), measured)
        true = true - _structure(true, lags, reach)
        coefficients = np.clip(true / true[0], -1, 1)
        acf = np.zeros((2 * MAX_LAG + 1, 2 * MAX_LAG + 1))
        for (dy, dx), value in zip(lags, coefficients, strict=True):
            if max(abs(dy), abs(dx)) <= MAX_LAG:
                acf[MAX_LAG + dy, MAX_LAG + dx] = acf[MAX_LAG - dy, MAX_LAG - dx] = value
        both_ways = np.where([dy > 0 or dx > 0 for dy, dx in lags], 2, 1)
        similar = float((both_ways * pairs * coefficients**2).sum()) / size**4
        kept = float(np.clip(measured[0] / true[0], 0.2, 1))
        return cls(acf, kept, float(np.sqrt(2 * min(similar, 0.5))))


@dataclass(frozen=True)
class _Levels:
    """Per intensity range: where it is, the noise variance that its blocks allow, and how sure.

    `purity` is the share of the range's blocks that belong to the noise cluster (1 = no structure).
    """

    centres: Array
    variances: Array
    counts: Array
    purity: Array

    def chosen(self, mask: np.ndarray) -> _Levels:
        """Some of the ranges."""
        return _Levels(
            self.centres[mask], self.variances[mask], self.counts[mask], self.purity[mask]
        )


def _levels(blocks: _Blocks, bins: np.ndarray, correlation: _Correlation) -> _Levels:
    rows = []
    for number in range(BINS):
        chosen = bins == number
        if chosen.sum() < FEWEST_BLOCKS:
            continue
        variance, members = _lowest_cluster(blocks.variances[chosen], correlation.scatter)
        purity = min(1.0, members.mean() / CLUSTER_SHARE)
        centre = blocks.means[chosen][members].mean()
        rows.append((centre, variance / correlation.kept, members.sum(), purity))
    if not rows:
        variance, members = _lowest_cluster(blocks.variances, correlation.scatter)
        rows.append((blocks.means.mean(), variance / correlation.kept, members.sum(), 1.0))
    return _Levels(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def _lowest_cluster(variances: Array, scatter: float) -> tuple[float, np.ndarray]:
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
class _Curve:
    """Variance as a function of intensity: scale * (a + b (I/top) + c (I/top)^2), or Rician."""

    family: Family
    scale: float
    terms: tuple[float, float, float]
    top: float

    def variance(self, intensity: Array) -> Array:
        """At each intensity; never below a thousandth of its value at the top."""
        if self.family == "rician":
            return _rician_variance(intensity, np.sqrt(self.scale))
        return self.scale * _polynomial(intensity / self.top, self.terms)


def _polynomial(x: Array, terms: tuple[float, float, float]) -> Array:
    a, b, c = terms
    x = np.clip(x, 0, None)
    return np.maximum(a + b * x + c * x**2, 1e-3)


def _rician_variance(intensity: Array, sigma: float) -> Array:
    """Variance of a Rician magnitude as a function of its mean."""
    true = torch.linspace(0, 6 * sigma, 64, dtype=torch.float64)
    mean = rician_mean(true, sigma).numpy()
    return np.asarray(np.interp(intensity, mean, rician_deviation(true, sigma).numpy() ** 2))


def _fit_curve(levels: _Levels) -> _Curve:
    """The curve that runs through the ranges with signal from below, by the lowest quantile loss.

    Air takes no part: scanners mask, filter or rectify it. Where its noise is Rayleigh and fits
    what the ranges with signal allow, the law is Rician and air, free of structure, says sigma.
    """
    top = float(levels.centres.max())
    dark = levels.centres < DARK * top
    if _is_signed(levels.chosen(dark)):
        return _fit_polynomial(levels, top)
    signal = levels.chosen(~dark) if (~dark).sum() >= 3 else levels
    curve = _fit_polynomial(signal, top)
    sigma = _rayleigh_sigma(levels.chosen(dark))
    if sigma is not None:
        allowed = np.sqrt(curve.variance(np.array([top])))[0]
        if 0.5 * allowed < sigma < 1.15 * allowed:
            return _Curve("rician", sigma**2, (1.0, 0.0, 0.0), top)
    return curve


def _is_signed(dark: _Levels) -> bool:
    """Whether noise in air goes below zero: then nothing has rectified or masked it."""
    signed = (dark.centres < 0.5 * np.sqrt(dark.variances)) & (dark.purity > 0.5)
    return bool(signed.any())


def _rayleigh_sigma(dark: _Levels) -> float | None:
    """Sigma of the complex noise, from air that holds it rectified; None where it does not."""
    deviations = np.sqrt(dark.variances)
    ratio = dark.centres / deviations
    rectified = (ratio > RAYLEIGH_RATIO[0]) & (ratio < RAYLEIGH_RATIO[1]) & (dark.purity > 0.5)
    if not rectified.any():
        return None
    most = int(np.argmax(np.where(rectified, dark.counts, 0)))
    return float(deviations[most]) / RAYLEIGH_DEVIATION


def _fit_polynomial(levels: _Levels, top: float) -> _Curve:
    weights = np.minimum(levels.counts, 60.0)
    weights = weights / weights.sum()
    logs = np.log(levels.variances)
    found = []
    for terms in _term_mixtures():
        ratios = logs - np.log(_polynomial(levels.centres / top, terms))
        offset = _weighted_quantile(ratios, weights, ENVELOPE)
        loss = _quantile_loss(ratios - offset, weights)
        penalty = 0.0 if terms[0] == 1 else COMPLEXITY * (1 if max(terms) == 1 else 2)
        family: Family = ("gaussian", "poisson", "gamma")[int(np.argmax(terms))]
        found.append((loss + penalty, _Curve(family, float(np.exp(offset)), terms, top)))
    return min(found, key=lambda pair: pair[0])[1]


def _term_mixtures() -> list[tuple[float, float, float]]:
    """Shares of constant, linear and square term, in tenths."""
    tenths = product(range(11), range(11))
    return [((10 - b - c) / 10, b / 10, c / 10) for b, c in tenths if b + c <= 10]


def _weighted_quantile(values: Array, weights: Array, quantile: float) -> float:
    order = np.argsort(values)
    position = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(quantile * weights.sum(), position, values[order]))


def _quantile_loss(errors: Array, weights: Array) -> float:
    """What structure adds above the curve is cheap, a range below the curve is dear."""
    return float((weights * np.where(errors > 0, ENVELOPE, ENVELOPE - 1) * errors).sum())


def _level_knots(curve: _Curve, levels: _Levels, edges: Array) -> tuple[Array, Array]:
    """The curve at every range; where a range without structure says less, what it says."""
    knots = np.unique(np.concatenate([[max(edges[0], 0.0)], levels.centres, [edges[-1]]]))
    variances = curve.variance(knots)
    for centre, variance, purity in zip(
        levels.centres, levels.variances, levels.purity, strict=True
    ):
        at = int(np.argmin(np.abs(knots - centre)))
        if purity > 0.6:
            variances[at] = min(variances[at], variance)
    return knots, np.sqrt(variances)

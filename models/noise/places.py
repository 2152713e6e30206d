"""How the noise of a series differs over the image: coil shading, attenuation, unequal averages.

The image is divided into cells. In each, the finest detail of the blocks that vary least is
compared with what the noise of the whole series would have there. A cell counts where its power is
spread over the frequencies as that of the noise, and varies by a nearly normal law: structure has
more power at the lower ones, and long tails. It also counts where it shows less noise than its
surroundings, since structure can only raise it. A map of the level is made of these cells only if
each of them is predicted by its neighbours: noise changes slowly over an image, anatomy does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from stillscan.models.noise.blocks import Array, Blocks, cosines, normality
from stillscan.models.noise.levels import DARK, FEWEST_BLOCKS, lowest_cluster
from stillscan.models.noise.profile import MAX_LAG, SIGNAL_DEPENDENT, NoiseProfile, PlaceMap

Grid = Float[np.ndarray, "row column"]

WHITE = np.pad([[1.0]], MAX_LAG)
ROUNDS = 4
CELLS, SMALLEST_CELL = 10, 24  # along the longest side; pixels
FEWEST_CELLS = 6
FREQUENCIES = (0.22, 0.36, 0.71)  # cycles per pixel: two halves of the finest detail
LEAST_POWER = 0.02  # of white noise: with less, the finest detail shows rounding, not noise
FALLING = 1.5  # lower over higher frequencies, against noise: more is structure
NORMAL = 0.9  # robust deviation / deviation
NEAR = 2.0  # twice the square of the cells over which a level is smoothed
SLOPES = 0.2  # square of the cells over which a slope is trusted
FEWEST_MEMBERS = 8
CHOSEN = 0.2  # upper edge of the chosen blocks, in deviations of their variance
PREDICTED = 0.25  # share of the differences between cells that their neighbours predict
DIFFERENT = 0.12  # standard deviation of the logarithm of the level


def measure_places(blocks: Blocks, noise: NoiseProfile, shape: tuple[int, int]) -> PlaceMap | None:
    """Measure where in the image there is more or less noise; None where nothing proves that.

    Where the noise may depend on the signal instead, that must leave differences between places.

    Args:
        blocks: of 8 x 8 pixels.
        noise: of the series, by intensity.
        shape: of the slices.
    """
    constant = replace(noise, levels=(0.0,), sigmas=(noise.sigma,))
    laws = (constant, noise) if noise.family in SIGNAL_DEPENDENT else (constant,)
    rows, columns = _cells(shape)
    steps = shape[0] / rows, shape[1] / columns
    even = PlaceMap(np.ones((rows, columns)), (steps[0] / 2, steps[1] / 2), steps)
    found = []
    for law in laws:
        # structure can look like a long correlation
        detail = _Detail.of(blocks, law) or _Detail.of(blocks, replace(law, acf=WHITE))
        error = detail.cells(even).map_error if detail is not None else None
        if detail is None or error is None:
            return None
        found.append((error, detail))
    places, (_, detail) = even, min(found, key=lambda pair: pair[0])
    for _ in range(ROUNDS):
        cells = detail.cells(places)
        factors = places.factors * cells.smoothed()
        seen = factors[cells.noise_alone] if cells.noise_alone.any() else factors
        places = replace(places, factors=np.clip(factors, seen.min(), seen.max()))
    typical = np.sqrt(np.mean(places.at(detail.centres) ** 2))
    return replace(places, factors=places.factors / typical)


def _cells(shape: tuple[int, int]) -> tuple[int, int]:
    side = max(SMALLEST_CELL, max(shape) / CELLS)
    return max(1, round(shape[0] / side)), max(1, round(shape[1] / side))


def _power(acf: Array, size: int) -> Array:
    """Power of each cosine [size * size] of noise of unit variance with these coefficients."""
    y, x = (axis.ravel() for axis in np.mgrid[:size, :size])
    lags = y[:, None] - y, x[:, None] - x
    near = (np.abs(lags[0]) <= MAX_LAG) & (np.abs(lags[1]) <= MAX_LAG)
    at = [np.clip(lag, -MAX_LAG, MAX_LAG) + MAX_LAG for lag in lags]
    covariance = np.where(near, acf[at[0], at[1]], 0)
    basis = cosines(size)
    return np.maximum(np.einsum("pk,pq,qk->k", basis, covariance, basis), 1e-9)


@dataclass(frozen=True)
class _Detail:
    """The finest detail of the blocks with signal, over that of the noise of the series.

    Attributes:
        chosen: power of the cosines by which blocks are chosen.
        measured: amplitudes of the others [block, cosine].
        high: which of these belong to the upper half of the frequencies.
        scatter: relative standard deviation of `chosen` for noise.
        centres: of the blocks.
    """

    chosen: Array
    measured: Array
    high: np.ndarray
    scatter: float
    centres: Array

    @classmethod
    def of(cls, blocks: Blocks, noise: NoiseProfile) -> _Detail | None:
        """None where the noise has hardly any fine detail."""
        y, x = (axis.ravel() for axis in np.mgrid[: blocks.size, : blocks.size])
        frequency = np.hypot(y, x) / (2 * blocks.size)
        lowest, between, highest = FREQUENCIES
        inside = (frequency >= lowest) & (frequency <= highest)
        choosing, measuring = inside & ((y + x) % 2 == 0), inside & ((y + x) % 2 == 1)
        high = measuring & (frequency >= between)
        white = _power(noise.acf, blocks.size)
        signal = blocks.means > DARK * np.quantile(blocks.means, 0.98)
        if not high.any() or white[high].min() < LEAST_POWER:
            return None
        level = np.interp(blocks.means[signal], noise.levels, noise.sigmas)
        scaled = (blocks.residuals[signal] @ cosines(blocks.size)) / np.sqrt(white)
        scaled /= level[:, None]
        return cls(
            (scaled[:, choosing] ** 2).mean(1),
            scaled[:, measuring],
            high[measuring],
            float(np.sqrt(2 / choosing.sum())),
            blocks.centres[signal],
        )

    def cells(self, places: PlaceMap) -> _Cells:
        """What each cell shows beyond this map."""
        rows, columns = places.factors.shape
        factor = places.at(self.centres)
        cell = (self.centres / places.steps).astype(int) @ (columns, 1)
        found = np.full((3, rows * columns), np.nan)
        for number in np.unique(cell):
            here = cell == number
            if here.sum() < FEWEST_BLOCKS:
                continue
            chosen = self.chosen[here] / factor[here] ** 2
            variance, _ = lowest_cluster(chosen, self.scatter)
            members = chosen < variance * (1 + CHOSEN * self.scatter)
            if members.sum() < FEWEST_MEMBERS:
                continue
            values = (self.measured[here] / factor[here, None])[members]
            power = (values**2).mean(0)
            falling = power[~self.high].mean() / power[self.high].mean()
            alone = falling < FALLING and normality(values) > NORMAL
            used = power if alone else power[self.high]
            found[:, number] = 0.5 * np.log(used.mean()), members.sum(), alone
        level, weight, trusted = found.reshape(3, rows, columns)
        return _Cells(level, np.nan_to_num(weight), trusted == 1)


@dataclass(frozen=True)
class _Cells:
    """What the cells of an image show.

    Attributes:
        level: logarithm of their noise over that of the series; nan where not measured.
        weight: number of blocks that it was measured in.
        noise_alone: whether what was measured looks like noise.
    """

    level: Grid
    weight: Grid
    noise_alone: np.ndarray

    @property
    def map_error(self) -> float | None:
        """How far the neighbours of each cell miss it; None where the cells prove no map."""
        if self.noise_alone.sum() < FEWEST_CELLS:
            return None
        level, weight = self.level[self.noise_alone], self.weight[self.noise_alone]
        differs = np.average((level - np.average(level, weights=weight)) ** 2, weights=weight)
        predicted = self._surroundings(self.noise_alone, without=True)[self.noise_alone]
        missed = float(np.average((level - predicted) ** 2, weights=weight))
        proven = differs >= DIFFERENT**2 and missed <= (1 - PREDICTED) * differs
        return missed if proven else None

    def smoothed(self) -> Grid:
        """The noise of each cell over that of the series, from those around it."""
        trusted = self.noise_alone
        for _ in range(3):
            trusted = trusted | (self.level < self._surroundings(trusted))
        return np.asarray(np.exp(self._surroundings(trusted)))

    def _surroundings(self, of: np.ndarray, *, without: bool = False) -> Grid:
        """Mean of these cells around each cell; `without` itself."""
        at = np.argwhere(np.ones_like(of)).astype(float)
        apart = at[None] - at[:, None]  # from each cell to each other
        squared = (apart**2).sum(2)
        kernel = np.exp(-squared / NEAR) + 1e-6 * np.exp(-squared / 18)
        kernel = kernel * np.where(of, self.weight, 0).ravel()
        if without:
            np.fill_diagonal(kernel, 0)
        plane = np.concatenate([np.ones((*squared.shape, 1)), apart], 2)
        weighted = (kernel[:, :, None] * plane).swapaxes(1, 2)
        level = np.nan_to_num(self.level).ravel()
        steady = kernel.sum(1)[:, None, None] * np.diag([0, SLOPES, SLOPES])
        fitted = np.linalg.solve(weighted @ plane + steady, (weighted @ level)[..., None])
        trusted = self.level[of]
        return np.clip(fitted[:, 0, 0], trusted.min(), trusted.max()).reshape(of.shape)

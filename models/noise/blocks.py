"""Blocks of an image without their plane: where noise is looked for, and how it correlates.

Where a slice was acquired twice, noise is looked for in the difference of the two: the object is
gone from it, whatever it looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float

from stillscan.models.noise.noise_free import constant_places
from stillscan.models.noise.profile import MAX_LAG, PlaceMap

Array = Float[np.ndarray, "..."]

MAX_BLOCKS = 16_000
ENOUGH_APART = 0.25  # of the windows that hold noise: fewer would leave parts of the image out
MEDIAN_OF_NORMAL = 0.6745  # of |x| for a standard normal x
CONSTANT_SHARE = 0.25  # a block with this share of one extreme value holds no noise


class NoNoiseError(ValueError):
    """The image holds no noise that could be estimated: it is constant."""


@dataclass(frozen=True)
class Blocks:
    """Blocks without their plane [block, pixel], their means, variances and centres [block, 2]."""

    size: int
    residuals: Array
    means: Array
    variances: Array
    centres: Array

    def evened(self, places: PlaceMap) -> Blocks:
        """The same with the noise that they would have where the map is 1."""
        factor = places.at(self.centres)
        return replace(
            self,
            residuals=self.residuals / factor[:, None],
            variances=self.variances / factor**2,
        )


@dataclass(frozen=True)
class Plane:
    """One slice in which noise is looked for.

    Attributes:
        image: one acquisition of it.
        valid: False where a pixel is padding; None where none is.
        again: another acquisition of it, None where there is none.
    """

    image: Array
    valid: np.ndarray | None = None
    again: Array | None = None

    def level_and_noise(self) -> tuple[Array, Array]:
        """The image of local intensity, and the image in which noise is measured.

        Half of the squared difference of two acquisitions is the noise of one.
        """
        if self.again is None:
            return self.image, self.image
        return (self.image + self.again) / 2, (self.image - self.again) / np.sqrt(2)

    def usable(self, size: int, step: int) -> np.ndarray:
        """Which of its windows can hold noise.

        Beside a constant place a window varies less than its noise: where others are left, it is
        not used.
        """
        usable = holds_noise(self.image, self.valid, size, step)
        constant = constant_places(torch.from_numpy(self.image)).numpy()
        if constant.any():
            apart = usable & ~windows(constant, size, step).any(1)
            usable = apart if apart.sum() >= ENOUGH_APART * usable.sum() else usable
        if self.again is None:
            return usable
        differs = np.ptp(windows(self.image - self.again, size, step), axis=1) > 0
        return usable & differs & holds_noise(self.again, self.valid, size, step)


def cut_blocks(planes: Sequence[Plane], size: int) -> Blocks:
    """All blocks that can hold noise, at most MAX_BLOCKS, evenly spread.

    Raises:
        NoNoiseError: if there are none.
    """
    per_plane = max(1, MAX_BLOCKS // len(planes))
    levels, cut, centres = [], [], []
    for plane in planes:
        step = spread_out(plane.image.shape, size, per_plane)
        usable = plane.usable(size, step)
        level, noise = plane.level_and_noise()
        levels.append(windows(level, size, step)[usable].mean(1))
        cut.append(windows(noise, size, step)[usable])
        centres.append(_centres(plane.image.shape, size, step)[usable])
    blocks = np.concatenate(cut)
    if len(blocks) == 0:
        raise NoNoiseError("every part of the image is constant")
    residuals = without_plane(blocks, size)
    means, variances = np.concatenate(levels), (residuals**2).mean(1)
    return Blocks(size, residuals, means, variances, np.concatenate(centres))


def _centres(shape: tuple[int, ...], size: int, step: int) -> Array:
    """Row and column of the centre of each of `windows`, in pixels."""
    rows, columns = ((side - size) // step + 1 for side in shape)
    return np.argwhere(np.ones((rows, columns))) * step + size / 2


def without_plane(pixels: Float[np.ndarray, "block pixel"], size: int) -> Array:
    """Each block minus the plane that fits it best."""
    plane = _plane(size)
    return pixels - (pixels @ plane) @ plane.T


def excess_kurtosis(values: Array) -> float:
    """Of values around zero: 0 for a normal law, above for long tails; 0 where all are zero."""
    power = float((values**2).mean())
    return float((values**4).mean()) / power**2 - 3 if power > 0 else 0.0


def normality(values: Array) -> float:
    """Robust deviation over deviation: 1 for a normal law, less for long tails."""
    robust = float(np.median(np.abs(values))) / MEDIAN_OF_NORMAL
    return robust / float((values**2).mean()) ** 0.5


def windows(image: np.ndarray, size: int, step: int) -> np.ndarray:
    """Squares of `size` pixels every `step` pixels [block, pixel]."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size))[::step, ::step]
    return view.reshape(-1, size * size)


def holds_noise(image: Array, mask: np.ndarray | None, size: int, step: int) -> np.ndarray:
    """Which of the windows can hold noise: not padding, not constant, not masked air."""
    blocks = windows(image, size, step)
    seen = image[mask] if mask is not None and mask.any() else image
    constant = np.maximum((blocks == seen.min()).mean(1), (blocks == seen.max()).mean(1))
    usable = (constant <= CONSTANT_SHARE) & (np.ptp(blocks, axis=1) > 0)
    return usable if mask is None else usable & windows(mask, size, step).all(1)


def spread_out(shape: tuple[int, ...], size: int, most: int) -> int:
    """The step between windows that gives at most `most` of them; half a window or more."""
    step = max(1, size // 2)
    while ((shape[0] - size) // step + 1) * ((shape[1] - size) // step + 1) > most:
        step += max(1, size // 2)
    return step


@lru_cache
def _plane(size: int) -> Array:
    """Orthonormal basis of the planes over a block."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    columns = np.stack([np.ones(size * size), x.ravel(), y.ravel()], 1)
    return np.asarray(np.linalg.qr(columns)[0])


@lru_cache
def cosines(size: int) -> Array:
    """Orthonormal discrete cosines over a block [pixel, coefficient]."""
    k, n = np.mgrid[:size, :size]
    line = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(np.where(k == 0, 1, 2) / size)
    return np.asarray(np.kron(line, line).T)


def _half_lags(reach: int) -> list[tuple[int, int]]:
    """Lags (rows, columns) up to `reach`, one of each pair of opposites, (0, 0) first."""
    lags = [(dy, dx) for dy in range(reach + 1) for dx in range(-reach, reach + 1)]
    return [(dy, dx) for dy, dx in lags if dy > 0 or dx >= 0]


@lru_cache
def _plane_effect(size: int, reach: int) -> Array:
    """Matrix from true to expected measured autocovariance when planes are removed from blocks.

    Without its plane, the covariance A of a block's pixels becomes P A P with P = 1 - Q Q', Q the
    planes. Its sum over the pairs of a lag, whose symmetric mask is M, is tr(M P A P); the masks
    are shifts, so M Q is Q shifted both ways.
    """
    plane = _plane(size)
    lags = _half_lags(reach)
    shifted = np.stack([_both_ways(plane, size, dy, dx) for dy, dx in lags])  # M Q
    within = plane.T @ shifted  # Q' M Q
    counts = np.array([(size - abs(dy)) * (size - abs(dx)) for dy, dx in lags])
    counts = counts * np.where([dy != 0 or dx != 0 for dy, dx in lags], 2, 1)
    flat, inner = shifted.reshape(len(lags), -1), within.reshape(len(lags), -1)
    removed = inner @ inner.T - 2 * flat @ flat.T
    return np.asarray(np.eye(len(lags)) + removed / counts[:, None])


def _both_ways(plane: Array, size: int, dy: int, dx: int) -> Array:
    """Each pixel's neighbour at this lag plus that at the opposite lag, zero beyond the block."""
    padded = np.pad(plane.reshape(size, size, -1), ((size, size), (size, size), (0, 0)))

    def moved(y: int, x: int) -> Array:
        return padded[size + y : 2 * size + y, size + x : 2 * size + x]

    both = moved(dy, dx) if dy == dx == 0 else moved(dy, dx) + moved(-dy, -dx)
    return np.asarray(both.reshape(size * size, -1))


def _structure(covariance: Array, lags: list[tuple[int, int]], reach: int) -> float:
    """What structure adds at every lag: noise has ended at the longest lags, structure has not."""
    longest = [v for (dy, dx), v in zip(lags, covariance, strict=True) if max(dy, abs(dx)) == reach]
    return float(np.clip(np.median(longest), 0, 0.5 * covariance[0]))


@dataclass(frozen=True)
class Correlation:
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
    def white(cls, size: int) -> Correlation:
        """Of white noise in blocks of this size."""
        acf = np.zeros((2 * MAX_LAG + 1, 2 * MAX_LAG + 1))
        acf[MAX_LAG, MAX_LAG] = 1
        return cls(acf, 1 - 3 / size**2, float(np.sqrt(2 / (size**2 - 3))))

    @classmethod
    def measure(cls, residuals: Array, size: int) -> Correlation:
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

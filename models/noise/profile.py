"""The noise of one series: level, signal dependence, correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Family = Literal["gaussian", "poisson", "gamma", "rician", "correlated"]
Certainty = Literal["confirmed", "one witness", "not measured"]
Image = Float[Tensor, "batch 1 height width"]

SIGNAL_DEPENDENT = ("poisson", "gamma")
CORRELATION_LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 3), (3, 0))  # (rows, columns)
MAX_LAG = 4
SMOOTHING = 2.0  # pixels: what the local mean is taken over
REACH = 5  # pixels
LOWEST_SHARE = 0.1  # of sigma: the local level is never taken to be below this share of it


@dataclass(frozen=True)
class Witness:
    """What one way of measuring found.

    Attributes:
        name: of the way.
        sigma: the standard deviation that it found, root mean square over the image content.
        proven: whether what it measured behaves as noise does.
    """

    name: str
    sigma: float
    proven: bool


@dataclass(frozen=True)
class PlaceMap:
    """How the noise differs over the image: a factor of its level, linear between the points.

    Attributes:
        factors: at the points of a grid; constant beyond it; root mean square 1 over the content.
        corner: row and column of the first point, in pixels.
        steps: pixels between points, down and across.
    """

    factors: Float[np.ndarray, "row column"]
    corner: tuple[float, float]
    steps: tuple[float, float]

    def at(self, places: Float[np.ndarray, "place 2"]) -> Float[np.ndarray, " place"]:
        """The factor at each row and column."""
        down, across = self._weights(0, places[:, 0]), self._weights(1, places[:, 1])
        return np.asarray(np.einsum("pr,rc,pc->p", down, self.factors, across))

    def over(
        self, rows: int, columns: int, corner: tuple[int, int] = (0, 0)
    ) -> Float[Tensor, "row column"]:
        """The factor at each pixel of an image, or of the part of it that begins at `corner`."""
        down = self._weights(0, corner[0] + np.arange(rows) + 0.5)
        across = self._weights(1, corner[1] + np.arange(columns) + 0.5)
        return torch.from_numpy((down @ self.factors @ across.T).astype(np.float32))

    def moved(self, rows: int, columns: int) -> PlaceMap:
        """The map of an image of which this one is the part that begins at this pixel."""
        return replace(self, corner=(self.corner[0] + rows, self.corner[1] + columns))

    def _weights(
        self, axis: int, position: Float[np.ndarray, " place"]
    ) -> Float[np.ndarray, "place point"]:
        """Of each point of the grid along one axis: linear interpolation."""
        last = self.factors.shape[axis] - 1
        at = np.clip((position - self.corner[axis]) / self.steps[axis], 0, last)
        return np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(last + 1)), 0, None))


@dataclass(frozen=True)
class NoiseProfile:
    """Level, signal dependence and correlation of a series' noise, in the series' own unit.

    Attributes:
        sigma: typical standard deviation (root mean square over the image content).
        levels: local mean intensities, ascending, at which `sigmas` hold.
        sigmas: deviation of the noise at each of `levels`; linear between, constant beyond.
        acf: correlation coefficient at lags (-MAX_LAG..MAX_LAG)^2, 1 at the centre.
        family: which noise model describes it best.
        places: how the level differs over the image; None where it is the same everywhere.
        certainty: whether two independent ways of measuring agree on the level.
        witnesses: what each way of measuring found.
    """

    sigma: float
    levels: tuple[float, ...]
    sigmas: tuple[float, ...]
    acf: Float[np.ndarray, "lag lag"]
    family: Family
    certainty: Certainty = "confirmed"
    witnesses: tuple[Witness, ...] = ()
    places: PlaceMap | None = None

    @property
    def radius(self) -> int:
        """The smallest r with |acf| < 0.1 beyond it in both axes, 0..4."""
        strong = np.abs(self.acf) >= 0.1
        reach = np.abs(np.arange(-MAX_LAG, MAX_LAG + 1))
        return int(max(reach[strong.any(1)].max(), reach[strong.any(0)].max()))

    def correlation(self) -> Float[Tensor, " lag"]:
        """The coefficients at CORRELATION_LAGS."""
        return torch.tensor(
            [float(self.acf[MAX_LAG + dy, MAX_LAG + dx]) for dy, dx in CORRELATION_LAGS]
        )

    def sigma_map(self, image: Image, corner: tuple[int, int] = (0, 0)) -> Image:
        """Deviation of the noise at each pixel: the level curve at the smoothed image, by place.

        Args:
            image: slices of the series, or a part of them.
            corner: row and column where the part begins.
        """
        sigma = sigma_at(smooth(image), self.levels, self.sigmas)
        if self.places is not None:
            rows, columns = image.shape[-2:]
            sigma *= self.places.over(rows, columns, corner).to(image.device)
        return sigma.clamp(min=LOWEST_SHARE * self.sigma)

    def weakened(self, share: float) -> NoiseProfile:
        """The same noise at `share` of its level."""
        return replace(
            self, sigma=share * self.sigma, sigmas=tuple(share * sigma for sigma in self.sigmas)
        )

    def rescaled(self, gain: float, offset: float) -> NoiseProfile:
        """The profile of `gain * image + offset`, gain above 0."""
        return replace(
            self,
            sigma=self.sigma * gain,
            levels=tuple(level * gain + offset for level in self.levels),
            sigmas=tuple(sigma * gain for sigma in self.sigmas),
            witnesses=tuple(replace(each, sigma=each.sigma * gain) for each in self.witnesses),
        )


def sigma_at(level: Tensor, levels: tuple[float, ...], sigmas: tuple[float, ...]) -> Tensor:
    """Piecewise linear interpolation of the level curve, constant beyond its ends."""
    if len(levels) == 1:
        return torch.full_like(level, sigmas[0])
    knots = np.unique(np.asarray(levels, np.float32)).tolist()
    values = np.interp(knots, levels, sigmas).tolist()
    sigma = torch.full_like(level, values[0])
    for (low, below), (high, above) in pairwise(zip(knots, values, strict=True)):
        if above != below:
            climbed = level.clamp(low, high).sub_(low)  # of this stretch of the curve
            sigma.add_(climbed, alpha=(above - below) / (high - low))
    return sigma


def smooth(image: Image) -> Image:
    """Gaussian of 2 px: the local mean at which the level curve is read.

    Sums of shifted images: a fifth of the time of a convolution with one channel.
    """
    taps = [math.exp(-0.5 * (shift / SMOOTHING) ** 2) for shift in range(REACH + 1)]
    whole = taps[0] + 2 * sum(taps[1:])
    image = F.pad(image, (REACH,) * 4, mode="replicate")
    for axis in (-2, -1):
        length = image.shape[axis] - 2 * REACH
        middle = image.narrow(axis, REACH, length) * (taps[0] / whole)
        for shift, tap in enumerate(taps[1:], start=1):
            for start in (REACH - shift, REACH + shift):
                middle.add_(image.narrow(axis, start, length), alpha=tap / whole)
        image = middle
    return image

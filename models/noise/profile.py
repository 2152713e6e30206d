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
class NoiseProfile:
    """Level, signal dependence and correlation of a series' noise, in the series' own unit.

    Attributes:
        sigma: typical standard deviation (root mean square over the image content).
        levels: local mean intensities, ascending, at which `sigmas` hold.
        sigmas: deviation of the noise at each of `levels`; linear between, constant beyond.
        acf: correlation coefficient at lags (-MAX_LAG..MAX_LAG)^2, 1 at the centre.
        family: which noise model describes it best.
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

    def sigma_map(self, image: Image) -> Image:
        """Deviation of the noise at each pixel: the level curve at the smoothed image."""
        sigma = sigma_at(smooth(image), self.levels, self.sigmas)
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

"""The multi-scale clamp: at every scale no more is removed than noise explains.

The standardised residual r = (y - x_hat) / sigma is smoothed by Gaussians g_s of 1, 2, 4 and 8
pixels and divided by the noise that this smoothing leaves: z_s = (g_s * r) / sd(g_s * noise).
Where |z_s| exceeds the limit, structure was erased or invented beyond what noise explains. There
the estimate is moved back towards the input, x_hat' = y + w (x_hat - y), by a smooth w in [0, 1]
as large as the limit allows at all scales together. The bound holds by construction: |z_s| <= limit
everywhere for the result, for any denoiser, and needs no reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SCALES = (1.0, 2.0, 4.0, 8.0)  # pixels
LOCAL_ROUNDS = 12  # rounds of local reduction before the whole correction is reduced
LOWEST_DENSITY = (
    0.5  # share of white noise's density: a lower one is a pattern in the image, not noise
)

Planes = Float[Tensor, "slice row column"]


@dataclass(frozen=True)
class Clamped:
    """The weight w of the correction, and the largest |z_s| before and after it was applied."""

    weight: Planes
    highest_before: float
    highest_after: float


def clamp(residual: Planes, acf: Float[np.ndarray, "lag lag"], limit: float) -> Clamped:
    """Find the largest smooth weight that keeps every |z_s| of `weight * residual` below `limit`.

    Args:
        residual: the removed part, in units of sigma.
        acf: correlation coefficients of the noise, lag (0, 0) in the middle.
        limit: limit for |z_s| at every scale.
    """
    deviations = [smoothed_deviation(acf, scale) for scale in SCALES]
    weight = torch.ones_like(residual)
    smoothed = list(_smoothed(residual))
    before = after = _highest(smoothed, deviations)
    if before <= limit:
        return Clamped(weight, before, before)
    for _ in range(LOCAL_ROUNDS):
        weight = _drawn_back(weight, smoothed, deviations, limit)
        smoothed = list(_smoothed(weight * residual))
        after = _highest(smoothed, deviations)
        if after <= limit:
            break
    if after > limit:  # linear in w: this reduction is always sufficient
        weight = weight * (0.999 * limit / after)
        after = _highest(_smoothed(weight * residual), deviations)
    return Clamped(weight, before, after)


def smoothed_deviation(acf: Float[np.ndarray, "lag lag"], scale: float) -> float:
    """Standard deviation of unit noise with this correlation after a Gaussian of `scale` pixels.

    Var = sum over lags of acf(lag) times the Gaussian's own autocorrelation (a Gaussian of
    scale * sqrt(2)).
    """
    reach = acf.shape[0] // 2
    lags = np.arange(-reach, reach + 1)
    kernel = np.exp(-(lags**2) / (4 * scale**2))
    kernel = np.outer(kernel, kernel) / (4 * math.pi * scale**2)
    lowest = LOWEST_DENSITY * float(kernel[reach, reach])
    return math.sqrt(max(float((acf * kernel).sum()), lowest))


def scores(residual: Planes, acf: Float[np.ndarray, "lag lag"]) -> list[Planes]:
    """Return z_s at every scale."""
    smoothed = _smoothed(residual)
    return [z / smoothed_deviation(acf, s) for z, s in zip(smoothed, SCALES, strict=True)]


def _smoothed(residual: Planes) -> Iterator[Planes]:
    """Yield the residual after each Gaussian, one at a time; zero beyond the edge."""
    height, width = residual.shape[-2:]
    margin = int(3 * max(SCALES))
    size = (fast_length(height + margin), fast_length(width + margin))
    spectrum = torch.fft.rfft2(residual, s=size)
    for response in _responses(size):
        yield torch.fft.irfft2(spectrum * response, s=size)[..., :height, :width]


@lru_cache(maxsize=2)  # 70 MB for a radiograph
def _responses(size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the response of each Gaussian to every frequency of a plane of this size."""
    f_y = torch.fft.fftfreq(size[0])[:, None]
    f_x = torch.fft.rfftfreq(size[1])[None, :]
    squared = f_y**2 + f_x**2
    return tuple(torch.exp(-2 * (math.pi * scale) ** 2 * squared) for scale in SCALES)


@cache
def fast_length(least: int) -> int:
    """Return the next even length without prime factors above 5; others are slower."""
    length = least + least % 2
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


def _highest(smoothed: Iterable[Planes], deviations: list[float]) -> float:
    return max(
        float(torch.stack(torch.aminmax(z)).abs().max()) / deviation
        for z, deviation in zip(smoothed, deviations, strict=True)
    )


def _drawn_back(
    weight: Planes, smoothed: list[Planes], deviations: list[float], limit: float
) -> Planes:
    """Return the weight lowered around every place whose |z_s| exceeds the limit."""
    factor = torch.ones_like(weight)
    for z, deviation, scale in zip(smoothed, deviations, SCALES, strict=True):
        allowed = (0.98 * limit * deviation / z.abs().clamp(min=1e-12)).clamp(max=1)
        if float(allowed.min()) < 1:
            factor = torch.minimum(factor, _widened(allowed, max(1, round(scale))))
    return weight * factor


def _widened(allowed: Planes, reach: int) -> Planes:
    """Return the smallest value within `reach` pixels, its border made smooth."""
    size = 2 * reach + 1
    lowest = -F.max_pool2d(-allowed[:, None], (size, 1), 1, (reach, 0))
    lowest = -F.max_pool2d(-lowest, (1, size), 1, (0, reach))
    box = 2 * (reach // 2) + 1
    return F.avg_pool2d(lowest, box, 1, box // 2, count_include_pad=False)[:, 0]

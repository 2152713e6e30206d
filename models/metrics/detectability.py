"""Low-contrast detectability: a channelised Hotelling observer on images with and without a signal.

The observer looks at a region through Laguerre-Gauss channels (Gallas and Barrett 2003), learns the
covariance K of the channels from regions without a signal and the signal s from the difference of
the means, and reads d'^2 = s^T K^-1 s. From few regions that number is too large; both of its
biases are known and removed: E[K^-1] = K^-1 (n - 1) / (n - p - 2) for n regions and p channels
(Wishart), and the noise of s adds the trace of K^-1 times the covariance of s.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

Regions = Float[Tensor, "region size size"]
Readings = Float[Tensor, "_ channel"]

CHANNELS = 5


def laguerre_gauss(
    size: int, width: float, count: int = CHANNELS
) -> Float[Tensor, "count size size"]:
    """Channels sqrt(2)/a exp(-pi r^2/a^2) L_k(2 pi r^2/a^2), k = 0 .. count - 1, unit energy.

    Args:
        size: height and width of a region in pixels.
        width: a, in pixels.
        count: number of channels.
    """
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    g = 2 * math.pi * (axis[:, None] ** 2 + axis[None, :] ** 2) / width**2
    polynomials = [torch.ones_like(g), 1 - g]
    for k in range(1, count - 1):
        polynomials.append(((2 * k + 1 - g) * polynomials[k] - k * polynomials[k - 1]) / (k + 1))
    channels = torch.stack(polynomials[:count]) * torch.exp(-g / 2)
    return channels / channels.square().sum((1, 2), keepdim=True).sqrt()


def readings(regions: Regions, channels: Float[Tensor, "channel size size"]) -> Readings:
    """Return the response of each channel to each region."""
    return torch.einsum("rhw,chw->rc", regions.double(), channels)


def hotelling_detectability(present: Readings, absent: Readings, background: Readings) -> float:
    """Compute the d' of the channelised Hotelling observer, 0 if it is no more than chance.

    Args:
        present: responses at the place of the signal, with the signal.
        absent: responses at the same place without the signal and with other noise.
        background: responses without a signal from which K is estimated, more than channels + 2.
    """
    channels = background.shape[1]
    signal = present.mean(0) - absent.mean(0)
    inverse = _inverse(background.T.cov(), len(background))
    chance = channels * (1 / len(present) + 1 / len(absent))
    return math.sqrt(max(0.0, float(signal @ inverse @ signal) - chance))


def paired_detectability(
    present: Float[Tensor, "region channel"],
    absent: Float[Tensor, "region channel"],
    internal: Float[Tensor, " channel"] | None = None,
) -> float:
    """Compute d' where region i has the same noise with and without the signal.

    The noise of the signal's estimate is then that of the differences alone: none for a linear
    method.

    Args:
        present: responses with the signal.
        absent: responses in the same regions without it.
        internal: variance of the observer's own noise in each channel; None for none.
    """
    count = len(present)
    difference = present - absent
    signal = difference.mean(0)
    covariance = (present.T.cov() + absent.T.cov()) / 2
    if internal is not None:
        covariance = covariance + torch.diag(internal)
    inverse = _inverse(covariance, count)
    chance = float((inverse @ difference.T.cov()).trace()) / count
    return math.sqrt(max(0.0, float(signal @ inverse @ signal) - chance))


def _inverse(
    covariance: Float[Tensor, "channel channel"], count: int
) -> Float[Tensor, "channel channel"]:
    """Return the unbiased inverse of a covariance that was estimated from `count` regions."""
    return torch.linalg.inv(covariance) * ((count - len(covariance) - 2) / (count - 1))

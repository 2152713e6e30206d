"""How near an estimate is to the truth."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Plane = Float[Tensor, "height width"]
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(estimate: Plane, truth: Plane, data_range: float = 1.0) -> float:
    """Peak signal to noise ratio in dB; infinite where nothing differs."""
    error = float((estimate.double() - truth.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(estimate: Plane, truth: Plane, data_range: float = 1.0) -> float:
    """Mean structural similarity, Gaussian window of 11 px (Wang et al. 2004), valid part only."""
    taps = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    taps = torch.exp(-(taps**2) / (2 * SSIM_SIGMA**2))
    taps = taps / taps.sum()

    def window(x: Tensor) -> Tensor:
        rows = F.conv2d(x, taps.view(1, 1, -1, 1))
        return F.conv2d(rows, taps.view(1, 1, 1, -1))

    x, y = (plane.double()[None, None] for plane in (estimate, truth))
    mean_x, mean_y = window(x), window(y)
    var_x = window(x * x) - mean_x**2
    var_y = window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())

"""Similarity of an estimate to the truth: PSNR, SSIM and GMSD."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Plane = Float[Tensor, "height width"]
Mask = Bool[Tensor, "height width"]

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
GMSD_STABILITY = 170 / 255**2  # c of the paper (intensities 0..255) for intensities 0..1


def psnr(
    estimate: Plane, truth: Plane, data_range: float = 1.0, where: Mask | None = None
) -> float:
    """Peak signal to noise ratio in dB; infinite for equal images.

    Args:
        estimate: an image in any unit.
        truth: the clean image in the same unit.
        truth: the clean image in the same unit.
        data_range: the peak, in the same unit.
        where: the pixels that count, such as the foreground; None for all.
    """
    squares = (estimate.double() - truth.double()).square()
    if where is not None:
        squares = squares[where]
    error = float(squares.mean())
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def ssim(estimate: Plane, truth: Plane, data_range: float = 1.0) -> float:
    """Mean structural similarity (Wang et al. 2004): Gaussian window of 11 px, valid part only."""
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


def gmsd(estimate: Plane, truth: Plane, data_range: float = 1.0) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014): 0 is equal, larger is worse.

    Both images are averaged over 2x2 pixels first, gradients are Prewitt's, valid part only.
    """
    x, y = (_gradient_magnitude(plane.double() / data_range) for plane in (estimate, truth))
    similarity = (2 * x * y + GMSD_STABILITY) / (x**2 + y**2 + GMSD_STABILITY)
    return float(similarity.std(correction=0))


def _gradient_magnitude(plane: Tensor) -> Tensor:
    small = F.avg_pool2d(plane[None, None], 2)
    step = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64) / 3
    prewitt = step.expand(3, 3)
    kernels = torch.stack([prewitt, prewitt.T])[:, None]
    across, down = F.conv2d(small, kernels)[0]
    return torch.hypot(across, down)

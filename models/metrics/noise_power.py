"""Noise in the error of an estimate: how much of it is the input's, and at which frequencies.

Both use the error x_hat - x. A texture that looks natural to a reader has the frequencies of the
input's noise; a denoiser that leaves coarse blobs moves the error to lower frequencies.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Plane = Float[Tensor, "height width"]

PATCH = 8  # pixels


def correlation(first: Plane, second: Plane) -> float:
    """Pearson's coefficient over all pixels; 0 where one of them is constant."""
    a, b = (plane.double() - plane.double().mean() for plane in (first, second))
    scale = (a.square().mean() * b.square().mean()).sqrt()
    return float((a * b).mean() / scale) if scale > 0 else 0.0


def error_noise_correlation(estimate: Plane, truth: Plane, noise: Plane) -> float:
    """corr(x_hat - x, n): 1 for the unchanged image, 0 if none of the image's own noise is left.

    An MMSE estimate has sqrt(MSE) / sigma for white Gaussian noise: E[(x_hat - x) n] = MSE there
    (Stein). Beside the PSNR the coefficient separates noise that leaked through from noise that was
    never removed.
    """
    return correlation(estimate - truth, noise)


def noise_power_spectrum(noise: Plane) -> tuple[Float[Tensor, " bin"], Float[Tensor, " bin"]]:
    """Radial mean of the power at each frequency: (cycles per pixel, power).

    The noise is tapered (Hann) and its mean subtracted. Frequencies end at the Nyquist frequency of
    the axes; a ring is as wide as one cycle over the shorter side.
    """
    height, width = noise.shape
    taper = torch.outer(
        *(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (height, width))
    )
    plane = noise.double() - noise.double().mean()
    power = torch.fft.fft2(plane * taper).abs().square() / taper.square().sum()
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :])
    bins = min(height, width) // 2
    ring = (radius * 2 * bins).round().long().clamp(max=bins + 1).ravel()
    total = torch.zeros(bins + 2, dtype=torch.float64).index_add_(0, ring, power.ravel())
    count = torch.zeros(bins + 2, dtype=torch.float64).index_add_(
        0, ring, torch.ones_like(power.ravel())
    )
    frequency = torch.arange(bins + 1, dtype=torch.float64) / (2 * bins)
    return frequency[1:], (total[1 : bins + 1] / count[1 : bins + 1])


def mean_frequency(noise: Plane) -> float:
    """Mean frequency of the radial noise power spectrum, cycles per pixel (white noise: 0.25)."""
    frequency, power = noise_power_spectrum(noise)
    total = float(power.sum())
    return float((frequency * power).sum()) / total if total > 0 else 0.0


def mean_frequency_shift(estimate: Plane, truth: Plane, noise: Plane) -> float:
    """Mean frequency of the error minus that of the input's noise, in cycles per pixel."""
    return mean_frequency(estimate - truth) - mean_frequency(noise)


def patch_distance(estimate: Plane, truth: Plane) -> float:
    """Frechet distance between the 8x8 patches of two images, each modelled as normal.

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982), divided by the
    pixels of a patch: in units of intensity. It compares how images look, not where: an estimate
    that is too smooth lies as far off as one that is too noisy (Blau and Michaeli 2018).
    """
    mean_1, covariance_1 = _patch_law(estimate)
    mean_2, covariance_2 = _patch_law(truth)
    root = _root(covariance_1)
    cross = torch.linalg.eigvalsh(root @ covariance_2 @ root).clamp(min=0).sqrt().sum()
    squared = (mean_1 - mean_2).square().sum() + covariance_1.trace() + covariance_2.trace()
    return float(((squared - 2 * cross).clamp(min=0) / PATCH**2).sqrt())


def _patch_law(plane: Plane) -> tuple[Float[Tensor, " pixel"], Float[Tensor, "pixel pixel"]]:
    """Return the mean and covariance of all patches, every second pixel."""
    patches = plane.double().unfold(0, PATCH, 2).unfold(1, PATCH, 2).reshape(-1, PATCH**2)
    return patches.mean(0), patches.T.cov()


def _root(covariance: Float[Tensor, "pixel pixel"]) -> Float[Tensor, "pixel pixel"]:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

"""Noise models for training and experiments, on images scaled to [0, 1].

The five families of the experiments: Gaussian, Poisson, Gamma, correlated Gaussian, Rician.
`correlated_noise` takes any power spectrum, so that what scanners do to white noise (interpolation,
zero filling, filtered back-projection) has one home.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Image = Float[Tensor, "height width"]
Spectrum = Float[Tensor, "height width"]
Values = Float[Tensor, "*shape"]


def white_noise(shape: torch.Size, generator: Generator) -> Image:
    """Independent standard normal noise."""
    return torch.randn(shape, generator=generator)


def add_gaussian(image: Image, sigma: float, generator: Generator) -> Image:
    """`y = x + sigma n`, n independent standard normal."""
    return image + sigma * white_noise(image.shape, generator)


def add_poisson(image: Image, intensity: float, generator: Generator) -> Image:
    """`y = Poisson(lambda x) / lambda`, variance x / lambda; `intensity` is lambda."""
    return torch.poisson(intensity * image.clamp(min=0), generator=generator) / intensity


def add_gamma(image: Image, shape: float, generator: Generator) -> Image:
    """`y = x g`, g from Gamma(shape a, rate a): mean x, standard deviation x / sqrt(a)."""
    alpha = torch.full_like(image, shape)
    return image * torch._standard_gamma(alpha, generator=generator) / shape


def add_rician(image: Image, sigma: float, generator: Generator) -> Image:
    """`y = |x + sigma (n_1 + i n_2)|`, the magnitude image (Gudbjartsson and Patz 1995)."""
    real = image + sigma * white_noise(image.shape, generator)
    imaginary = sigma * white_noise(image.shape, generator)
    return torch.hypot(real, imaginary)


def add_correlated(image: Image, sigma: float, length: float, generator: Generator) -> Image:
    """White noise blurred by a Gaussian of `length` pixels, rescaled to deviation sigma."""
    spectrum = gaussian_spectrum(image.shape[0], image.shape[1], length, length)
    return image + sigma * correlated_noise(spectrum, generator)


def correlated_noise(spectrum: Spectrum, generator: Generator) -> Image:
    """Stationary Gaussian noise of unit variance with this power spectrum (any scale).

    The spectrum is over `torch.fft.fftfreq` of both axes; the noise is periodic in its frame.
    """
    white = white_noise(spectrum.shape, generator)
    amplitude = (spectrum / spectrum.mean()).sqrt()
    return torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real


def autocorrelation(spectrum: Spectrum) -> Float[Tensor, "height width"]:
    """Correlation coefficient at each lag, lag (0, 0) first (Wiener-Khinchin)."""
    return torch.fft.ifft2(spectrum / spectrum.mean()).real


def spectrum_of(acf: Float[Tensor, "lag lag"], height: int, width: int) -> Spectrum:
    """Power spectrum of noise with these correlation coefficients, lags (-m..m)^2, 1 at the centre.

    The coefficients of a finite window may belong to no noise at all (negative power): such
    frequencies get none.
    """
    reach = acf.shape[0] // 2
    around = torch.zeros(height, width)
    around[: 2 * reach + 1, : 2 * reach + 1] = acf
    around = torch.roll(around, (-reach, -reach), (0, 1))
    return torch.fft.fft2(around).real.clamp(min=1e-6)


def frequencies(
    height: int, width: int
) -> tuple[Float[Tensor, "height 1"], Float[Tensor, "1 width"]]:
    """Cycles per pixel along rows' index and columns' index, in FFT order."""
    return torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None, :]


def gaussian_spectrum(height: int, width: int, length_y: float, length_x: float) -> Spectrum:
    """White noise after a Gaussian blur of these standard deviations in pixels; 0 is white."""
    f_y, f_x = frequencies(height, width)
    return torch.exp(-4 * math.pi**2 * ((length_y * f_y) ** 2 + (length_x * f_x) ** 2))


def zero_filled_spectrum(
    height: int, width: int, share_y: float, share_x: float, taper: float
) -> Spectrum:
    """White k-space noise inside the acquired share of each axis, zero outside (MR interpolation).

    `taper` is the part of the acquired half-width over which a raised cosine falls to zero:
    scanners filter the edge of k-space against ringing.
    """

    def window(frequency: Tensor, share: float) -> Tensor:
        edge = 0.5 * share
        start = edge * (1 - taper)
        ramp = ((edge - frequency.abs()) / max(edge - start, 1e-6)).clamp(0, 1)
        return 0.5 - 0.5 * torch.cos(math.pi * ramp)

    f_y, f_x = frequencies(height, width)
    return (window(f_y, share_y) * window(f_x, share_x)) ** 2 + 1e-6


def backprojection_spectrum(height: int, width: int, cutoff: float, order: float) -> Spectrum:
    """Filtered back-projection: a ramp in |f| apodised at `cutoff` cycles per pixel (CT).

    |f| W(|f|)^2 as in Riederer, Pelc and Chesler 1978, W(f) = exp(-(f / cutoff)^order / 2).
    """
    f_y, f_x = frequencies(height, width)
    radius = torch.hypot(f_y, f_x)
    return (radius + 0.01) * torch.exp(-((radius / cutoff) ** order))


def rician_mean(image: Values, sigma: float) -> Values:
    """Mean of the Rician law at true value `image`: above it where the signal is weak."""
    z = (image / sigma) ** 2 / 4
    laguerre = (1 + 2 * z) * torch.special.i0e(z) + 2 * z * torch.special.i1e(z)
    return sigma * math.sqrt(math.pi / 2) * laguerre


def rician_deviation(image: Values, sigma: float) -> Values:
    """Deviation of the Rician law at true value `image`: 0.655 sigma in air, sigma in signal."""
    second_moment = image**2 + 2 * sigma**2
    return (second_moment - rician_mean(image, sigma) ** 2).clamp(min=1e-12).sqrt()

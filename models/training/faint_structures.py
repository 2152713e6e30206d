"""Structures near the threshold of visibility in noise, added to training images.

Structures much weaker or much stronger than the noise teach a denoiser little about the shadings
and small lesions that a reader looks for; images contain few in between. A network trained without
them removes everything as weak as the noise, and low contrast with it.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.noise.synthesis import frequencies, gaussian_spectrum

Plane = Float[Tensor, "height width"]

VISIBILITY = (0.5, 6.0)  # of one structure, in d', for an observer who averages over its area
RADII = (1.5, 14.0)  # pixels, of a disc
SCALES = (1.2, 8.0)  # pixels, of a random field
MOST_DISCS = 10
LESION_VISIBILITY = (1.5, 9.0)  # of all lesions of a patch, for the matched filter
LESION_RADII = (1.2, 9.0)  # pixels
MOST_LESIONS = 4
LINES = 0.2  # share of the lesions that are lines
SIGNAL = 0.02  # below it there is air, where nothing is added


def add_faint_structures(x: Plane, sigma: float, spectrum: Plane, generator: Generator) -> Plane:
    """Add discs or a smooth random field near the threshold of visibility to an image.

    Args:
        x: clean image; 0 is no signal.
        sigma: standard deviation of the noise that will be added, same unit.
        spectrum: power spectrum of that noise.
        generator: source of all random choices.
    """
    if float(torch.rand((), generator=generator)) < 0.5:
        faint = _discs(x.shape[0], x.shape[1], spectrum, generator)
    else:
        faint = _field(x.shape[0], x.shape[1], spectrum, generator)
    return torch.where(x > SIGNAL, (x + sigma * faint).clamp(min=0), x)


def draw_lesions(
    x: Plane, sigma: Plane, spectrum: Plane, generator: Generator
) -> tuple[Plane, float]:
    """Draw one to four ellipses or lines and their visibility v under this noise.

    v = a T'T / sqrt(T'CT) is the signal to noise ratio of a template T of amplitude a under noise
    with covariance C: 5 is Rose's criterion.

    Args:
        x: clean image; 0 is no signal, where nothing is added.
        sigma: standard deviation of the noise at each pixel, same unit.
        spectrum: power spectrum of the noise.
        generator: source of all random choices.
    """
    visibility = _log_uniform(LESION_VISIBILITY, generator)
    lesions = torch.zeros_like(x)
    for _ in range(int(torch.randint(1, MOST_LESIONS + 1, (), generator=generator))):
        radius = _log_uniform(LESION_RADII, generator)
        shape = _ellipse(x.shape[0], x.shape[1], radius, generator, LINES)
        shape = shape * (x > SIGNAL)
        power = torch.fft.fft2(shape).abs().square() * (spectrum / spectrum.mean())
        deviation = (power.sum() / shape.numel()).sqrt()  # of the matched filter's reading
        sign = 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
        lesions += sign * shape * deviation / shape.square().sum().clamp(min=1e-6)
    return visibility * sigma * lesions, visibility


def share_at_scale(spectrum: Plane, scale: float) -> float:
    """Return the share of the noise (standard deviation) that a Gaussian mean leaves."""
    smoothed = spectrum * gaussian_spectrum(spectrum.shape[0], spectrum.shape[1], scale, scale)
    return math.sqrt(float(smoothed.mean() / spectrum.mean()))


def _discs(height: int, width: int, spectrum: Plane, generator: Generator) -> Plane:
    """Draw ellipses with soft or sharp rims, in units of sigma."""
    faint = torch.zeros(height, width)
    for _ in range(int(torch.randint(1, MOST_DISCS + 1, (), generator=generator))):
        radius = _log_uniform(RADII, generator)
        inside = _ellipse(height, width, radius, generator)
        # an observer averages a disc over its area, pi r^2, as a Gaussian mean is over 4 pi s^2
        faint += inside * _strength(generator) * share_at_scale(spectrum, radius / 2)
    return faint


def _ellipse(
    height: int, width: int, radius: float, generator: Generator, lines: float = 0.0
) -> Plane:
    """Draw an ellipse with a soft or sharp rim anywhere; a share `lines` is a line of its length.

    Args:
        height: of the plane.
        width: of the plane.
        radius: the longer one, in pixels.
        generator: source of all random choices.
        lines: share of lines, about two pixels wide.
    """
    row, column, ratio, angle, rim, kind = torch.rand(6, generator=generator).tolist()
    y = torch.arange(height)[:, None] - row * height
    x = torch.arange(width)[None, :] - column * width
    cos, sin = math.cos(math.pi * angle), math.sin(math.pi * angle)
    along, across = x * cos + y * sin, y * cos - x * sin
    if kind < lines:
        radius, ratio = max(2.0, radius), min(1.0, 1.0 / radius)
    else:
        ratio = 0.5 + 0.5 * ratio
    distance = torch.hypot(along, across / ratio)
    return ((radius - distance) / (0.5 + 2 * rim) + 0.5).clamp(0, 1)


def _field(height: int, width: int, spectrum: Plane, generator: Generator) -> Plane:
    """Draw a Gaussian random field of one scale, in units of sigma."""
    scale = _log_uniform(SCALES, generator)
    white = torch.randn(height, width, generator=generator)
    f_y, f_x = frequencies(height, width)
    blur = torch.exp(-2 * math.pi**2 * scale**2 * (f_y**2 + f_x**2))
    field = torch.fft.ifft2(torch.fft.fft2(white) * blur).real
    field = field / field.std().clamp(min=1e-6)
    return field * abs(_strength(generator)) / 2 * share_at_scale(spectrum, scale)


def _strength(generator: Generator) -> float:
    """Draw a signed strength, log-uniform in VISIBILITY."""
    sign = 1.0 if float(torch.rand((), generator=generator)) < 0.5 else -1.0
    return sign * _log_uniform(VISIBILITY, generator)


def _log_uniform(limits: tuple[float, float], generator: Generator) -> float:
    low, high = (math.log(limit) for limit in limits)
    return math.exp(low + (high - low) * float(torch.rand((), generator=generator)))

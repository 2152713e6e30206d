"""Training examples with simulated noise and known truth.

Example number k is a pure function of the images, the seed and k, so that a run that was
interrupted continues with the same examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.noise import synthesis
from stillscan.models.noise.profile import CORRELATION_LAGS, LOWEST_SHARE, smooth
from stillscan.models.training.faint_structures import add_faint_structures

SIGMA_RANGE = (0.2 / 255, 50 / 255)
PATCH = 80
GIVEN_SIGMA_ERROR = 0.07  # error of a good noise profile (standard deviation of the log)
GIVEN_CORRELATION_ERROR = 0.02
WRONG_LEVEL_SHARE = 0.25  # of examples with a wrong level, as if structure was taken for noise
WRONG_LEVEL_RANGE = (0.7, 3.0)

Plane = Float[Tensor, "height width"]


@dataclass(frozen=True)
class TrainingImage:
    """A clean (or nearly clean) image on [0, 1] and the noise that it still contains.

    Noise is added at twice `own_sigma` or more, so that the network never learns to keep noise.
    `weight` is the relative frequency with which it is drawn.
    """

    pixels: Plane
    own_sigma: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """Noisy images, the noise in them, and the level and correlation that the network gets."""

    noisy: Float[Tensor, "batch 1 height width"]
    noise: Float[Tensor, "batch 1 height width"]
    sigma: Float[Tensor, "batch 1 height width"]
    correlation: Float[Tensor, "batch lag"]


def draw_batch(
    images: Sequence[TrainingImage], size: int, seed: int, number: int, faint: float = 0.0
) -> Batch:
    """Draw batch `number` of the run with this seed; a share `faint` gets faint structures."""
    generator = torch.Generator().manual_seed((seed << 32) + number)
    weights = torch.tensor([image.weight for image in images])
    chosen = torch.multinomial(weights, size, replacement=True, generator=generator)
    examples = [draw_example(images[int(i)], generator, faint) for i in chosen]
    noisy, residual, sigma, correlation = (
        torch.stack(part) for part in zip(*examples, strict=True)
    )
    return Batch(noisy[:, None], residual[:, None], sigma[:, None], correlation)


def draw_example(
    image: TrainingImage, generator: Generator, faint: float = 0.0
) -> tuple[Plane, Plane, Plane, Float[Tensor, " lag"]]:
    """Draw a noisy patch, its noise, and the level and correlation that the network gets."""
    x = augment(crop(image.pixels, generator), generator)
    contrast = _uniform(0.3, 1.0, generator)
    x = x * contrast + _uniform(0.0, 1 - contrast, generator) * float(
        _uniform(0.0, 1.0, generator) < 0.5
    )
    lowest = max(SIGMA_RANGE[0], 2 * image.own_sigma * contrast)
    sigma = math.exp(_uniform(math.log(lowest), math.log(SIGMA_RANGE[1]), generator))
    spectrum = draw_spectrum(x.shape[0], x.shape[1], generator)
    if faint and _uniform(0.0, 1.0, generator) < faint:
        x = add_faint_structures(x, sigma, spectrum, generator)
    mean, noisy, level_curve, white = corrupt(x, sigma, spectrum, generator)
    sigma_map = level_curve(smooth(noisy[None, None])[0, 0].clamp(min=0))
    sigma_map = sigma_map.clamp(min=LOWEST_SHARE * float(sigma_map.square().mean().sqrt()))
    acf = synthesis.autocorrelation(torch.ones_like(spectrum) if white else spectrum)
    correlation = torch.stack([(acf[dy, dx] + acf[dy, -dx]) / 2 for dy, dx in CORRELATION_LAGS])
    factor, given = given_conditioning(correlation, generator)
    return noisy, noisy - mean, sigma_map * factor, given


def given_conditioning(
    correlation: Float[Tensor, " lag"], generator: Generator
) -> tuple[float, Float[Tensor, " lag"]]:
    """Draw the errors of the conditioning: a factor on the true level, and the correlation.

    Most examples get nearly the truth. Some get a level that may be far off and less correlation
    than there is, as from an image without flat regions: the network learns to trust the image
    more than its noise profile.
    """
    error = GIVEN_CORRELATION_ERROR * torch.randn(len(correlation), generator=generator)
    if _uniform(0.0, 1.0, generator) > WRONG_LEVEL_SHARE:
        return math.exp(GIVEN_SIGMA_ERROR * _normal(generator)), correlation + error
    low, high = (math.log(limit) for limit in WRONG_LEVEL_RANGE)
    factor = math.exp(_uniform(low, high, generator))
    return factor, correlation * min(1.0, _uniform(0.0, 2.0, generator)) + error


def corrupt(
    x: Plane, sigma: float, spectrum: Plane, generator: Generator
) -> tuple[Plane, Plane, Callable[[Tensor], Tensor], bool]:
    """Draw noise: (E[y | x], y, its standard deviation as a function of level, is it white).

    The target is E[y | x], not x: a derived series must not move the mean of a region, so the
    Rician bias stays.
    """
    family = _uniform(0.0, 1.0, generator)
    if family < 0.60:  # stationary, half of it white
        n = synthesis.correlated_noise(spectrum, generator)
        gain = _unknown_gain(x, generator)
        return x, x + sigma * gain * n, lambda level: torch.full_like(level, sigma), False
    if family < 0.75:  # any signal dependence: sigma^2 = a + b x + c x^2
        a, b, c = torch.rand(3, generator=generator).tolist()
        scale = sigma / math.sqrt(a + b / 2 + c / 4 + 1e-3)
        n = synthesis.correlated_noise(spectrum, generator)

        def polynomial(level: Tensor) -> Tensor:
            return scale * (a + b * level + c * level**2 + 1e-3).sqrt()

        return x, x + polynomial(x) * n, polynomial, False
    if family < 0.83:
        counts = 0.5 / sigma**2
        y = synthesis.add_poisson(x, counts, generator)
        return x, y, lambda level: (level / counts).sqrt(), True
    if family < 0.91:
        shape = max(4.0, (0.5 / sigma) ** 2)
        y = synthesis.add_gamma(x, shape, generator)
        return x, y, lambda level: level / math.sqrt(shape), True
    real, imaginary = (synthesis.correlated_noise(spectrum, generator) for _ in range(2))
    y = torch.hypot(x + sigma * real, sigma * imaginary)
    return synthesis.rician_mean(x, sigma), y, _rician_curve(sigma), False


def _rician_curve(sigma: float) -> Callable[[Tensor], Tensor]:
    """Return the standard deviation of a Rician magnitude as a function of its mean."""
    true = torch.linspace(0, 6 * sigma, 64)
    mean, deviation = synthesis.rician_mean(true, sigma), synthesis.rician_deviation(true, sigma)

    def curve(level: Tensor) -> Tensor:
        right = torch.searchsorted(mean, level.clamp(mean[0], mean[-1]).contiguous())
        return deviation[right.clamp(0, 63)]

    return curve


def draw_spectrum(height: int, width: int, generator: Generator) -> Plane:
    """Draw a noise spectrum like those of scanners; white for about half of the draws."""
    kind = _uniform(0.0, 1.0, generator)
    if kind < 0.45:
        return torch.ones(height, width)
    if kind < 0.70:
        length = _uniform(0.2, 2.0, generator)
        other = length * math.exp(0.3 * _normal(generator)) if kind < 0.6 else length
        return synthesis.gaussian_spectrum(height, width, length, other)
    if kind < 0.90:
        share_y, share_x = (_uniform(0.4, 1.05, generator) for _ in range(2))
        return synthesis.zero_filled_spectrum(
            height, width, share_y, share_x, _uniform(0.0, 0.6, generator)
        )
    return synthesis.backprojection_spectrum(
        height, width, _uniform(0.15, 0.5, generator), _uniform(1.0, 4.0, generator)
    )


def _unknown_gain(x: Plane, generator: Generator) -> Plane | float:
    """For a quarter of the examples, draw a smooth change of the level unknown to the network.

    It stands for the g-factor of parallel imaging.
    """
    if _uniform(0.0, 1.0, generator) > 0.25:
        return 1.0
    coarse = 0.15 * torch.randn(1, 1, 3, 3, generator=generator)
    return F.interpolate(coarse, size=x.shape, mode="bicubic")[0, 0].exp()


def crop(pixels: Plane, generator: Generator) -> Float[Tensor, "patch patch"]:
    """Draw a patch of PATCH x PATCH pixels, up to three times until it has some structure."""
    height, width = pixels.shape
    patch = pixels[:PATCH, :PATCH]
    for _ in range(3):
        top = int(torch.randint(0, height - PATCH + 1, (1,), generator=generator))
        left = int(torch.randint(0, width - PATCH + 1, (1,), generator=generator))
        patch = pixels[top : top + PATCH, left : left + PATCH]
        if float(patch.std()) > 0.01:
            break
    return patch


def augment(patch: Plane, generator: Generator) -> Plane:
    """Apply one of the eight symmetries of the square."""
    turns, flip = torch.randint(0, 4, (2,), generator=generator).tolist()
    patch = torch.rot90(patch, turns)
    return patch.flip(0) if flip < 2 else patch


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _normal(generator: Generator) -> float:
    return float(torch.randn((), generator=generator))

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
from stillscan.models.training.faint_structures import add_faint_structures, draw_lesions
from stillscan.models.training.projection_noise import spectrum_of_field

SIGMA_RANGE = (0.2 / 255, 50 / 255)
PATCH = 80
GIVEN_SIGMA_ERROR = 0.07  # error of a good noise profile (standard deviation of the log)
GIVEN_CORRELATION_ERROR = 0.02
WRONG_LEVEL_SHARE = 0.25  # of examples with a wrong level, as if structure was taken for noise
WRONG_LEVEL_RANGE = (0.7, 3.0)
AIR = 0.05  # below it, for a third of the examples, there is less noise than given, or none
INVERTED_SHARE = 0.2  # of examples whose tissues change places: a T1 looks like a sharp T2
PASSED_PX = (1.5, 3.5)  # standard deviation of the pass-through that an example is judged with

Plane = Float[Tensor, "height width"]


@dataclass(frozen=True)
class TrainingImage:
    """A clean (or nearly clean) image on [0, 1] and the noise that it still contains.

    Noise is added at twice `own_sigma` or more, so that the network never learns to keep noise.
    `weight` is the relative frequency with which it is drawn. `fields` are realisations of the
    noise of this very slice (projection_noise.py); without them noise of any kind is drawn.
    `unpassed` is the share of its examples that are judged without the pass-through.
    """

    pixels: Plane
    own_sigma: float = 0.0
    weight: float = 1.0
    fields: Float[Tensor, "field height width"] | None = None
    unpassed: float = 0.5


@dataclass(frozen=True)
class Batch:
    """Noisy images, the noise in them, and the level and correlation that the network gets.

    Attributes:
        noisy: y.
        noise: y - E[y | x].
        sigma: standard deviation of the noise that the network is given.
        correlation: that it is given.
        lesions: may be added to `noisy`, visible under the noise to degree `visibility`.
        visibility: of the lesions, for the matched filter.
        passed: standard deviation of the pass-through in pixels; 0 for none.
    """

    noisy: Float[Tensor, "batch 1 height width"]
    noise: Float[Tensor, "batch 1 height width"]
    sigma: Float[Tensor, "batch 1 height width"]
    correlation: Float[Tensor, "batch lag"]
    lesions: Float[Tensor, "batch 1 height width"] | None = None
    visibility: Float[Tensor, " batch"] | None = None
    passed: Float[Tensor, " batch"] | None = None


@dataclass(frozen=True)
class Example:
    """One member of a Batch."""

    noisy: Plane
    noise: Plane
    sigma: Plane
    correlation: Float[Tensor, " lag"]
    lesions: Plane
    visibility: float
    passed: float


def draw_batch(
    images: Sequence[TrainingImage], size: int, seed: int, number: int, faint: float = 0.0
) -> Batch:
    """Draw batch `number` of the run with this seed; a share `faint` gets faint structures."""
    generator = torch.Generator().manual_seed((seed << 32) + number)
    weights = torch.tensor([image.weight for image in images])
    chosen = torch.multinomial(weights, size, replacement=True, generator=generator)
    drawn = [draw_example(images[int(i)], generator, faint) for i in chosen]
    return Batch(
        torch.stack([each.noisy for each in drawn])[:, None],
        torch.stack([each.noise for each in drawn])[:, None],
        torch.stack([each.sigma for each in drawn])[:, None],
        torch.stack([each.correlation for each in drawn]),
        torch.stack([each.lesions for each in drawn])[:, None],
        torch.tensor([each.visibility for each in drawn]),
        torch.tensor([each.passed for each in drawn]),
    )


def draw_example(image: TrainingImage, generator: Generator, faint: float = 0.0) -> Example:
    """Draw a noisy patch, its noise, lesions, and what the network is given."""
    planes = image.pixels[None]
    if image.fields is not None:
        field = torch.randint(0, len(image.fields), (), generator=generator)
        planes = torch.stack([image.pixels, image.fields[field]])
    planes = augment(crop(planes, generator), generator)
    x = planes[0]
    if image.fields is None and _uniform(0.0, 1.0, generator) < INVERTED_SHARE:
        x = torch.where(x > AIR, (1 + AIR - x).clamp(min=AIR), x)
    contrast = _uniform(0.3, 1.0, generator)
    x = x * contrast + _uniform(0.0, 1 - contrast, generator) * float(
        _uniform(0.0, 1.0, generator) < 0.5
    )
    lowest = max(SIGMA_RANGE[0], 2 * image.own_sigma * contrast)
    sigma = math.exp(_uniform(math.log(lowest), math.log(SIGMA_RANGE[1]), generator))
    if image.fields is None:
        spectrum = draw_spectrum(x.shape[0], x.shape[1], generator)
    else:
        spectrum = spectrum_of_field(planes[1])
    if faint and _uniform(0.0, 1.0, generator) < faint:
        x = add_faint_structures(x, sigma, spectrum, generator)
    if image.fields is None:
        mean, noisy, level_curve, white = corrupt(x, sigma, spectrum, generator)
    else:
        field = planes[1] * (sigma / planes[1].square().mean().sqrt().clamp(min=0.2))
        mean, noisy, white = x, x + field, False
        level_curve = _constant(float(field.square().mean().sqrt()))
    sigma_map = level_curve(smooth(noisy[None, None])[0, 0].clamp(min=0))
    sigma_map = sigma_map.clamp(min=LOWEST_SHARE * float(sigma_map.square().mean().sqrt()))
    spectrum = torch.ones_like(spectrum) if white else spectrum
    lesions, visibility = draw_lesions(x, sigma_map, spectrum, generator)
    if _uniform(0.0, 1.0, generator) < 1 / 3:
        share = max(0.0, _uniform(-1.0, 1.0, generator))
        noisy = torch.where(x < AIR, mean + share * (noisy - mean), noisy)
    acf = synthesis.autocorrelation(spectrum)
    correlation = torch.stack([(acf[dy, dx] + acf[dy, -dx]) / 2 for dy, dx in CORRELATION_LAGS])
    factor, given = given_conditioning(correlation, generator)
    low, high = (math.log(each) for each in PASSED_PX)
    passed = math.exp(_uniform(low, high, generator))
    if image.unpassed and _uniform(0.0, 1.0, generator) < image.unpassed:
        passed = 0.0
    return Example(noisy, noisy - mean, sigma_map * factor, given, lesions, visibility, passed)


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
        if _uniform(0.0, 1.0, generator) < 0.25:  # coils: what the noise level map knows
            shaded = sigma * _gain(x, 0.5, generator)
            return x, x + shaded * n, lambda _: shaded, False
        gain = _unknown_gain(x, generator)
        return x, x + sigma * gain * n, _constant(sigma), False
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
        if kind > 0.65:  # along one axis alone
            length, other = (length, 0.0) if kind > 0.675 else (0.0, length)
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
    return _gain(x, 0.15, generator)


def _gain(x: Plane, deviation: float, generator: Generator) -> Plane:
    """Draw a smooth factor; `deviation` is that of its logarithm."""
    coarse = deviation * torch.randn(1, 1, 3, 3, generator=generator)
    return F.interpolate(coarse, size=x.shape, mode="bicubic")[0, 0].exp()


def _constant(sigma: float) -> Callable[[Tensor], Tensor]:
    return lambda level: torch.full_like(level, sigma)


def crop(
    planes: Float[Tensor, "plane height width"], generator: Generator
) -> Float[Tensor, "plane patch patch"]:
    """Draw a patch of PATCH x PATCH pixels, up to three times until the first has structure."""
    height, width = planes.shape[1:]
    patch = planes[:, :PATCH, :PATCH]
    for _ in range(3):
        top = int(torch.randint(0, height - PATCH + 1, (1,), generator=generator))
        left = int(torch.randint(0, width - PATCH + 1, (1,), generator=generator))
        patch = planes[:, top : top + PATCH, left : left + PATCH]
        if float(patch[0].std()) > 0.01:
            break
    return patch


def augment(
    patch: Float[Tensor, "plane height width"], generator: Generator
) -> Float[Tensor, "plane height width"]:
    """Apply one of the eight symmetries of the square."""
    turns, flip = torch.randint(0, 4, (2,), generator=generator).tolist()
    patch = torch.rot90(patch, turns, (1, 2))
    return patch.flip(1) if flip < 2 else patch


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _normal(generator: Generator) -> float:
    return float(torch.randn((), generator=generator))

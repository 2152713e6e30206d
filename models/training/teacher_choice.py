"""Choice of the best teacher without a clean image, by recorrupted pairs.

A candidate denoises y + a z and is compared with y - z / a, whose noise is independent of its
input. The mean squared difference is the error against the clean image plus the target's noise, the
same for every candidate; so differences between candidates are differences of true error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.models.metrics.confidence_intervals import Interval, bootstrap_mean
from stillscan.models.noise.synthesis import correlated_noise, spectrum_of
from stillscan.models.training.noisy_images import NoisyImage

FACTOR = 0.5  # a
MARGIN_DB = 0.02  # a candidate must be better by this to replace an earlier one


@dataclass(frozen=True)
class Candidate:
    """One line of the table.

    Attributes:
        name: name of the candidate.
        error_db: 10 log10 of its estimated squared error over the noise's variance: mean over
            the images; lower is better.
        behind_db: distance from the chosen candidate, mean over the images.
        interval_db: 95 % bootstrap interval of `behind_db`.
    """

    name: str
    error_db: float
    behind_db: float
    interval_db: tuple[float, float]


def choose(
    candidates: Mapping[str, Denoiser], images: Sequence[NoisyImage], seed: int
) -> tuple[str, tuple[Candidate, ...]]:
    """Choose the best candidate; also return the table of all.

    An earlier candidate is kept until a later one is better by MARGIN_DB with 95 % certainty: put
    the simplest first.
    """
    errors = {name: squared_errors(denoiser, images, seed) for name, denoiser in candidates.items()}
    chosen = next(iter(candidates))
    for name in candidates:
        if behind_db(errors[chosen], errors[name], seed).low > MARGIN_DB:
            chosen = name
    table = []
    for name, found in errors.items():
        behind = behind_db(found, errors[chosen], seed)
        table.append(Candidate(name, _db(found), behind.value, behind.ends))
    return chosen, tuple(table)


def squared_errors(
    denoiser: Denoiser, images: Sequence[NoisyImage], seed: int
) -> Float[Tensor, " image"]:
    """Estimate the squared error of each image over the variance of its noise."""
    return torch.stack(
        [
            _squared_error(denoiser, image, torch.Generator().manual_seed((seed << 32) + number))
            for number, image in enumerate(images)
        ]
    )


def _squared_error(denoiser: Denoiser, image: NoisyImage, generator: Generator) -> Tensor:
    y = image.pixels
    spectrum = spectrum_of(torch.from_numpy(image.profile.acf).float(), *y.shape)
    sigma = image.profile.sigma_map(y[None, None])[0, 0]
    z = sigma * correlated_noise(spectrum, generator)
    noisy, target = y + FACTOR * z, y - z / FACTOR
    profile = image.profile.weakened(math.sqrt(1 + FACTOR**2))
    estimate = denoiser.denoise(noisy[None, None], profile).mean[0, 0]
    difference = estimate - target
    noise = (1 + 1 / FACTOR**2) * sigma.square().mean()
    return (difference.square().mean() - noise) / sigma.square().mean()


def behind_db(
    worse: Float[Tensor, " image"], better: Float[Tensor, " image"], seed: int
) -> Interval:
    """Return by how many dB `worse` is behind `better`: mean over the images and 95 % interval.

    Differences are taken image by image, where the target's noise cancels, and are expressed in
    dB relative to the better one's error.
    """
    found = bootstrap_mean([(worse - better).tolist()], seed)
    reference = float(_mean(better))

    def db(more: float) -> float:
        return 10 * math.log10(max(1e-3, 1 + more / reference))

    return Interval(db(found.value), db(found.low), db(found.high))


def _mean(errors: Tensor) -> Tensor:
    """Return the mean over the last axis, not below the resolution of the estimate."""
    return errors.mean(-1).clamp(min=1e-3)


def _db(errors: Tensor) -> float:
    return 10 * math.log10(float(_mean(errors)))

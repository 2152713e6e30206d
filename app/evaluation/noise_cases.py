"""Simulated noise of the experiments, with names and exactly known profiles.

A name gives family and strength: `gaussian 15` and `rician 6` (sigma in 1/255), `correlated 1.2 px
15` (length and sigma), `poisson 200` (lambda), `gamma 100` (shape).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.models.noise import synthesis
from stillscan.models.noise.profile import MAX_LAG, Family, NoiseProfile
from stillscan.operators.errors import SettingsError

Plane = Float[Tensor, "height width"]

NAMES = (
    "gaussian 1",
    "gaussian 2",
    "gaussian 3",
    "gaussian 6",
    "gaussian 15",
    "gaussian 25",
    "correlated 0.5 px 6",
    "correlated 1.2 px 6",
    "correlated 1.2 px 15",
    "poisson 200",
    "poisson 700",
    "gamma 100",
    "gamma 500",
    "rician 6",
    "rician 15",
)
KNOTS = 64  # number of points of the level curve that oracle methods get
FRAME = 128  # pixels: side of the image on which the correlation is computed


class UnknownNoiseError(SettingsError):
    """The name of a simulated noise is not known."""

    reason = "unknown-noise"


@dataclass(frozen=True)
class NoiseCase:
    """One noise on images of [0, 1].

    Attributes:
        name: name as above.
        family: family of noise models.
        strength: sigma (gaussian, correlated, rician), lambda (poisson) or shape (gamma).
        length: length of the correlation in pixels; 0 is white.
    """

    name: str
    family: Family
    strength: float
    length: float = 0.0

    @property
    def stationary(self) -> bool:
        """Whether the noise is additive and the same everywhere."""
        return self.family in ("gaussian", "correlated")

    def add(self, clean: Plane, generator: Generator) -> Plane:
        """Add this noise to an image."""
        match self.family:
            case "gaussian":
                return synthesis.add_gaussian(clean, self.strength, generator)
            case "correlated":
                return synthesis.add_correlated(clean, self.strength, self.length, generator)
            case "poisson":
                return synthesis.add_poisson(clean, self.strength, generator)
            case "gamma":
                return synthesis.add_gamma(clean, self.strength, generator)
            case "rician":
                return synthesis.add_rician(clean, self.strength, generator)

    def mean(self, clean: Plane) -> Plane:
        """Return E[y | x]: the clean image, except for Rician noise, which raises weak signal."""
        return synthesis.rician_mean(clean, self.strength) if self.family == "rician" else clean

    def spectrum(self, height: int, width: int) -> Plane:
        """Return the power of the noise over `torch.fft.fftfreq` of both axes, mean 1."""
        if self.length == 0:
            return torch.ones(height, width)
        power = synthesis.gaussian_spectrum(height, width, self.length, self.length)
        return power / power.mean()

    def profile(self, clean: Float[Tensor, "slice height width"]) -> NoiseProfile:
        """Return the true noise profile, which oracle methods get."""
        top = float(clean.max())
        true = torch.linspace(0, top, KNOTS)
        levels, sigmas = self.mean_and_deviation(true)
        acf = synthesis.autocorrelation(self.spectrum(FRAME, FRAME))
        middle = slice(FRAME // 2 - MAX_LAG, FRAME // 2 + MAX_LAG + 1)
        typical = float(self.mean_and_deviation(clean.flatten())[1].square().mean().sqrt())
        constant = self.stationary
        return NoiseProfile(
            sigma=typical,
            levels=(0.5,) if constant else tuple(levels.tolist()),
            sigmas=(self.strength,) if constant else tuple(sigmas.tolist()),
            acf=torch.fft.fftshift(acf)[middle, middle].numpy(),
            family=self.family,
        )

    def mean_and_deviation(self, true: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of the noisy value at each true value."""
        match self.family:
            case "poisson":
                return true, (true.clamp(min=0) / self.strength).sqrt()
            case "gamma":
                return true, true / math.sqrt(self.strength)
            case "rician":
                mean = synthesis.rician_mean(true, self.strength)
                return mean, synthesis.rician_deviation(true, self.strength)
            case _:
                return true, torch.full_like(true, self.strength)


def noise_case(name: str) -> NoiseCase:
    """Return the noise with this name.

    Raises:
        UnknownNoiseError: if the name cannot be read.
    """
    try:
        match name.split():
            case ["gaussian" | "rician" as family, level] if 0 < float(level) <= 255:
                return NoiseCase(name, family, float(level) / 255)
            case ["poisson" | "gamma" as family, strength] if float(strength) > 0:
                return NoiseCase(name, family, float(strength))
            case ["correlated", length, "px", level] if float(length) > 0 and float(level) > 0:
                return NoiseCase(name, "correlated", float(level) / 255, float(length))
    except ValueError:
        pass  # not a number: reported below like an unknown name
    raise UnknownNoiseError(f"unknown noise '{name}'; known noises: {', '.join(NAMES)}")

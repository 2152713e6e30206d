"""Growth of time: exponents of pixels and of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.speed.peak import least_core_seconds
from bench.speed.whole_run import WholeRun
from stillscan.models.bundle import load_bundle
from stillscan.models.noise.estimation import estimate_noise_profile

SIDES = (256, 512, 1024, 2048)  # sides of square images, pixels


@dataclass(frozen=True)
class Growth:
    """`seconds ~ size ** exponent`, fitted on a log-log scale."""

    of: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Exponent; 1 is proportional."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])


def growth_with_pixels(bundle: Path, sides: Sequence[int] = SIDES) -> Growth:
    """Measure core-seconds of the student by pixels of the image, tiles included."""
    torch.set_num_threads(1)
    denoiser = load_bundle(bundle, engine="auto").denoiser
    seconds = []
    for side in sides:
        image = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(side))
        noise = estimate_noise_profile([image[0, 0, :256, :256]])
        seconds.append(least_core_seconds(lambda: denoiser.denoise(image, noise), 2))  # noqa: B023
    return Growth("student, pixels", tuple(side**2 for side in sides), tuple(seconds))


def growth_with_slices(runs: Sequence[WholeRun], start: float) -> Growth:
    """Measure core-seconds of whole runs by slices, without the constant cost of a run."""
    sizes = tuple(run.slices for run in runs)
    return Growth("whole run, slices", sizes, tuple(run.core_seconds - start for run in runs))

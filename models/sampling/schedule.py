"""The noise schedule of the diffusion model: how much of the image is left at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

ScheduleName = Literal["linear", "constant", "uniform"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)

STEPS = 1000  # T
BETA_FIRST, BETA_LAST = 1e-4, 2e-2  # Ho et al. 2020, section 4


@dataclass(frozen=True)
class NoiseSchedule:
    """`z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps`, t = 0 .. T - 1.

    Attributes:
        alpha_bar: share of the image's variance that is left after step t; falls with t. float64.
    """

    alpha_bar: Float[Tensor, " step"]

    @classmethod
    def linear(
        cls, steps: int = STEPS, first: float = BETA_FIRST, last: float = BETA_LAST
    ) -> NoiseSchedule:
        """Let beta grow linearly, by default from 1e-4 to 2e-2 (Ho et al. 2020)."""
        beta = torch.linspace(first, last, steps, dtype=torch.float64)
        return cls(torch.cumprod(1 - beta, 0))

    @classmethod
    def constant(cls, steps: int = STEPS) -> NoiseSchedule:
        """Use the same beta in every step; the last alpha_bar is that of `linear`.

        This is an interpretation of No-New-Denoiser's "constant"; its exact formula is not known.
        """
        last = float(cls.linear(steps).alpha_bar[-1])
        exponent = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        return cls(last**exponent)

    @classmethod
    def uniform(cls, steps: int = STEPS) -> NoiseSchedule:
        """Let the share of noise 1 - alpha_bar grow by the same amount in every step.

        This is an interpretation of No-New-Denoiser's "uniform"; its exact formula is not known.
        """
        linear = cls.linear(steps).alpha_bar
        return cls(torch.linspace(float(linear[0]), float(linear[-1]), steps, dtype=torch.float64))

    @classmethod
    def named(cls, name: ScheduleName, steps: int = STEPS) -> NoiseSchedule:
        """Return the schedule with this name."""
        return {"linear": cls.linear, "constant": cls.constant, "uniform": cls.uniform}[name](steps)

    def __len__(self) -> int:
        """Return T, the number of steps."""
        return len(self.alpha_bar)

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Return `t_i = round(linspace(T - 1, 0, S))`; for one step, T - 1 alone."""
        return tuple(int(t) for t in torch.linspace(len(self) - 1, 0, steps).round())

    def timestep_of_noise(self, sigma: float) -> int:
        """Return the t whose noise-to-signal ratio sqrt((1 - a) / a), on z, is nearest `sigma`."""
        ratio = ((1 - self.alpha_bar) / self.alpha_bar).sqrt()
        return int((ratio.log() - torch.tensor(sigma, dtype=torch.float64).log()).abs().argmin())

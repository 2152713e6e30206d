"""The noise of one series, estimated from the series alone: level, signal dependence, correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Family = Literal["gaussian", "poisson", "gamma", "rician", "correlated"]


@dataclass(frozen=True)
class NoiseProfile:
    """Level, signal dependence and correlation of a series' noise, in the series' own unit."""

    sigma: float
    radius: int
    family: Family


def estimate_noise_profile(slices: Sequence[Float[Tensor, "height width"]]) -> NoiseProfile:
    """(contract only, being written)."""
    raise NotImplementedError

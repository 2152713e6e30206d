"""What may leave: measurements of what the denoiser did to an image, and the verdict on it.

Judged is the full-strength estimate, before strength is applied, by its standardised residual
r = (y - x_hat) / sigma. A perfect estimate of the mean has std(r) <= 1: what was removed is no more
than the noise. Little change is always safe; too much change, a moved mean and anything not finite
are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float32

Decision = Literal["accept", "accept with clamp", "refuse"]
Pixels = Float32[np.ndarray, "slice row column"]


@dataclass(frozen=True)
class GateLimits:
    """Thresholds (`app.yaml`, section `gate`), in units of the noise's sigma.

    Attributes:
        residual_deviation: std(r) of a slice above this is more change than noise explains.
        residual_mean: |mean(r)| of a slice above this is a moved mean.
    """

    residual_deviation: float = 1.1
    residual_mean: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """The decision, why, and the figures it stands on (the worst slice's for limits)."""

    decision: Decision
    reasons: tuple[str, ...] = ()
    measurements: dict[str, float] = field(default_factory=dict)


def judge(noisy: Pixels, denoised: Pixels, sigma: Pixels, limits: GateLimits) -> Verdict:
    """The verdict on a block of slices.

    Args:
        noisy: what came in, any unit.
        denoised: the full-strength estimate, same unit.
        sigma: standard deviation of the noise at each pixel, same unit, above 0.
        limits: the thresholds.
    """
    if not np.isfinite(denoised).all():
        return Verdict("refuse", ("not-finite",))
    residual = (noisy - denoised) / sigma
    deviation = float(residual.std((1, 2)).max())
    mean = float(np.abs(residual.mean((1, 2))).max())
    reasons = []
    if deviation > limits.residual_deviation:
        reasons.append("more-change-than-noise")
    if mean > limits.residual_mean:
        reasons.append("mean-moved")
    measurements = {"residual_deviation": deviation, "residual_mean": mean}
    decision: Decision = "refuse" if reasons else "accept"
    return Verdict(decision, tuple(reasons), measurements)


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a series: refused where one block is; each figure is the worst of them."""
    order: tuple[Decision, ...] = ("accept", "accept with clamp", "refuse")
    decision = max((v.decision for v in verdicts), key=order.index, default="accept")
    reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.measurements)
    worst = {
        name: max(v.measurements[name] for v in verdicts if name in v.measurements)
        for name in names
    }
    return Verdict(decision, tuple(reasons), worst)

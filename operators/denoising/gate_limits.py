"""The thresholds of the gate: settings read them before anything imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GateLimits:
    """Thresholds (`app.yaml`, section `gate`), in units of the noise's sigma.

    Attributes:
        residual_deviation: std(r) of a slice, or of its bright part, above this is more change than
            noise explains: it is drawn back to this; above twice this the series is refused.
        residual_mean: |mean(r)| of a slice above this is a moved mean.
        clamp_score: |z_s| that the clamp allows at every scale.
        clamped_share: of a slice's pixels; more than this is a denoiser gone wrong, not clamped.
    """

    residual_deviation: float = 1.05
    residual_mean: float = 0.1
    clamp_score: float = 4.5
    clamped_share: float = 0.1

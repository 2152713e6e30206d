"""Thresholds of the quality gate, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GateLimits:
    """Thresholds (`app.yaml`, section `gate`), in units of the noise's sigma.

    Attributes:
        residual_deviation: largest std(r) of a slice or of its bright part: a larger change than
            the noise explains is reduced to this; above twice this the series is refused.
        residual_mean: largest |mean(r)| of a slice; beyond it the mean has moved.
        clamp_score: largest |z_s| that the clamp allows at every scale.
        clamped_share: largest share of clamped pixels of a slice; beyond it the denoiser failed.
    """

    residual_deviation: float = 1.05
    residual_mean: float = 0.1
    clamp_score: float = 4.5
    clamped_share: float = 0.1

"""Quality gate: bounds and checks the denoised block.

The gate is applied to the full-strength estimate, before strength, by its standardised residual
r = (y - x_hat) / sigma. A perfect estimate of the mean has std(r) = sqrt(1 - MSE / sigma^2) <= 1:
no more than the noise was removed. A small change is always safe and never refused; structure
beyond what noise explains is clamped (multiscale_clamp.py); a change larger than the noise is
reduced to the noise. Far too large a change, a moved mean and values that are not finite are
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32

from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.multiscale_clamp import clamp
from stillscan.operators.denoising.pass_through import PassThrough
from stillscan.operators.errors import ResultError

Decision = Literal["accept", "accept with clamp", "refuse"]
Pixels = Float32[np.ndarray, "slice row column"]
Plane = Float32[np.ndarray, "row column"]

BINS = 8
FEWEST_IN_BIN = 500  # pixels; the mean of fewer is too uncertain
CLAMPED = 0.99  # a weight below this counts as clamped
FAR_TOO_MUCH = 2.0  # times the limit of std(r): a larger change is refused


class GateRefusedError(ResultError):
    """The quality gate, or repeated acquisitions of the series, do not support the result."""

    reason = "quality-gate"


@dataclass(frozen=True)
class Verdict:
    """The decision, its reasons, and its figures (those of the worst slice)."""

    decision: Decision
    reasons: tuple[str, ...] = ()
    measurements: dict[str, float] = field(default_factory=dict)


def judge(
    noisy: Pixels,
    denoised: Pixels,
    sigma: Pixels,
    acf: Float[np.ndarray, "lag lag"],
    limits: GateLimits,
    excess: float | None = None,
    coarse: PassThrough | None = None,
) -> tuple[Pixels, Verdict]:
    """Clamp a block of slices and decide on it; return the accepted pixels.

    Args:
        noisy: the noisy input, any unit.
        denoised: the full-strength estimate, same unit.
        sigma: standard deviation of the noise at each pixel, same unit, above 0.
        acf: correlation coefficients of the noise, lag (0, 0) in the middle.
        limits: thresholds of the gate.
        excess: sigma over that of an independent measurement which contradicts it (NoiseCheck).
        coarse: frequencies that are put back where too much would have to be clamped; the rest of
            the estimate is judged again.
    """
    if not np.isfinite(denoised).all():
        return noisy, Verdict("refuse", ("not-finite",))
    accepted = np.empty_like(denoised)
    judged = []
    put_back = False
    for index, planes in enumerate(zip(noisy, denoised, sigma, strict=True)):
        accepted[index], measurements = _judge_slice(*planes, acf, limits, excess)
        too_much = measurements["clamped_share"] > limits.clamped_share
        if (
            coarse is not None
            and too_much
            and measurements["residual_mean"] <= limits.residual_mean
        ):
            finer = coarse.apply(noisy[index : index + 1], denoised[index : index + 1])[0]
            again = _judge_slice(noisy[index], finer, sigma[index], acf, limits, excess)
            if again[1]["clamped_share"] <= limits.clamped_share:
                (accepted[index], measurements), put_back = again, True
        judged.append(measurements)
    worst = {name: max((each[name] for each in judged), key=abs) for name in judged[0]}
    drawn_back = worst.pop("drawn_back") > 0
    reasons = []
    if worst["residual_deviation"] > FAR_TOO_MUCH * limits.residual_deviation:
        reasons.append("more-change-than-noise")
    if worst["residual_mean"] > limits.residual_mean:
        reasons.append("mean-moved")
    if worst["clamped_share"] > limits.clamped_share:
        reasons.append("structure-changed")
    if reasons:
        return noisy, Verdict("refuse", tuple(reasons), worst)
    clamps = ["coarse-change-put-back"] if put_back else []
    clamps += ["change-drawn-back"] if drawn_back else []
    clamps += ["structure-clamped"] if worst["clamped_share"] > 0 else []
    decision: Decision = "accept with clamp" if clamps else "accept"
    return accepted, Verdict(decision, tuple(clamps), worst)


def _judge_slice(
    noisy: Plane,
    denoised: Plane,
    sigma: Plane,
    acf: Float[np.ndarray, "lag lag"],
    limits: GateLimits,
    excess: float | None,
) -> tuple[Plane, dict[str, float]]:
    """Return the accepted pixels of one slice, and the figures of `Verdict`.

    The further figure `drawn_back` is the factor by which the whole change was reduced.
    """
    residual = (noisy - denoised) / sigma
    deviation = _deviation(noisy, residual)
    kept = np.float32(min(1.0, limits.residual_deviation / max(deviation, 1e-12)))
    if excess is not None:
        kept = np.float32(min(float(kept), 1 / max(excess * deviation, 1e-12) ** 2))
    clamped = clamp(torch.from_numpy(kept * residual)[None], acf, limits.clamp_score)
    weight = kept * clamped.weight[0].numpy()
    share = float((clamped.weight < CLAMPED).float().mean())
    measurements = {
        "residual_deviation": deviation,
        **_measure(denoised, residual),
        "highest_score": clamped.highest_before,
        "clamped_share": share,
        "drawn_back": float(1 - kept),
    }
    if float(weight.min()) == 1:
        return denoised, measurements
    return np.asarray(noisy - weight * (noisy - denoised), np.float32), measurements


def _deviation(image: np.ndarray, residual: np.ndarray) -> float:
    """Return std(r) of the slice or of its bright part, the larger: air must not hide a change."""
    bright = residual[image > image.mean()]
    return max(float(residual.std()), float(bright.std()) if len(bright) >= FEWEST_IN_BIN else 0.0)


def _measure(denoised: Plane, residual: Plane) -> dict[str, float]:
    """Compute the figures of the residual.

    `residual_correlation`: between neighbours in a row or a column. `edge_correlation`: between
    |r| and the size of the gradient of the estimate. `bin_mean`: |mean(r)| in ranges of intensity.
    """
    return {
        "residual_mean": abs(float(residual.mean())),
        "residual_correlation": _neighbours(residual),
        "edge_correlation": _edges(denoised, residual),
        "bin_mean": _bin_mean(denoised, residual),
    }


def _neighbours(residual: np.ndarray) -> float:
    """Return the larger of the two lag-1 coefficients, 0 if nothing was removed."""
    power = float((residual**2).mean())
    if power == 0 or min(residual.shape) < 2:
        return 0.0
    down = float((residual[1:] * residual[:-1]).mean()) / power
    right = float((residual[:, 1:] * residual[:, :-1]).mean()) / power
    return max(down, right, key=abs)


def _edges(image: np.ndarray, residual: np.ndarray) -> float:
    """Return the correlation of |r| with the gradient of the estimate."""
    if min(image.shape) < 3:
        return 0.0
    down = image[2:, 1:-1] - image[:-2, 1:-1]
    right = image[1:-1, 2:] - image[1:-1, :-2]
    gradient, change = np.sqrt(down**2 + right**2), np.abs(residual[1:-1, 1:-1])
    gradient, change = gradient - gradient.mean(), change - change.mean()
    scale = float(np.sqrt((gradient**2).mean() * (change**2).mean()))
    return float((gradient * change).mean()) / scale if scale > 0 else 0.0


def _bin_mean(image: np.ndarray, residual: np.ndarray) -> float:
    """Return the largest |mean(r)| over equal ranges of intensity with enough pixels."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return abs(float(residual.mean()))
    bins = np.minimum(((image - low) * (BINS / (high - low))).astype(np.int64), BINS - 1).ravel()
    counts = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, weights=residual.ravel(), minlength=BINS)
    enough = counts >= FEWEST_IN_BIN
    return float(np.abs(sums[enough] / counts[enough]).max()) if enough.any() else 0.0


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine verdicts to that of a series: refused if one block is; figures are the worst."""
    order: tuple[Decision, ...] = ("accept", "accept with clamp", "refuse")
    decision: Decision = max((v.decision for v in verdicts), key=order.index, default="accept")
    reasons = dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons)
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.measurements)
    worst = {
        name: max((v.measurements[name] for v in verdicts if name in v.measurements), key=abs)
        for name in names
    }
    return Verdict(decision, tuple(reasons), worst)

"""What is usual: thresholds and scales from healthy validation images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

NOMINAL = 0.025  # share of healthy latent positions above their threshold
LARGEST_SCORE = 4.0  # -log10 of the smallest share that a scale distinguishes
SCALE_STEPS = 81


@dataclass(frozen=True)
class HealthyThresholds:
    """A threshold of the KL at each latent position, with the nominal share above it.

    A position's own quantile over few slices marks too much in new slices. So quantiles of one half
    of the subjects are smoothed over 3x3 and scaled until the *other* half has the nominal share;
    the result is the mean over both ways.

    Attributes:
        values: KL that `nominal` of healthy images exceed.
        nominal: that share.
    """

    values: Float[Tensor, "1 row column"]
    nominal: float = NOMINAL

    @classmethod
    def fit(
        cls,
        kl: Float[Tensor, "slice 1 row column"],
        subjects: Sequence[object],
        nominal: float = NOMINAL,
    ) -> HealthyThresholds:
        """Fit to healthy validation slices; `subjects` names the subject of each.

        Raises:
            ValueError: if there are fewer than two subjects.
        """
        names = list(dict.fromkeys(subjects))
        if len(names) < 2:
            raise ValueError(f"thresholds need two subjects, found {len(names)}")
        odd = torch.tensor([names.index(each) % 2 == 1 for each in subjects], device=kl.device)
        ways = [_fitted(kl[one], kl[~one], nominal) for one in (odd, ~odd)]
        return cls(torch.stack(ways).mean(0), nominal)

    def marked(self, kl: Float[Tensor, "batch 1 row column"]) -> Bool[Tensor, "batch 1 row column"]:
        """Return where the KL exceeds its threshold."""
        return kl > self.values


def _fitted(one: Tensor, other: Tensor, nominal: float) -> Tensor:
    smooth = F.avg_pool2d(one.quantile(1 - nominal, 0)[None], 3, 1, 1, count_include_pad=False)[0]
    smooth = smooth.clamp(min=1e-12)
    ratio = (other / smooth).flatten()
    return smooth * ratio.kthvalue(max(1, math.ceil((1 - nominal) * len(ratio)))).values


@dataclass(frozen=True)
class HealthyScores:
    """The scale of scores: which share of healthy pixels is at or above a score.

    Attributes:
        quantiles: scores with the shares 10 ** -linspace(0, LARGEST_SCORE, SCALE_STEPS); rising.
        log_median, log_deviation: of the logarithm of the mean KL of healthy slices; the deviation
            is that of the upper side, as empty slices lie far below.
    """

    quantiles: Float[Tensor, " step"]
    log_median: float
    log_deviation: float

    @classmethod
    def fit(
        cls, scores: Float[Tensor, "slice 1 height width"], mean_kl: Float[Tensor, " slice"]
    ) -> HealthyScores:
        """Fit to the maps and the mean KL of healthy validation slices."""
        ordered = scores.flatten().sort().values
        shares = 10.0 ** -torch.linspace(0, LARGEST_SCORE, SCALE_STEPS, dtype=torch.float64)
        places = ((1 - shares) * (len(ordered) - 1)).ceil().long()
        logs = mean_kl.double().clamp(min=1e-12).log()
        median, upper = logs.quantile(torch.tensor([0.5, 0.975], dtype=torch.float64)).tolist()
        return cls(ordered[places].cpu(), median, (upper - median) / 1.96)

    def rarity(self, scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return -log10 of the share of healthy pixels at or above each score: 0 .. 4.

        A score on a flat part of the scale gets the largest share of that part.
        """
        quantiles = self.quantiles.to(scores)
        found = torch.searchsorted(quantiles, scores.contiguous())
        step = LARGEST_SCORE / (SCALE_STEPS - 1)
        upper = found.clamp(1, SCALE_STEPS - 1)
        low, high = quantiles[upper - 1], quantiles[upper]
        part = ((scores - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
        return (upper - 1 + part) * step * (found > 0)

    def likeness(self, mean_kl: Float[Tensor, " slice"]) -> Float[Tensor, " slice"]:
        """Return the deviations by which each slice's mean KL lies above healthy slices'."""
        return (mean_kl.clamp(min=1e-12).log() - self.log_median) / max(self.log_deviation, 1e-6)

    def score_at(self, share: float) -> float:
        """Return the score that this share of healthy pixels reaches."""
        step = -math.log10(share) / LARGEST_SCORE * (SCALE_STEPS - 1)
        return float(self.quantiles[min(SCALE_STEPS - 1, math.ceil(step))])

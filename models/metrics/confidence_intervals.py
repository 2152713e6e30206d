"""95 % confidence intervals of means and shares, with the same numbers every time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
Z = 1.959964  # two-sided 95 % of a normal law


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """The interval alone."""
        return self.low, self.high


def bootstrap_mean(groups: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """Return the mean over all values with an interval from resampling subjects and their slices.

    Each group holds the values of one subject: slices of one head are not independent of each
    other, so subjects are drawn first (with replacement), then as many of their slices.

    Args:
        groups: values per subject; at least one value in each.
        seed: seed of the random draws.
    """
    values = [np.asarray(group, np.float64) for group in groups]
    mean = float(np.concatenate(values).mean())
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(values), (DRAWS, len(values)))
    totals, counts = np.zeros(DRAWS), np.zeros(DRAWS)
    for place in drawn.T:
        for which, group in enumerate(values):
            here = place == which
            slices = rng.integers(0, len(group), (int(here.sum()), len(group)))
            totals[here] += group[slices].sum(1)
            counts[here] += len(group)
    means = totals / counts
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def wilson(found: int, tried: int) -> Interval:
    """Return a share and its interval (Wilson 1927); 0 .. 1 where nothing was tried."""
    if tried == 0:
        return Interval(math.nan, 0.0, 1.0)
    share, z2 = found / tried, Z**2
    middle = (share + z2 / (2 * tried)) / (1 + z2 / tried)
    half = math.sqrt(share * (1 - share) / tried + z2 / (4 * tried**2)) * Z / (1 + z2 / tried)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def difference_of_shares(found: tuple[int, int], other: tuple[int, int]) -> Interval:
    """Return the first share minus the second with its interval (Newcombe 1998).

    Both are given as (found, tried).
    """
    first, second = wilson(*found), wilson(*other)
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, low, high)

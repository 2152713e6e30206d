"""Repeated acquisitions inside a series: time points, averages, directions, echoes.

Two acquisitions a and b of one slice show the same object with different noise. So b is an unbiased
reference for a denoised a (Lehtinen et al. 2018, Noise2Noise): with the correction c = x_hat - a,

    w = <c, b - a> / <c, c>

is the share of it that brings a nearest to the clean image, whatever that is. If w is below 1, part
of the correction removed more than noise, and only the share w is applied. Noise that a and b have
in common lowers w. Acquisitions that differ by much more than noise (another contrast, movement) or
by much less (copies) are not used.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from stillscan.operators.volume import Place

Planes = Float32[np.ndarray, "..."]
COPIES = 0.5  # times the noise: a smaller difference means that most of the noise is shared
ALIKE = 3.0  # times the noise: EPI of a living brain differs by up to 2.6, b0 and b1000 by 3.1


@dataclass(frozen=True)
class RepeatCheck:
    """How far repeated acquisitions inside a series confirm a denoiser's correction.

    Attributes:
        slices: number of slices that were compared with another acquisition.
        confirmed_share: share of the correction that the repeats confirm, 0 to 1 in hundredths.
        before: root mean square difference between two acquisitions, in the unit of the series.
        after: the same after that share of the correction of one of them.
    """

    slices: int
    confirmed_share: float
    before: float
    after: float

    @property
    def warning(self) -> str:
        """Warning for users; empty if the whole correction was applied."""
        if self.confirmed_share == 1:
            return ""
        return (
            f"repeated acquisitions confirm {100 * self.confirmed_share:.0f} % of the correction; "
            "only that part was applied"
        )


def acquired_again(places: Sequence[Place | None], indices: Iterable[int]) -> list[int | None]:
    """Return for each slice another one at the same place: the next, or else the previous one.

    None where there is no other, or the position of the slice is unknown.

    Args:
        places: positions of all slices of a series.
        indices: indices of the slices in question.
    """
    of_place: dict[Place, list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        if place is not None:
            of_place[place].append(index)
    again: list[int | None] = []
    for index in indices:
        place = places[index]
        same = of_place[place] if place is not None else []
        if len(same) < 2:
            again.append(None)
            continue
        number = same.index(index)
        again.append(same[number + 1 if number + 1 < len(same) else number - 1])
    return again


def are_alike(one: Planes, other: Planes, sigma: Planes) -> bool:
    """Return whether two acquisitions differ by noise of this level and little else."""
    if not one.size:
        return False
    ratio = math.sqrt(float(np.square((one - other) / sigma).mean()) / 2)
    return COPIES <= ratio <= ALIKE


def check_against_repeats(
    compared: Iterable[tuple[Planes, Planes, Planes]],
) -> RepeatCheck | None:
    """Measure the share of a correction that repeats confirm; None if nothing was corrected.

    Args:
        compared: pixels of a slice, of its full-strength estimate, and of another acquisition.
    """
    products = squares = differences = 0.0
    slices = pixels = 0
    for noisy, denoised, again in compared:
        correction = (denoised - noisy).astype(np.float64)
        difference = (again - noisy).astype(np.float64)
        products += float((correction * difference).sum())
        squares += float((correction**2).sum())
        differences += float((difference**2).sum())
        slices, pixels = slices + 1, pixels + noisy.size
    if squares == 0:
        return None
    share = round(min(max(products / squares, 0.0), 1.0), 2)
    after = differences - 2 * share * products + share**2 * squares
    return RepeatCheck(
        slices, share, math.sqrt(differences / pixels), math.sqrt(max(after, 0.0) / pixels)
    )

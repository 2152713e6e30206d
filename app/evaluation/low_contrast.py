"""Low-contrast detectability on the simulated CT phantom (MITA low-contrast module, CCT189).

Four discs (14 HU of 3 mm, 7 HU of 5 mm, 5 HU of 7 mm, 3 HU of 10 mm) lie on a circle around the
middle of a uniform disc; filtered back-projection at 10, 55 and 100 % dose, four noise realisations
without the discs and four with them. Two observers (`models/metrics/detectability.py`):

- *inserted*: the sharp discs are added to the images without discs, the layout turned to eight
  angles: 32 regions with and without each disc in the same noise. Use this figure for comparisons.
- *delivered*: the phantom's four images with discs against the four without: independent noise and
  the blur of the reconstruction, but too few images for a narrow interval.

Channels are round and the discs lie on a circle, so the angle of a region does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stillscan.models.metrics.detectability import (
    hotelling_detectability,
    laguerre_gauss,
    paired_detectability,
    readings,
)

Series = Float[Tensor, "realisation height width"]

ITEM = "repeat_ct_lcd_SIMULATED.npz"
DOSES = (10, 55, 100)  # per cent
MIDDLE = 127.5
RADIUS = 46.6  # pixels, of the circle of discs
WATER = 1000  # stored value: HU = value - 1000
CHANNEL_WIDTH = 1.5  # in units of the diameter


@dataclass(frozen=True)
class Disc:
    """One disc of the phantom; the angle counts from the columns' axis towards the rows'."""

    contrast_hu: int
    diameter_mm: int
    diameter: float
    angle: int


DISCS = (
    Disc(14, 3, 4.0, -45),
    Disc(7, 5, 7.8, -135),
    Disc(5, 7, 10.9, 135),
    Disc(3, 10, 15.6, 45),
)
ANGLES = tuple(range(0, 360, 45))
EMPTY_ANGLES = (0, 90, 180, 270)  # in the phantom's own images
FINE = 4  # samples per pixel and axis when a disc is drawn


@dataclass(frozen=True)
class Dose:
    """The images of one dose on the network's CT scale."""

    percent: int
    present: Series
    absent: Series


@dataclass(frozen=True)
class Detectability:
    """Mean d' over the discs with its jackknife interval, and d' of each disc."""

    mean: float
    low: float
    high: float
    discs: tuple[float, ...]


def has_phantom(data: Path) -> bool:
    """Return whether the phantom is among the data."""
    return (data / "dev" / "arrays" / ITEM).is_file()


def doses(data: Path) -> Iterator[Dose]:
    """Yield the phantom at each dose."""
    with np.load(data / "dev" / "arrays" / ITEM) as arrays:
        for percent in DOSES:
            present, absent = (
                _on_network_scale(arrays[f"d{percent:03d}_signal_{kind}"])
                for kind in ("present", "absent")
            )
            yield Dose(percent, present, absent)


def _on_network_scale(stored: np.ndarray) -> Series:
    """Scale as the application scales CT: -1024 .. 3071 HU becomes 0 .. 1."""
    return torch.from_numpy(((stored.astype(np.float32) - WATER + 1024) / 4095).astype(np.float32))


def with_discs(absent: Series) -> Series:
    """Add the discs to every realisation; all realisations for the first angle come first."""
    turned = []
    for turn in ANGLES:
        images = absent.clone()
        for disc in DISCS:
            size = _size(disc)
            part = _regions(images, disc.angle + turn, size)
            part += disc.contrast_hu / 4095 * _drawn(disc.diameter, size)  # a view
        turned.append(images)
    return torch.cat(turned)


def inserted(present: Series, absent: Series, source: Series | None = None) -> Detectability:
    """Measure the detectability of the discs that `with_discs` added.

    Args:
        present: the method's results for `with_discs(images)`.
        absent: its results for `images`.
        source: `images`, whose noise in each channel is the observer's internal noise; without
            them it has none, and forgives every invertible filter.
    """
    count = len(absent)
    pairs = [_pairs(disc, present, absent) for disc in DISCS]
    internal = [
        None if source is None else _pairs(disc, source.repeat(len(ANGLES), 1, 1), source)[1].var(0)
        for disc in DISCS
    ]
    regions = count * len(ANGLES)
    discs = tuple(paired_detectability(*p, own) for p, own in zip(pairs, internal, strict=True))
    means = []
    for left_out in range(regions):
        kept = [i for i in range(regions) if i != left_out]
        some = [
            paired_detectability(p[kept], a[kept], own)
            for (p, a), own in zip(pairs, internal, strict=True)
        ]
        means.append(sum(some) / len(DISCS))
    return _jackknife(discs, means)


def kept_contrast(present: Series, absent: Series) -> tuple[float, ...]:
    """Measure the share of its contrast that each disc of `with_discs` keeps.

    By a template free of its mean, over all realisations and angles.

    Args:
        present: the method's results for `with_discs(images)`.
        absent: its results for `images`.
    """
    count, shares = len(absent), []
    for disc in DISCS:
        size = _size(disc)
        template = _drawn(disc.diameter, size)
        template = template - template.mean()
        responses = [
            (_regions(each - absent, disc.angle + turn, size) * template).sum((1, 2)).mean()
            for turn, each in zip(ANGLES, torch.split(present, count), strict=True)
        ]
        whole = disc.contrast_hu / 4095 * template.square().sum()
        shares.append(float(torch.stack(responses).mean() / whole))
    return tuple(shares)


def delivered(present: Series, absent: Series) -> Detectability:
    """Measure the detectability of the discs in the phantom's own images."""
    discs = tuple(_delivered(disc, present, absent) for disc in DISCS)
    means = []
    for left_out in range(len(present)):
        some = [i for i in range(len(present)) if i != left_out]
        means.append(
            sum(_delivered(disc, present[some], absent[some]) for disc in DISCS) / len(DISCS)
        )
    return _jackknife(discs, means)


def _jackknife(discs: tuple[float, ...], means: list[float]) -> Detectability:
    """Mean over the discs; jackknife interval over regions or realisations."""
    count, mean = len(means), sum(discs) / len(discs)
    centre = sum(means) / count
    error = math.sqrt((count - 1) / count * sum((each - centre) ** 2 for each in means))
    half = _student_t(count - 1) * error
    return Detectability(mean, max(0.0, mean - half), mean + half, discs)


def _pairs(disc: Disc, present: Series, absent: Series) -> tuple[Tensor, Tensor]:
    """Channel responses with and without a disc, at every angle and realisation."""
    size, count = _size(disc), len(absent)
    channels = laguerre_gauss(size, CHANNEL_WIDTH * disc.diameter)
    with_it, without = [], []
    for number, turn in enumerate(ANGLES):
        images = present[number * count : (number + 1) * count]
        with_it.append(_regions(images, disc.angle + turn, size))
        without.append(_regions(absent, disc.angle + turn, size))
    return readings(torch.cat(with_it), channels), readings(torch.cat(without), channels)


def _delivered(disc: Disc, present: Series, absent: Series) -> float:
    size = _size(disc)
    channels = laguerre_gauss(size, CHANNEL_WIDTH * disc.diameter)
    free = [_regions(absent, angle, size) for angle in ANGLES]
    free += [_regions(present, angle, size) for angle in EMPTY_ANGLES]
    return hotelling_detectability(
        readings(_regions(present, disc.angle, size), channels),
        readings(_regions(absent, disc.angle, size), channels),
        readings(torch.cat(free), channels),
    )


def _size(disc: Disc) -> int:
    """Size of the region around a disc, odd so that it has a central pixel."""
    return 2 * round(disc.diameter) + 5


def _drawn(diameter: float, size: int) -> Float[Tensor, "size size"]:
    """Return the share of each pixel that a disc covers."""
    axis = (torch.arange(size * FINE) + 0.5) / FINE - size / 2
    inside = torch.hypot(axis[:, None], axis[None, :]) <= diameter / 2
    return F.avg_pool2d(inside.float()[None, None], FINE)[0, 0]


def _regions(images: Series, angle: int, size: int) -> Float[Tensor, "realisation size size"]:
    """Return the square around the place of the circle at this angle."""
    row = MIDDLE + RADIUS * math.sin(math.radians(angle))
    column = MIDDLE + RADIUS * math.cos(math.radians(angle))
    top, left = round(row - (size - 1) / 2), round(column - (size - 1) / 2)
    return images[:, top : top + size, left : left + size]


def _student_t(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t for few degrees of freedom."""
    return {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78}.get(freedom, 2.04)

"""Insertion tests: are small lesions kept or erased, and are lesions invented?

**Lesions.** Discs of 4, 7 and 12 pixels (3 to 10 mm at 0.8 mm per pixel), lines of 12 pixels, and
round textures of 12 pixels, bright or dark, of 0.5 to 3 sigma, are added to a slice under its
noise: the same noise with and without them. The *visibility* of a lesion is the response of a
matched filter (shape T, with its mean over the window removed) to it, in units of the standard
deviation of the response to the noise alone, v = c <s, T> / sqrt(T' C T). A lesion is *visible*
from v = 5 on (Rose).

**Kept or erased.** The method's result for the noisy slice with the lesions minus its result for
the same noisy slice without them is what it lets through; the share of the contrast in it is
<difference, T> / (c <s, T>): 1 for the noisy image itself and for a noise-free image. A lesion is
erased if that share is below one half, otherwise kept.

**Invented.** The same filters are applied to the result and to the truth at places all over the
foreground, in the same unit z. A place is *empty* if the truth has |z| < 2.5, half of what is
visible. A lesion is invented there if the result differs by 2.5 or more and shows more than the
truth: half of a visible lesion that does not exist. Noise alone does that at about 1 % of the
    places.
Anatomy is erased where the truth shows a visible structure (|z| >= 5) and the result less than half
of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from stillscan.app.evaluation.noise_cases import NoiseCase

Plane = Float[Tensor, "height width"]
Window = Float[Tensor, "side side"]
Kind = Literal["disc", "line", "texture"]

VISIBLE = 5.0  # Rose 1948: below it a lesion is lost in noise
HALF = VISIBLE / 2
KEPT = 0.5  # share of the contrast
DIAMETERS = (4, 7, 12)  # pixels
CONTRASTS = (0.5, 1.0, 2.0, 3.0)  # in units of sigma
LONG = 12  # pixels: lines and textures
LINE_WIDTH = 1.5  # pixels
MARGIN = 4  # pixels of background around a shape in its window
PITCH = 32  # pixels between lesions
MOST = 40  # maximum number of lesions in a slice
FOREGROUND = 0.1  # of the intensity range: below lies air
FINE = 4  # samples per pixel and axis when shapes are drawn


@dataclass(frozen=True)
class Lesion:
    """One inserted lesion; the window of its shape lies around (row, column).

    Attributes:
        contrast: signed, in units of intensity.
        contrast_sigma: its absolute value in units of the noise's sigma.
        visibility: v as defined in the module's docstring.
    """

    kind: Kind
    size: int
    row: int
    column: int
    contrast: float
    contrast_sigma: float
    visibility: float
    shape: Window

    def window(self, plane: Plane) -> Window:
        """Return the part of a plane around the lesion."""
        return _window(plane, self.row, self.column, len(self.shape))


@dataclass(frozen=True)
class Reading:
    """The share of a lesion's contrast that a method lets through."""

    kind: Kind
    size: int
    contrast_sigma: float
    visibility: float
    share: float

    @property
    def visible(self) -> bool:
        """Whether the lesion is visible in the noise."""
        return self.visibility >= VISIBLE

    @property
    def kept(self) -> bool:
        """Whether at least half of the contrast is kept."""
        return self.share >= KEPT


@dataclass(frozen=True)
class Places:
    """Numbers of empty places, lesions invented there, structures, and structures erased."""

    empty: int
    invented: int
    structures: int
    erased: int


def draw_lesions(clean: Plane, case: NoiseCase, generator: Generator) -> list[Lesion]:
    """Draw at most MOST lesions in the foreground of a slice, PITCH pixels apart, none at air."""
    side = LONG + 2 * MARGIN
    rows, columns = (range(PITCH // 2, n - PITCH // 2 + 1, PITCH) for n in clean.shape)
    places = [(row, column) for row in rows for column in columns]
    order = torch.randperm(len(places), generator=generator).tolist()
    lesions: list[Lesion] = []
    for row, column in (places[i] for i in order):
        if len(lesions) == MOST:
            break
        if float(_window(clean, row, column, side).min()) > FOREGROUND:
            lesions.append(_draw_lesion(row, column, case, generator))
    return lesions


def _draw_lesion(row: int, column: int, case: NoiseCase, generator: Generator) -> Lesion:
    def one_of(choices: Sequence[Any]) -> Any:
        return choices[int(torch.randint(0, len(choices), (), generator=generator))]

    kind: Kind = one_of(("disc", *get_args(Kind)))  # half of them are discs
    size: int = one_of(DIAMETERS) if kind == "disc" else LONG
    contrast, sign = float(one_of(CONTRASTS)), float(one_of((-1, 1)))
    shape = _draw_shape(kind, size, generator)
    template = _free_of_mean(shape)
    read = float((shape * template).sum()) / response_deviation(template, case)
    return Lesion(
        kind=kind,
        size=size,
        row=row,
        column=column,
        contrast=sign * contrast * case.strength,
        contrast_sigma=contrast,
        visibility=contrast * case.strength * read,
        shape=shape,
    )


def insert(image: Plane, lesions: list[Lesion]) -> Plane:
    """Add the lesions to an image."""
    result = image.clone()
    for lesion in lesions:
        part = lesion.window(result)
        part += lesion.contrast * lesion.shape  # a view
    return result


def read_lesions(with_them: Plane, without: Plane, lesions: list[Lesion]) -> Iterator[Reading]:
    """Yield how much of each lesion's contrast a method lets through.

    Args:
        with_them: the method's result for the noisy slice with the lesions.
        without: its result for the same noisy slice without them.
        lesions: the inserted lesions.
    """
    difference = with_them - without
    for lesion in lesions:
        template = _free_of_mean(lesion.shape)
        whole = lesion.contrast * float((lesion.shape * template).sum())
        share = float((lesion.window(difference) * template).sum()) / whole
        yield Reading(lesion.kind, lesion.size, lesion.contrast_sigma, lesion.visibility, share)


def contrast_to_noise(with_them: Plane, clean: Plane, lesions: list[Lesion]) -> float:
    """Compute the CNR of a slice's discs: contrast to the ring around them over its deviation.

    The anatomy is subtracted first, as it is not noise; contrasts are relative to the true ones,
    times their mean. NaN if the slice holds no disc.
    """
    change = with_them - clean
    shares, variances, contrasts = [], [], []
    for lesion in lesions:
        if lesion.kind == "disc":
            part = lesion.window(change)
            ring = part[lesion.shape == 0]
            inside = part[lesion.shape > 0.99]
            shares.append(float(inside.mean() - ring.mean()) / lesion.contrast)
            variances.append(float(ring.var()))
            contrasts.append(abs(lesion.contrast))
    if not shares:
        return math.nan
    apparent = sum(shares) / len(shares) * sum(contrasts) / len(contrasts)
    noise = math.sqrt(sum(variances) / len(variances))
    return apparent / noise if noise > 0 else math.nan


def read_places(estimate: Plane, clean: Plane, case: NoiseCase) -> Places:
    """Count lesions invented and structures erased at places all over the foreground."""
    counts = torch.zeros(4, dtype=torch.long)
    for diameter in DIAMETERS:
        template = _free_of_mean(disc(diameter))
        side = len(template)
        if min(clean.shape) < side:
            continue
        scale = 1 / response_deviation(template, case)
        stacked = torch.stack([estimate, clean]).float()[:, None]
        z, truth = F.conv2d(stacked, scale * template[None, None].float(), stride=diameter)[:, 0]
        lowest = -F.max_pool2d(-stacked[1:], side, stride=diameter)[0, 0]
        counts += _count(z, truth, lowest > FOREGROUND)
    empty, invented, structures, erased = counts.tolist()
    return Places(empty, invented, structures, erased)


def _count(z: Tensor, truth: Tensor, inside: Bool[Tensor, "row column"]) -> Tensor:
    empty = inside & (truth.abs() < HALF)
    invented = empty & ((z - truth).abs() >= HALF) & (z.abs() > truth.abs())
    structures = inside & (truth.abs() >= VISIBLE)
    erased = structures & (z / truth < KEPT)
    return torch.stack([mask.sum() for mask in (empty, invented, structures, erased)])


def response_deviation(template: Window, case: NoiseCase) -> float:
    """Standard deviation of <noise, T>: sigma times the root of T' C T, from the spectrum."""
    frame = 4 * len(template)
    power = torch.fft.fft2(template.double(), s=(frame, frame)).abs().square()
    return case.strength * float((power * case.spectrum(frame, frame)).mean().sqrt())


@lru_cache
def disc(diameter: int) -> Window:
    """Draw a disc of 1 in a window with a margin of 0; edge pixels have the share covered."""
    y, x = _fine_grid(diameter + 2 * MARGIN)
    return _averaged(torch.hypot(y, x) <= diameter / 2)


def _draw_shape(kind: Kind, size: int, generator: Generator) -> Window:
    if kind == "disc":
        return disc(size)
    y, x = _fine_grid(size + 2 * MARGIN)
    if kind == "line":
        angle = math.pi * float(torch.rand((), generator=generator))
        along = x * math.cos(angle) + y * math.sin(angle)
        across = y * math.cos(angle) - x * math.sin(angle)
        return _averaged((along.abs() <= size / 2) & (across.abs() <= LINE_WIDTH / 2))
    coarse = torch.randn(
        1, 1, (size + 2 * MARGIN) // 2, (size + 2 * MARGIN) // 2, generator=generator
    )
    speckle = F.interpolate(coarse, scale_factor=2, mode="bilinear")[0, 0]
    patch = speckle * disc(size)
    return patch / patch[disc(size) > 0].std()


def _fine_grid(side: int) -> tuple[Tensor, Tensor]:
    """Row and column offsets from the middle of the central pixel, FINE samples per pixel."""
    axis = (torch.arange(side * FINE) + 0.5) / FINE - 0.5 - side // 2
    return axis[:, None], axis[None, :]


def _averaged(inside: Tensor) -> Window:
    return F.avg_pool2d(inside.float()[None, None], FINE)[0, 0]


def _free_of_mean(shape: Window) -> Window:
    return shape - shape.mean()


def _window(plane: Plane, row: int, column: int, side: int) -> Window:
    top, left = row - side // 2, column - side // 2
    return plane[top : top + side, left : left + side]

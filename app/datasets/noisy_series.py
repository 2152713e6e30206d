"""One series of noisy images for training, with its measured noise.

For every format, scaling and noise are determined as in the application (`measure_noise`), so that
a bundle is applied to numbers like those it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32

from stillscan.app.datasets.errors import ImageTooSmallError, NotFiniteValuesError
from stillscan.models.noise.profile import NoiseProfile
from stillscan.models.training.noisy_images import NoisyImage
from stillscan.operators.denoising.intensity import without_padding
from stillscan.operators.denoising.plan import measure_noise, sample_of
from stillscan.operators.denoising.repeats import acquired_again
from stillscan.operators.errors import NoNoiseInSeriesError
from stillscan.operators.volume import Place, Volume, unit_of

SMALLEST_SIDE = 32  # pixels: the smallest patch for training
LOWEST_SIGMA = 0.02 / 255  # of the intensity range: lower noise cannot be measured

Pixels = Float32[np.ndarray, "row column"]
Padding = Bool[np.ndarray, "row column"]


@dataclass(frozen=True)
class SeriesSource:
    """A series that was found and not yet read.

    Attributes:
        name: name for messages: a path below the folder, or a UID; it is written nowhere else.
        subject: identifies the subject for the split; it is never shown.
        modality: DICOM Modality; "" if the format does not state it.
        sizes: rows and columns of every slice.
        read: reads the slices at indices, in modality units, with masks of their padding.
        origin: the DICOM series or the file from which it is read; None for several files.
        places: position of every slice; slices at one position are repeats. None if unknown.
    """

    name: str
    subject: str
    modality: str
    sizes: tuple[tuple[int, int], ...]
    read: Callable[[Sequence[int]], Iterator[tuple[Pixels, Padding]]]
    origin: Volume | Path | None = None
    places: tuple[Place | None, ...] | None = None

    @property
    def pixels(self) -> int:
        """Number of pixels in all slices."""
        return sum(rows * columns for rows, columns in self.sizes)


@dataclass(frozen=True)
class NoisySeries:
    """A series that was read.

    Attributes:
        source: its origin.
        profile: noise profile, on the network's intensity scale.
        images: the slices that are used.
        constant: indices of slices that were left out because they are constant.
    """

    source: SeriesSource
    profile: NoiseProfile
    images: tuple[NoisyImage, ...]
    constant: tuple[int, ...]


def read_noisy_series(source: SeriesSource, every: int = 1) -> NoisySeries:
    """Read every `every`-th slice of a series and measure its noise.

    Raises:
        ImageTooSmallError: if a side is below SMALLEST_SIDE.
        NotFiniteValuesError: if a pixel is infinite or not a number.
        NoNoiseInSeriesError: if all of it is constant, or no noise can be measured.
        InputError: if a slice cannot be decoded.
    """
    require_large_enough(source)
    indices = range(0, len(source.sizes), every)
    kept: list[tuple[Pixels, Padding]] = []
    places: list[Place | None] = []
    constant: list[int] = []
    for index, (pixels, padding) in zip(indices, source.read(indices), strict=True):
        require_finite(pixels, index)
        seen = pixels[~padding]
        if seen.size == 0 or seen.min() == seen.max():
            constant.append(index)
        else:
            kept.append((pixels, padding))
            places.append(source.places[index] if source.places is not None else None)
    if not kept:
        raise NoNoiseInSeriesError("every slice is constant")
    chosen = sample_of(len(kept))
    sample = [kept[index] for index in chosen]
    scaling, profile = measure_noise(
        unit_of(source.modality),
        [pixels for pixels, _ in sample],
        [padding for _, padding in sample],
        [None if index is None else kept[index] for index in acquired_again(places, chosen)],
    )
    if profile.sigma < LOWEST_SIGMA:
        raise NoNoiseInSeriesError(
            f"no noise can be measured: {profile.sigma:.1e} of the intensity range, "
            f"expected at least {LOWEST_SIGMA:.1e}"
        )
    # weight by the square root of the size, so that a long series does not dominate
    share = 1 / math.sqrt(sum(pixels.size for pixels, _ in kept))
    images = tuple(
        NoisyImage(
            torch.from_numpy(scaling.to_network(without_padding(pixels, padding))),
            profile,
            weight=pixels.size * share,
        )
        for pixels, padding in kept
    )
    return NoisySeries(source, profile, images, tuple(constant))


def require_large_enough(source: SeriesSource) -> None:
    """Refuse a series with a slice smaller than a patch.

    Raises:
        ImageTooSmallError: if a side is below SMALLEST_SIDE.
    """
    for index, (rows, columns) in enumerate(source.sizes):
        if min(rows, columns) < SMALLEST_SIDE:
            raise ImageTooSmallError(
                f"slice {index} has {rows} x {columns} pixels, "
                f"expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE}"
            )


def require_finite(pixels: Pixels, index: int) -> None:
    """Refuse infinite values and NaN.

    Raises:
        NotFiniteValuesError: if a pixel is infinite or not a number.
    """
    wrong = int((~np.isfinite(pixels)).sum())
    if wrong:
        raise NotFiniteValuesError(f"slice {index} has {wrong} values that are infinite or NaN")

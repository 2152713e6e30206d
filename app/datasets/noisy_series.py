"""One series of noisy images to train on: found in some format, read, checked, its noise measured.

Whatever the format, scaling and noise are found as the application finds them for a series that it
denoises (`measure_noise`): a bundle meets the numbers that it was trained on.
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
from stillscan.operators.denoising.denoise_series import measure_noise, sample_of
from stillscan.operators.denoising.repeats import acquired_again
from stillscan.operators.errors import NoNoiseInSeriesError
from stillscan.operators.volume import Place, Volume

SMALLEST_SIDE = 32  # pixels: the smallest patch that the networks can learn from
LOWEST_SIGMA = 0.02 / 255  # of the intensity range: below it there is nothing to measure

Pixels = Float32[np.ndarray, "row column"]
Padding = Bool[np.ndarray, "row column"]


@dataclass(frozen=True)
class SeriesSource:
    """A series that was found and not yet read.

    Attributes:
        name: what messages call it: a path below the folder, or a UID; it goes nowhere else.
        subject: tells subjects apart for the split; it is never shown.
        modality: Modality of DICOM; "" where the format does not say.
        sizes: rows and columns of every slice.
        read: slices at these indices in modality units, and where they are padding.
        origin: the DICOM series or the file it is read from; None where it is several files.
        places: of every slice; slices of one place are repeats. None where nobody knows.
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
        """In all slices."""
        return sum(rows * columns for rows, columns in self.sizes)


@dataclass(frozen=True)
class NoisySeries:
    """A series that was read.

    Attributes:
        source: where it came from.
        profile: of its noise, on the network's scale.
        images: of the slices that are used.
        constant: indices of slices that were left out because they show nothing.
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
        source.modality,
        [pixels for pixels, _ in sample],
        [padding for _, padding in sample],
        [None if index is None else kept[index] for index in acquired_again(places, chosen)],
    )
    if profile.sigma < LOWEST_SIGMA:
        raise NoNoiseInSeriesError(
            f"no noise can be measured: {profile.sigma:.1e} of the intensity range, "
            f"expected at least {LOWEST_SIGMA:.1e}"
        )
    # a series counts as the root of its size: a long one does not drown the others
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
    """Refuse a series with a slice that holds no patch.

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
    """Refuse values that no noise makes.

    Raises:
        NotFiniteValuesError: if a pixel is infinite or not a number.
    """
    wrong = int((~np.isfinite(pixels)).sum())
    if wrong:
        raise NotFiniteValuesError(f"slice {index} has {wrong} values that are infinite or NaN")


def without_padding(pixels: Pixels, padding: Padding) -> Pixels:
    """Padding replaced by the smallest real value, as for a series that is denoised."""
    return np.where(padding, pixels[~padding].min(), pixels) if padding.any() else pixels

"""Denoised pixels become stored values again: rounded and clipped here, once (W7, W12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer
from pydicom import Dataset

from stillscan.operators.dicom.attributes import integer_of
from stillscan.operators.errors import NotFinitePixelsError

Stored = Integer[np.ndarray, "row column"]


@dataclass(frozen=True)
class PixelFormat:
    """How one image stores its pixels (PS3.3 C.7.6.3): the derived image stores them the same way.

    Attributes:
        allocated: bits of a pixel cell, a multiple of 8.
        stored: bits of a value.
        signed: PixelRepresentation 1.
        padding: lowest and highest stored value that means "no pixel"; None without padding.
    """

    allocated: int
    stored: int
    signed: bool
    padding: tuple[int, int] | None = None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the pixel cells in the file."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def lowest(self) -> int:
        """The smallest value that the stored bits can hold."""
        return -(1 << (self.stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest value that the stored bits can hold."""
        return (1 << (self.stored - self.signed)) - 1


@dataclass(frozen=True)
class Change:
    """What became of the pixels of one image on their way to stored values.

    Attributes:
        real: number of pixels that are not padding.
        changed: number of pixels that differ from the source.
        clipped: number of pixels that did not fit into the stored bits, without as many at each
            end as the scanner had clipped there.
        mean_shift: mean of derived minus source over the real pixels, in modality units.
        low, high: of the source's real pixels in modality units, without the outermost 0.5 %.
    """

    real: int
    changed: int
    clipped: int
    mean_shift: float
    low: float
    high: float


def pixel_format(header: Dataset, padding: tuple[int, int] | None = None) -> PixelFormat:
    """The pixel format that a header describes, and what padding means in it."""
    allocated = integer_of(header, "BitsAllocated") or 16
    return PixelFormat(
        allocated=allocated,
        stored=integer_of(header, "BitsStored") or allocated,
        signed=integer_of(header, "PixelRepresentation") == 1,
        padding=padding,
    )


def store_slice(
    source: Stored,
    before: Float32[np.ndarray, "row column"],
    after: Float32[np.ndarray, "row column"],
    padding: Bool[np.ndarray, "row column"],
    slope: float,
    intercept: float,
    layout: PixelFormat,
) -> tuple[Stored, Change]:
    """Add what denoising changed to the stored values, in their own unit.

    Only the difference goes through the slope, so a pixel that was not changed keeps its stored
    value whatever the slope is. Rounding is half to even. Padding keeps its stored values, and no
    real pixel becomes padding. The lowest and the highest stored value stay as they are: there the
    scanner had clipped, and nothing is known of what was beyond.

    Args:
        source: stored values of the source.
        before: the source's pixels in modality units.
        after: the denoised pixels in modality units.
        padding: True where the source has no pixel.
        slope: RescaleSlope of this slice.
        intercept: RescaleIntercept of this slice.
        layout: how source and derived image store their pixels.

    Returns:
        The stored values of the derived image, and what became of its pixels.

    Raises:
        NotFinitePixelsError: if a denoised pixel is not a number.
    """
    if not np.isfinite(after).all():
        raise NotFinitePixelsError("the denoiser gave pixels that are not finite numbers")
    values = np.subtract(after, before, dtype=np.float64)
    values /= slope
    values += source
    np.rint(values, out=values)
    padded = int(np.count_nonzero(padding))
    if padded:
        np.copyto(values, layout.lowest, where=padding)  # padding may lie outside the stored bits
    clipped = _clip(values, source, ~padding, layout)
    if padded:
        np.copyto(values, source, where=padding)
    stored = values.astype(layout.dtype)
    if layout.padding is not None:
        _leave_padding_range(stored, source, padding, layout.padding)
    real = source.size - padded
    shift = (int(stored.sum(dtype=np.int64)) - int(source.sum(dtype=np.int64))) / max(real, 1)
    low, high = _range(source, padding)
    bounds = sorted((low * slope + intercept, high * slope + intercept))
    return stored, Change(
        real=real,
        changed=int(np.count_nonzero(stored != source)),
        clipped=clipped,
        mean_shift=shift * slope,
        low=bounds[0],
        high=bounds[1],
    )


def _clip(
    values: Float64[np.ndarray, "row column"],
    source: Stored,
    real: Bool[np.ndarray, "row column"],
    layout: PixelFormat,
) -> int:
    """Bring `values` into the range of the stored bits; how many more were outside than before."""
    clipped = 0
    for end, beyond in (
        (layout.lowest, values < layout.lowest),
        (layout.highest, values > layout.highest),
    ):
        saturated = (source == end) & real
        clipped += max(0, int(np.count_nonzero(beyond)) - int(np.count_nonzero(saturated)))
        values[beyond | saturated] = end
    return clipped


def _leave_padding_range(
    stored: Stored, source: Stored, padding: Bool[np.ndarray, "row column"], limits: tuple[int, int]
) -> None:
    """Move real pixels that fell among the padding values to the side that they came from."""
    low, high = limits
    fallen = (stored >= low) & (stored <= high) & ~padding & ((source < low) | (source > high))
    if fallen.any():
        stored[fallen] = np.where(source[fallen] > high, high + 1, low - 1)


def _range(source: Stored, padding: Bool[np.ndarray, "row column"]) -> tuple[float, float]:
    """Percentiles 0.5 and 99.5 of the real stored values, from about 4000 of them."""
    step = max(1, min(source.shape) // 64)
    sample = source[::step, ::step][~padding[::step, ::step]]
    if sample.size == 0:
        return 0.0, 0.0
    low, high = np.percentile(sample, (0.5, 99.5))
    return cast(float, low), cast(float, high)

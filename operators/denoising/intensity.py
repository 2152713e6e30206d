"""Conversion between modality units and network numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

HOUNSFIELD_RANGE = (-1024.0, 3071.0)
BRIGHT_QUANTILE = 0.999

Pixels = Float32[np.ndarray, "*shape"]


@dataclass(frozen=True)
class Scaling:
    """`y = (I - low) / (high - low)`, one per series, invertible, nothing clipped.

    0 means no signal, 1 about the brightest that the series shows; I in modality units.
    """

    low: float
    high: float

    @property
    def gain(self) -> float:
        """Network numbers per modality unit."""
        return 1 / (self.high - self.low)

    def to_network(self, pixels: Pixels) -> Pixels:
        """Convert modality units to network numbers."""
        return np.asarray((pixels - np.float32(self.low)) * np.float32(self.gain), np.float32)

    def to_modality(self, pixels: Pixels) -> Pixels:
        """Convert network numbers to modality units."""
        return np.asarray(pixels * np.float32(1 / self.gain) + np.float32(self.low), np.float32)


def scaling_for(unit: str, sample: Pixels) -> Scaling:
    """Return the scaling of a series, from its unit and a sample of its pixels (padding left out).

    HU: the Hounsfield scale, whose zero of signal is fixed. Others: 0 to the 99.9th percentile, or
    from the smallest value where the stored scale does not begin at 0.
    """
    if unit == "HU":
        return Scaling(*HOUNSFIELD_RANGE)
    low = min(0.0, float(sample.min()))
    high = float(np.quantile(sample, BRIGHT_QUANTILE))
    return Scaling(low, high if high > low else low + 1.0)


def without_padding(
    pixels: Float32[np.ndarray, "*slices row column"],
    padding: Bool[np.ndarray, "*slices row column"],
) -> Float32[np.ndarray, "*slices row column"]:
    """Replace padding by the smallest real value of its slice, so that no false edge stands there.

    A slice of padding alone stays as it is.
    """
    if not padding.any():
        return pixels
    smallest = np.where(padding, np.inf, pixels).min((-2, -1), keepdims=True)
    return np.where(padding & np.isfinite(smallest), smallest, pixels)

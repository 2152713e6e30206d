"""Random fields in space that make every generated brain different."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

Plane = Float32[np.ndarray, "row column"]
Axis = Float32[np.ndarray, " n"]
Point = tuple[Plane, Plane, Plane]  # z, y, x of every pixel of a plane

BOX_MM = ((-62.0, 90.0), (-116.0, 92.0), (-86.0, 86.0))  # z, y, x: the head with a margin


@dataclass(frozen=True)
class Field:
    """Values on a regular grid that fills `BOX_MM`, interpolated linearly.

    Attributes:
        values: on the grid.
        step_mm: distance of the grid points.
    """

    values: Float32[np.ndarray, "z y x"]
    step_mm: float

    def on_plane(self, z: float, y: Axis, x: Axis) -> Plane:
        """Return the field on an axial plane, one axis after the other."""
        level = self._along(self.values, np.array([z], np.float32), 0)[0]
        rows = self._along(level, y, 1)
        return np.ascontiguousarray(self._along(rows.T, x, 2).T)

    def at(self, point: tuple[Axis, Axis, Axis]) -> Axis:
        """Return the field at single points."""
        index = [
            (position - low) / self.step_mm
            for position, (low, _) in zip(point, BOX_MM, strict=True)
        ]
        found: Axis = ndimage.map_coordinates(self.values, index, order=1, mode="nearest")
        return found

    def _along(self, values: np.ndarray, position: Axis, axis: int) -> np.ndarray:
        """Interpolate the first axis of `values`, which is axis `axis` of the field."""
        low, _ = BOX_MM[axis]
        index = np.clip((position - low) / self.step_mm, 0, len(values) - 1.001)
        below = index.astype(int)
        share = (index - below).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        return values[below] * (1 - share) + values[below + 1] * share


def grid_axes(step_mm: float) -> tuple[Axis, Axis, Axis]:
    """Return the z, y and x positions of the grid points of a field."""
    z, y, x = (np.arange(low, high + step_mm, step_mm, dtype=np.float32) for low, high in BOX_MM)
    return z, y, x


def smooth_field(rng: np.random.Generator, width_mm: float, step_mm: float) -> Field:
    """White noise blurred by a Gaussian of standard deviation `width_mm`; mean 0, deviation 1."""
    return _shaped(rng, step_mm, lambda k: np.exp(-((2 * np.pi * k * width_mm) ** 2) / 2) * (k > 0))


def wavy_field(
    rng: np.random.Generator, wavelength_mm: float, spread: float, step_mm: float
) -> Field:
    """White noise in a band about one wavelength: its zero set is a labyrinth of even spacing."""
    peak = 1 / wavelength_mm
    return _shaped(rng, step_mm, lambda k: np.exp(-((k - peak) ** 2) / (2 * (spread * peak) ** 2)))


def _shaped(
    rng: np.random.Generator, step_mm: float, transfer: Callable[[np.ndarray], np.ndarray]
) -> Field:
    shape = tuple(len(axis) for axis in grid_axes(step_mm))
    kz, ky = (np.fft.fftfreq(size, step_mm) for size in shape[:2])
    kx = np.fft.rfftfreq(shape[2], step_mm)
    k = np.sqrt(kz[:, None, None] ** 2 + ky[None, :, None] ** 2 + kx[None, None, :] ** 2)
    spectrum = np.fft.rfftn(rng.standard_normal(shape)) * transfer(k)
    values = np.fft.irfftn(spectrum, shape, axes=(0, 1, 2))
    return Field((values / values.std()).astype(np.float32), step_mm)

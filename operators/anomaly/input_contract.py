"""How images become those of an anomaly bundle: orientation, spacing, size and intensity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from stillscan.operators.geometry import Plane

Orientation = Literal["axial", "sagittal", "coronal", "unknown"]
Stack = Float32[np.ndarray, "slice row column"]

BRIGHT = 0.995  # quantile of the foreground that becomes 1
DARK = 0.1  # of the brightest: below it is no foreground
BRIGHTEST = 1.5  # values above are cut
UPRIGHT = {  # directions of the columns and rows of a bundle's grid, LPS
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
}


@dataclass(frozen=True)
class InputContract:
    """The images that a bundle was trained on.

    Attributes:
        modality: DICOM Modality.
        orientation: of the slices; "unknown" where the training images do not state it.
        size: height and width of the grid.
        spacing_mm: of its pixels; those of images without a geometry count as 1 mm.
        window: values that become 0 and 1 (CT); None: 0 and a bright quantile of each series.
        body_parts: BodyPartExamined of the training images, in upper case; empty: not known.
    """

    modality: str
    orientation: Orientation
    size: int
    spacing_mm: float
    window: tuple[float, float] | None
    body_parts: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> InputContract:
        """Return the contract that `dataclasses.asdict` described."""
        window = described["window"]
        return cls(
            **described
            | {
                "window": None if window is None else tuple(window),
                "body_parts": tuple(described["body_parts"]),
            }
        )

    def window_of(self, sample: Stack) -> tuple[float, float]:
        """Return the values of a series that become 0 and 1, from a sample of its slices."""
        return self.window or (0.0, bright_of(sample))

    def to_model(
        self, pixels: Stack, plane: Plane, window: tuple[float, float]
    ) -> Float[Tensor, "slice 1 size size"]:
        """Return slices of one plane's orientation on the grid of the bundle.

        Args:
            pixels: in modality units.
            plane: of any of the slices: directions and spacing.
            window: of the series.
        """
        low, high = window
        images = (
            torch.from_numpy((pixels - low) / (high - low)).float().clamp(0, BRIGHTEST)[:, None]
        )
        # a coarser grid: average first, so that nothing is skipped
        shrink = [max(1, math.floor(self.spacing_mm / mm)) for mm in plane.spacing_mm]
        small = F.avg_pool2d(images, shrink, ceil_mode=True, count_include_pad=False)
        across, down = self._axes(plane)
        rows, columns = pixels.shape[-2:]
        steps = self.spacing_mm * (torch.arange(self.size) - (self.size - 1) / 2)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        column = (x * across[0] + y * down[0]) / plane.spacing_mm[1] + (columns - 1) / 2
        row = (x * across[1] + y * down[1]) / plane.spacing_mm[0] + (rows - 1) / 2
        column = (column - (shrink[1] - 1) / 2) / shrink[1]
        row = (row - (shrink[0] - 1) / 2) / shrink[0]
        return _sampled(small, column, row)

    def to_image(
        self, maps: Float[Tensor, "slice 1 size size"], plane: Plane, rows: int, columns: int
    ) -> Stack:
        """Return maps of the grid on the pixels of the image; 0 outside the grid."""
        across, down = self._axes(plane)
        y, x = torch.meshgrid(
            plane.spacing_mm[0] * (torch.arange(rows) - (rows - 1) / 2),
            plane.spacing_mm[1] * (torch.arange(columns) - (columns - 1) / 2),
            indexing="ij",
        )
        middle = (self.size - 1) / 2
        column = (x * across[0] + y * across[1]) / self.spacing_mm + middle
        row = (x * down[0] + y * down[1]) / self.spacing_mm + middle
        return _sampled(maps, column, row)[:, 0].numpy()

    def _axes(self, plane: Plane) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the directions of the grid's columns and rows along (plane.across, plane.down)."""
        if self.orientation == "unknown" or plane.position is None:
            return (1.0, 0.0), (0.0, 1.0)
        first, second = UPRIGHT[self.orientation]
        x, y = np.dot(first, plane.across), np.dot(first, plane.down)
        x, y = float(x) / math.hypot(x, y), float(y) / math.hypot(x, y)
        turned = np.dot(second, plane.across) * -y + np.dot(second, plane.down) * x
        sign = 1.0 if turned > 0 else -1.0
        return (x, y), (-y * sign, x * sign)


def orientation_of(plane: Plane) -> Orientation:
    """Return the orientation that is nearest to a plane's."""
    if plane.position is None:
        return "unknown"
    normal = np.abs(np.cross(plane.across, plane.down))
    named: tuple[Orientation, ...] = ("sagittal", "coronal", "axial")
    return named[int(normal.argmax())]


def bright_of(pixels: Stack) -> float:
    """Return the bright quantile of what is above DARK of the brightest; 1 of empty images."""
    foreground = pixels[pixels > DARK * float(np.quantile(pixels, BRIGHT))]
    return float(np.quantile(foreground, BRIGHT)) if foreground.size else 1.0


def _sampled(images: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Interpolate linearly at these pixels; 0 outside."""
    height, width = images.shape[-2:]
    x = 2 * column / max(width - 1, 1) - 1
    y = 2 * row / max(height - 1, 1) - 1
    grid = torch.stack([x, y], -1).float()[None].expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=True)

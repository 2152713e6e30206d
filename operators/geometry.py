"""Geometry of a series in the patient: the plane of each image, and one affine for all.

DICOM coordinates increase towards the patient's left, back and head (LPS), NIfTI coordinates
towards right, front and head (RAS); both in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stillscan.operators.errors import NotOneVolumeError

UNEVEN = 0.01  # tolerance for rounded positions, as a share of the slice step or of a pixel
SAME_DIRECTION = 1e-3  # of direction cosines
SAME_PLACE_MM = 1e-3
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Vector = tuple[float, float, float]
Affine = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True)
class Plane:
    """Position and orientation of an image (PS3.3 C.7.6.2), in mm, patient coordinates.

    Attributes:
        position: of the centre of the first pixel; None if the image has no geometry.
        across: direction of a row, in which the column index grows.
        down: direction of a column, in which the row index grows.
        spacing_mm: between rows, between columns (PixelSpacing).
        thickness_mm: SliceThickness, 1 if the header does not state it.
    """

    position: Vector | None = None
    across: Vector = (1.0, 0.0, 0.0)
    down: Vector = (0.0, 1.0, 0.0)
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    thickness_mm: float = 1.0


NOWHERE = Plane()  # of an image without geometry


def affine_lps(planes: Sequence[Plane]) -> Affine:
    """Return the affine from (column, row, slice) to the patient's mm, LPS (PS3.3 C.7.6.2.1.1).

    The equation of the standard with a third column: the step from slice to slice, which is that of
    the positions; for a single image, its thickness along the normal. Images without geometry are
    placed in the plane of the first two axes, one thickness apart.

    Args:
        planes: of all slices, in the order in which the third index counts them.

    Raises:
        NotOneVolumeError: if the slices are not parallel, or not evenly spaced.
    """
    first = planes[0]
    if any(each.position is None for each in planes):
        planes = [_nowhere(first, index) for index in range(len(planes))]
        first = planes[0]
    origins = np.array([each.position for each in planes], np.float64)
    step = np.cross(first.across, first.down) * first.thickness_mm
    if len(planes) > 1:
        step = (origins[-1] - origins[0]) / (len(planes) - 1)
        _require_even_stack(planes, origins, step)
    between_rows, between_columns = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.across, between_columns)
    affine[:3, 1] = np.multiply(first.down, between_rows)
    affine[:3, 2] = step
    affine[:3, 3] = origins[0]
    return affine


def affine_ras(planes: Sequence[Plane]) -> Affine:
    """Return the affine from (column, row, slice) to mm in RAS, as in NIfTI.

    Raises:
        NotOneVolumeError: if the slices are not parallel, or not evenly spaced.
    """
    return LPS_TO_RAS @ affine_lps(planes)


def _nowhere(like: Plane, index: int) -> Plane:
    """Return the plane assumed for an image without geometry."""
    z = index * like.thickness_mm
    return Plane((0.0, 0.0, z), spacing_mm=like.spacing_mm, thickness_mm=like.thickness_mm)


def _require_even_stack(
    planes: Sequence[Plane], origins: Float64[np.ndarray, "slice 3"], step: np.ndarray
) -> None:
    """Refuse repeated positions, several stacks, gaps, turned slices and other pixels."""
    first, length = planes[0], float(np.linalg.norm(step))
    if length < SAME_PLACE_MM:
        raise NotOneVolumeError(f"the first and the last of {len(planes)} slices coincide")
    directions = np.array([(*each.across, *each.down) for each in planes])
    spacings = np.array([each.spacing_mm for each in planes])
    expected = origins[0] + np.arange(len(planes))[:, None] * step
    off_mm = np.linalg.norm(origins - expected, axis=1)
    for wrong, what in (
        (np.abs(directions - directions[0]).max(1) > SAME_DIRECTION, "is turned"),
        (np.abs(spacings / spacings[0] - 1).max(1) > UNEVEN, "has another pixel spacing"),
        (off_mm > UNEVEN * max(length, min(first.spacing_mm)), "is not where it should be"),
    ):
        if wrong.any():
            index = int(wrong.argmax())
            raise NotOneVolumeError(
                f"slice {index + 1} of {len(planes)} {what} ({off_mm[index]:.3g} mm from where an "
                "even stack has it): the series does not form one array with one affine"
            )

"""A folder with one DICOM series as a `Volume`, and where its slices lie in a viewer's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from pydicom import Dataset

from stillscan.deploy.monailabel.errors import NotChosenError, NotOneVolumeError
from stillscan.operators.errors import NothingToDoError, input_error
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume, VolumeBlock

UNEVEN = 0.01  # of the step between slices, or of a pixel: what rounded positions may be off
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Vector = tuple[float, float, float]
Affine = Float64[np.ndarray, "4 4"]


class NoSeriesError(NothingToDoError):
    """The folder holds no series of images, or more than one."""

    reason = "no-series"


@dataclass(frozen=True)
class Plane:
    """Where one image lies (PS3.3 C.7.6.2), patient coordinates in mm.

    Attributes:
        position: of the centre of the first pixel; None where the image has no geometry.
        across: direction of a row, in which the column counts up.
        down: direction of a column.
        spacing_mm: between rows, between columns.
    """

    position: Vector | None
    across: Vector = (1.0, 0.0, 0.0)
    down: Vector = (0.0, 1.0, 0.0)
    spacing_mm: tuple[float, float] = (1.0, 1.0)


def read_volume(folder: Path, decoder: Decoder, rules: SelectionRules) -> Volume:
    """The one series of a folder.

    Raises:
        NoSeriesError: if there is none, or more than one.
        NotChosenError: if the rules do not choose it.
        InputError: why the series, or one of its files, is refused.
    """
    catalogue = find_series(folder, decoder, rules)
    if catalogue.refused:  # it may be a part of the series: no result with fewer slices
        refusal = catalogue.refused[0]
        if refusal.by_rules:
            raise NotChosenError(f"{refusal.reason}: {refusal.message}")
        raise input_error(refusal.reason, refusal.message)
    if not catalogue.candidates:
        raise NoSeriesError("found no DICOM image")
    if len(catalogue.candidates) > 1:
        raise NoSeriesError(f"found {len(catalogue.candidates)} series, expected one")
    return read_series(catalogue.candidates[0], decoder)


def planes_of(block: VolumeBlock) -> list[Plane]:
    """Where the slices of a block lie."""
    slices = block.volume.slices[block.start : block.stop]
    return [
        _plane(header, slice_.frame) for header, slice_ in zip(block.headers, slices, strict=True)
    ]


def _plane(header: Dataset, frame: int) -> Plane:
    """Of a classic image, or of a frame whose functional groups say it (PS3.3 C.7.6.16.2)."""
    groups = _groups(header, frame)
    position = _first(groups, "PlanePositionSequence").get("ImagePositionPatient")
    orientation = _first(groups, "PlaneOrientationSequence").get("ImageOrientationPatient")
    measures = _first(groups, "PixelMeasuresSequence")
    spacing = measures.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1.0, 1.0)
    spacing_mm = float(spacing[0]), float(spacing[1])
    if not position or not orientation:
        return Plane(None, spacing_mm=spacing_mm)
    x, y, z, u, v, w = (float(each) for each in orientation)
    return Plane(_vector(position), (x, y, z), (u, v, w), spacing_mm)


def _groups(header: Dataset, frame: int) -> list[Dataset]:
    """Where attributes of a frame may stand, the nearest first."""
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [*own[frame : frame + 1], *shared[:1], header]


def _first(groups: Sequence[Dataset], keyword: str) -> Dataset:
    """The item of a functional group; of a classic image, its data set."""
    for group in groups[:-1]:
        if group.get(keyword):
            item: Dataset = group[keyword].value[0]
            return item
    return groups[-1]


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = (float(each) for each in values)
    return x, y, z


def affine_of(planes: Sequence[Plane]) -> Affine:
    """Affine of the image [column, row, slice] to right, anterior, superior in mm, as NIfTI has it.

    Images without geometry lie in the first two axes, 1 mm behind each other.

    Raises:
        NotOneVolumeError: if the slices are not one even stack.
    """
    first = planes[0]
    origins = [np.asarray(each.position or (0.0, 0.0, index)) for index, each in enumerate(planes)]
    across, down = np.asarray(first.across), np.asarray(first.down)
    step = np.cross(across, down)
    if len(planes) > 1:
        step = (origins[-1] - origins[0]) / (len(planes) - 1)
    _require_one_stack(planes, origins, step)
    affine = np.eye(4)
    affine[:3, 0] = across * first.spacing_mm[1]
    affine[:3, 1] = down * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = origins[0]
    return LPS_TO_RAS @ affine


def _require_one_stack(
    planes: Sequence[Plane], origins: Sequence[np.ndarray], step: np.ndarray
) -> None:
    """Refuse repetitions, several stacks, gaps and turned slices."""
    first, length = planes[0], float(np.linalg.norm(step))
    for index, (plane, origin) in enumerate(zip(planes, origins, strict=True)):
        off = float(np.linalg.norm(origin - origins[0] - index * step))
        turned = not np.allclose(
            (*plane.across, *plane.down), (*first.across, *first.down), 0, 1e-3
        )
        # a step of no length: all images at one place
        if turned or length < 1e-3 or off > UNEVEN * max(length, min(first.spacing_mm)):
            raise NotOneVolumeError(
                f"slice {index + 1} of {len(planes)} is {off:.3g} mm away from where an even stack "
                f"has it{' or turned' if turned else ''}: a viewer's image cannot hold this "
                "series; ask for the derived series instead (store)"
            )

"""Makes a `Volume` of an array, so that images without DICOM files use the same pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset

from stillscan.operators.geometry import Plane
from stillscan.operators.volume import Place, SliceHeader, Volume

Stack = Float32[np.ndarray, "slice row column"]


def array_volume(
    stack: Stack,
    modality: str,
    places: Sequence[Place | None],
    unit: str = "1",
    spacing_mm: tuple[float, float] = (1.0, 1.0),
) -> Volume:
    """Return the slices of an array as a series without DICOM headers.

    Args:
        stack: finite values, in `unit`; Hounsfield units for CT.
        modality: DICOM Modality.
        places: of each slice; slices of one place are repeated acquisitions, None for an unknown
            place.
        unit: of the values.
        spacing_mm: between rows, between columns.
    """
    slices, rows, columns = stack.shape
    return Volume(
        study_instance_uid="",
        series_instance_uid="image",
        sop_class_uid="",
        modality=modality,
        rows=rows,
        columns=columns,
        unit=unit,
        slices=tuple(
            SliceHeader(
                Path("image"),
                index,
                "",
                None,
                None,
                slope=1.0,
                intercept=0.0,
                place=places[index],
                plane=Plane(spacing_mm=spacing_mm),
            )
            for index in range(slices)
        ),
        reader=_StackReader(stack),
    )


@dataclass(frozen=True)
class _StackReader:
    """A `SliceReader` of an array in memory; its headers are empty."""

    stack: Stack

    def read(self, slices: Sequence[SliceHeader]) -> tuple[list[Dataset], np.ndarray]:
        """Return empty headers and the values of these slices."""
        return [Dataset()] * len(slices), self.stack[[each.frame for each in slices]]

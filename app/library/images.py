"""Images without a DICOM header as a stack of slices, and results in the form of their source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from stillscan.app.datasets.errors import (
    ImageTooSmallError,
    NotFiniteValuesError,
    UnsupportedArrayError,
)
from stillscan.operators.array_volume import array_volume
from stillscan.operators.errors import SettingsError
from stillscan.operators.volume import Volume, unit_of

SMALLEST_SIDE = 16  # pixels: below it there is no noise to measure

Stack = Float32[np.ndarray, "slice row column"]


class ModalityUnknownError(SettingsError):
    """Neither the image nor its reader says which modality it is."""

    reason = "modality-unknown"


class SpacingUnknownError(SettingsError):
    """A CT image without the distance of its pixels."""

    reason = "spacing-unknown"


@dataclass(frozen=True)
class StackedImage:
    """An image without a DICOM header.

    Attributes:
        stack: its slices; those of the first acquisition, then those of the next.
        repeats: how often the same places were acquired.
        spacing_mm: between rows, between columns; None where it is not known.
        restore: gives a stack of the same shape the form of the source.
        is_nifti: whether that is an image of nibabel.
    """

    stack: Stack
    repeats: int
    spacing_mm: tuple[float, float] | None
    restore: Callable[[Stack], Any]
    is_nifti: bool = False

    def volume(self, modality: str | None) -> Volume:
        """Return the image as a series that can be denoised.

        Args:
            modality: DICOM Modality, such as "MR"; values of CT are Hounsfield units.

        Raises:
            ModalityUnknownError: if there is no modality.
            SpacingUnknownError: if the image is CT and its spacing is not known.
            ImageTooSmallError: if a side is below SMALLEST_SIDE.
            NotFiniteValuesError: if a value is infinite or not a number.
        """
        if not modality:
            raise ModalityUnknownError(
                "the modality of the image is not known: give it, such as MR"
            )
        if modality == "CT" and self.spacing_mm is None:
            raise SpacingUnknownError("CT needs the spacing of rows and columns in mm")
        slices, rows, columns = self.stack.shape
        if min(rows, columns) < SMALLEST_SIDE or not slices:
            raise ImageTooSmallError(
                f"the image has {slices} slices of {rows} x {columns} pixels, expected at least "
                f"one of {SMALLEST_SIDE} x {SMALLEST_SIDE}"
            )
        wrong = int((~np.isfinite(self.stack)).sum())
        if wrong:
            raise NotFiniteValuesError(f"the image has {wrong} values that are infinite or NaN")
        places = [(index % (slices // self.repeats),) for index in range(slices)]
        spacing_mm = self.spacing_mm or (1.0, 1.0)
        return array_volume(self.stack, modality, places, unit_of(modality), spacing_mm)


def stacked_array(values: np.ndarray, spacing: Sequence[float] | None) -> StackedImage:
    """Return an array [row, column], [slice, row, column] or [repeat, slice, row, column].

    Args:
        values: in modality units.
        spacing: in mm; its last two numbers are those between rows and between columns.

    Raises:
        UnsupportedArrayError: if it has another number of axes, or does not hold real numbers.
    """
    if values.ndim not in (2, 3, 4) or values.dtype.kind not in "iuf":
        raise UnsupportedArrayError(
            f"an array of {values.ndim} axes and type {values.dtype}, expected real numbers on "
            "[row, column], [slice, row, column] or [repeat, slice, row, column]"
        )
    stack = np.ascontiguousarray(values, np.float32).reshape(-1, *values.shape[-2:])
    repeats = len(values) if values.ndim == 4 else 1
    spacing_mm = None if spacing is None else (float(spacing[-2]), float(spacing[-1]))
    return StackedImage(stack, repeats, spacing_mm, lambda result: result.reshape(values.shape))


def stacked_tensor(values: Any, spacing: Sequence[float] | None) -> StackedImage:
    """Return a tensor of torch as `stacked_array` does; results are on its device, float32.

    Raises:
        UnsupportedArrayError: as `stacked_array`.
    """
    import torch

    plain = values.detach().cpu()
    numbers = plain.float() if plain.is_floating_point() else plain  # NumPy has no bfloat16
    image = stacked_array(numbers.numpy(), spacing)

    def restore(result: Stack) -> Any:
        return torch.from_numpy(image.restore(result)).to(values.device)

    return replace(image, restore=restore)

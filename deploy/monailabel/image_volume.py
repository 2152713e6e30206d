"""Converts an image of a viewer, an array [i, j, k] with an affine, to a `Volume`, and back.

The slices are the planes [i, j]: i counts columns and j rows, as in the DICOM series that the file
was made from, so the network sees the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stillscan.app.datasets.errors import ImageTooSmallError, NotFiniteValuesError
from stillscan.deploy.monailabel.errors import UnsupportedFileError
from stillscan.operators.array_volume import array_volume
from stillscan.operators.volume import Volume, unit_of

NIFTI = (".nii", ".nii.gz")
SUFFIXES = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")
SMALLEST_SIDE = 16  # pixels: below it there is no noise to measure

Stack = Float32[np.ndarray, "slice row column"]
Image = Float32[np.ndarray, "i j *more"]


def suffix_of(path: str) -> str:
    """The suffix of a supported file, such as ".nii.gz".

    Raises:
        UnsupportedFileError: if the format is not supported.
    """
    name = Path(path).name.lower()
    found = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    if not found:
        raise UnsupportedFileError(
            f"files of type '{Path(path).suffix}' are not read, expected a folder of DICOM files "
            f"or one of {', '.join(SUFFIXES)}"
        )
    return max(found, key=len)


def stack_of(image: Image) -> Stack:
    """All planes [i, j] of an image as [slice, row, column]; axes after the second count slices."""
    columns, rows = image.shape[:2]
    return np.ascontiguousarray(image.reshape(columns, rows, -1).transpose(2, 1, 0))


def image_of(stack: Stack, shape: Sequence[int]) -> Image:
    """The inverse of `stack_of`: an image of this shape."""
    return np.ascontiguousarray(stack.transpose(2, 1, 0)).reshape(tuple(shape))


def volume_of(image: Image, modality: str, spacing_mm: tuple[float, float] = (1.0, 1.0)) -> Volume:
    """Convert an image to a volume that can be denoised.

    Args:
        image: in any unit; CT in Hounsfield units.
        modality: DICOM Modality, which the file does not contain.
        spacing_mm: between rows, between columns.

    Raises:
        UnsupportedFileError: if it has no rows and columns.
        ImageTooSmallError: if a side is below SMALLEST_SIDE.
        NotFiniteValuesError: if a value is infinite or not a number.
    """
    if image.ndim < 2 or 0 in image.shape:
        raise UnsupportedFileError(f"the image has the shape {image.shape}, expected rows, columns")
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise ImageTooSmallError(
            f"the image has {image.shape[1]} x {image.shape[0]} pixels, expected at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE}"
        )
    wrong = int((~np.isfinite(image)).sum())
    if wrong:
        raise NotFiniteValuesError(f"the image has {wrong} values that are infinite or NaN")
    stack = stack_of(image)
    slices = len(stack)
    times = math.prod(image.shape[3:])  # how often each slice is there, one after the other
    places = [(index // times,) for index in range(slices)]
    return array_volume(stack, modality, places, unit_of(modality), spacing_mm)

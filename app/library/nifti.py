"""NIfTI images of nibabel: as slices in a scanner's order, and files."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stillscan.app.datasets.errors import UnsupportedArrayError
from stillscan.app.datasets.noisy_files import nifti_of
from stillscan.app.library.images import Stack, StackedImage
from stillscan.operators.errors import SettingsError
from stillscan.operators.output_faults import naming_output_faults

MM = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}  # units of length of the header
AS_SCANNERS = np.array([1.0, 1.0, -1.0])  # LPS: rows and columns run to the left, back and feet


def read_nifti(path: Path) -> Any:
    """Open a NIfTI file.

    Raises:
        SettingsError: if there is no such file.
        DamagedFileError: if it is none.
    """
    if not path.exists() and not path.is_symlink():
        raise SettingsError(f"input {path} does not exist")
    return nifti_of(path)


def write_nifti(image: Any, path: Path) -> None:
    """Write an image of nibabel, complete or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    suffix = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
    with naming_output_faults(f"write {path.name}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".stillscan-", dir=path.parent) as staging:
            staged = Path(staging) / f"image{suffix}"
            image.to_filename(staged)
            staged.rename(path)


def stacked_voxels(
    values: np.ndarray, affine: np.ndarray, spacing_mm: tuple[float, float]
) -> StackedImage:
    """Return voxels with a RAS affine as a scanner's DICOM series would have its slices.

    The planes of the first two axes are slices, the third axis counts them, later ones repeats.
    Rows and columns are turned to run to the left, the back or the feet and slices along their
    normal, as in DICOM: so the network sees the pixels that it sees in the series.

    Args:
        values: at least two axes, real numbers in modality units.
        affine: from the first three axes to mm, or any matrix with the same directions.
        spacing_mm: between rows (along the second axis), between columns.

    Returns:
        The slices; `restore` gives an array of the shape of `values`.

    Raises:
        UnsupportedArrayError: if there are fewer than two axes, or no real numbers.
    """
    shape = values.shape
    if len(shape) < 2 or values.dtype.kind not in "iuf" or 0 in shape:
        raise UnsupportedArrayError(
            f"an image of shape {shape} and type {values.dtype}, expected planes of real numbers"
        )
    columns, rows, slices = (*shape, 1)[:3]
    flipped = _flipped(np.asarray(affine, float)[:3, :3])
    voxels = values.astype(np.float32, copy=False).reshape(columns, rows, slices, -1)
    stack = np.ascontiguousarray(np.flip(voxels, flipped).transpose(3, 2, 1, 0))

    def restore(result: Stack) -> np.ndarray:
        turned = result.reshape(stack.shape).transpose(3, 2, 1, 0)
        return np.ascontiguousarray(np.flip(turned, flipped)).reshape(shape)

    return StackedImage(stack.reshape(-1, rows, columns), len(stack), spacing_mm, restore)


def stacked_nifti(image: Any) -> StackedImage:
    """Return a NIfTI image of nibabel as `stacked_voxels` does; results are images like it.

    Raises:
        UnsupportedArrayError: as `stacked_voxels`.
    """
    kind = image.get_data_dtype().kind
    values = np.asarray(image.dataobj, np.float32 if kind in "iuf" else None)
    unit_mm = MM.get(image.header.get_xyzt_units()[0], 1.0)
    across, down = (float(each) * unit_mm for each in (*image.header.get_zooms(), 1.0, 1.0)[:2])
    voxels = stacked_voxels(values, image.affine, (down, across))

    def restore(result: Stack) -> Any:
        return nifti_like(image, voxels.restore(result))

    return replace(voxels, restore=restore, is_nifti=True)


def nifti_like(image: Any, values: np.ndarray) -> Any:
    """Return a NIfTI image of float32 values with the header and affine of another."""
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    return type(image)(np.ascontiguousarray(values, np.float32), image.affine, header)


def _flipped(directions: np.ndarray) -> tuple[int, ...]:
    """Return the axes of a RAS affine that run against those of a scanner's series."""
    if not np.isfinite(directions).all() or np.linalg.matrix_rank(directions) < 3:
        return ()
    lps = (directions / np.linalg.norm(directions, axis=0)) * np.array([[-1.0], [-1.0], [1.0]])
    axes = []
    for axis in (0, 1):
        main = int(np.abs(lps[:, axis]).argmax())
        if lps[main, axis] * AS_SCANNERS[main] < 0:
            axes.append(axis)
            lps[:, axis] *= -1
    if np.cross(lps[:, 0], lps[:, 1]) @ lps[:, 2] < 0:
        axes.append(2)
    return tuple(axes)

"""Where results of `configs/inference.yaml` go: NIfTI for DICOM and NIfTI, npz for all else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stillscan.app.datasets.noisy_files import NIFTI, SUFFIXES
from stillscan.app.datasets.noisy_series import Pixels, SeriesSource
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.volume import Volume
from stillscan.operators.writing.companions.parametric_maps import sources_of

MILLIMETRES_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's x goes left and y back


def save_result(
    source: SeriesSource, slices: Sequence[Pixels], folder: Path, what: str
) -> list[Path]:
    """Write one series; gives the file.

    DICOM becomes NIfTI with the series' geometry; NIfTI keeps its shape, affine and header; npz and
    PNG become npz: `slices` [slice, row, column], or one array per slice where sizes differ.

    Args:
        source: that was denoised.
        slices: of the result.
        folder: made if needed.
        what: the end of the file's name: `denoised`, `spread`.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"{_stem(source)}_{what}"
        origin = source.origin
        if isinstance(origin, Volume) or (origin and origin.name.lower().endswith(NIFTI)):
            path = stem.with_name(stem.name + ".nii.gz")
            _save_nifti(origin, np.stack(slices), path)
            return [path]
        path = stem.with_name(stem.name + ".npz")
        if len({each.shape for each in slices}) == 1:
            np.savez_compressed(path, slices=np.stack(slices))
        else:
            named = {f"slice_{number:04d}": each for number, each in enumerate(slices)}
            np.savez_compressed(path, **named)  # type: ignore[arg-type]
        return [path]


def affine_of(volume: Volume) -> np.ndarray:
    """From (column, row, slice) to millimetres right, front, up; `eye` where nothing is said.

    Slices are taken to be evenly spaced from the first to the last (NIfTI knows nothing else).
    """
    last = len(volume.slices) - 1
    first, end = (sources_of(volume.read(index, index + 1))[0] for index in (0, last))
    if not all("ImagePositionPatient" in each and "PixelSpacing" in each for each in (first, end)):
        return np.eye(4)
    rows, columns = np.reshape(np.array(first.ImageOrientationPatient, float), (2, 3))
    down, right = (float(each) for each in first.PixelSpacing)
    place, end_place = (np.array(each.ImagePositionPatient, float) for each in (first, end))
    step = (end_place - place) / last if last else np.zeros(3)
    if not step.any():
        step = np.cross(rows, columns) * float(first.get("SliceThickness") or 1.0)
    affine = np.eye(4)
    affine[:3] = np.column_stack([rows * right, columns * down, step, place])
    return MILLIMETRES_TO_RAS @ affine


def _save_nifti(origin: Volume | Path, stack: np.ndarray, path: Path) -> None:
    import nibabel

    if isinstance(origin, Volume):
        image = nibabel.Nifti1Image(stack.transpose(2, 1, 0), affine_of(origin))
    else:
        before = nibabel.load(origin)
        values = np.moveaxis(stack, 0, -1).reshape(before.shape)
        header = before.header.copy()
        header.set_data_dtype(np.float32)
        header.set_slope_inter(1, 0)
        image = nibabel.Nifti1Image(values, before.affine, header)
    nibabel.save(image, path)


def _stem(source: SeriesSource) -> str:
    name = source.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):  # .nii.gz before .nii
        name = name.replace(suffix, "")
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") or "series"

"""Writes results of `configs/inference.yaml`: NIfTI for DICOM and NIfTI, npz otherwise."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillscan.app.datasets.noisy_files import NIFTI, SUFFIXES
from stillscan.app.datasets.noisy_series import Pixels, SeriesSource
from stillscan.app.library.nifti import nifti_like
from stillscan.operators.errors import NotOneVolumeError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.volume import Volume

if TYPE_CHECKING:
    import nibabel

log = logging.getLogger("stillscan")


def save_result(
    source: SeriesSource, slices: Sequence[Pixels], folder: Path, what: str
) -> list[Path]:
    """Write one series and return the files.

    DICOM becomes NIfTI with the series' geometry; NIfTI keeps its shape, affine and header; npz,
    PNG and DICOM without evenly spaced slices become npz: `slices` [slice, row, column], or one
    array per slice where sizes differ.

    Args:
        source: the series that was denoised.
        slices: slices of the result.
        folder: output folder, created if needed.
        what: end of the file's name: `denoised`, `spread`.

    Raises:
        OutputError: if it cannot be written.
    """
    with naming_output_faults(f"write into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"{_stem(source)}_{what}"
        image = _nifti(source.origin, slices)
        if image is not None:
            path = stem.with_name(stem.name + ".nii.gz")
            image.to_filename(path)
            return [path]
        path = stem.with_name(stem.name + ".npz")
        if len({each.shape for each in slices}) == 1:
            np.savez_compressed(path, slices=np.stack(slices))
        else:
            named = {f"slice_{number:04d}": each for number, each in enumerate(slices)}
            np.savez_compressed(path, **named)  # type: ignore[arg-type]
        return [path]


def _nifti(origin: Volume | Path | None, slices: Sequence[Pixels]) -> nibabel.Nifti1Image | None:
    """Build a NIfTI image with the slices' geometry; None if NIfTI cannot represent it."""
    if isinstance(origin, Volume):
        return _nifti_of_series(origin, slices)
    if origin is not None and origin.name.lower().endswith(NIFTI):
        return _nifti_like(origin, slices)
    return None


def _nifti_of_series(volume: Volume, slices: Sequence[Pixels]) -> nibabel.Nifti1Image | None:
    import nibabel

    try:
        affine = volume.affine_ras
    except NotOneVolumeError as error:
        log.warning("written as npz, without geometry: %s", error)
        return None
    return nibabel.Nifti1Image(np.stack(slices).transpose(2, 1, 0), affine)


def _nifti_like(file: Path, slices: Sequence[Pixels]) -> nibabel.Nifti1Image:
    import nibabel

    before = nibabel.load(file)
    values = np.moveaxis(np.stack(slices), 0, -1).reshape(before.shape)
    return nifti_like(before, values)


def _stem(source: SeriesSource) -> str:
    name = source.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):  # .nii.gz before .nii
        name = name.replace(suffix, "")
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") or "series"

"""Files of viewers that are read beside DICOM."""

from __future__ import annotations

from pathlib import Path

from stillscan.deploy.monailabel.errors import UnsupportedFileError

NIFTI = (".nii", ".nii.gz")
SUFFIXES = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")


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

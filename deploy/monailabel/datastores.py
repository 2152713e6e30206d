"""Access to the images of a MONAI Label server."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.datastore import Datastore
from pydicom import dcmread

CONVERTED = ".nii.gz"  # a DICOMweb datastore's conversion of a series, beside its folder
SENT_AT_ONCE = 8  # number of instances in one STOW-RS request, which is held in memory


def image_file(store: Datastore, image_id: str) -> Path:
    """Return the file or the folder of DICOM files of an image, downloaded if need be.

    A DICOMweb datastore converts every series to NIfTI and keeps the DICOM files beside it. The
    DICOM files are used, since they also have modality and padding.
    """
    path = Path(store.get_image_uri(image_id))
    if not isinstance(store, DICOMWebDatastore):
        return path
    path = Path(store.get_image_uri(image_id))  # the first answer was a temporary file
    folder = path.with_name(path.name.removesuffix(CONVERTED))
    return folder if folder.is_dir() else path


def is_series(store: Datastore, image: object) -> bool:
    """Return whether a request names a series of a DICOMweb server."""
    known = isinstance(store, DICOMWebDatastore) and isinstance(image, str)
    return known and not Path(str(image)).exists()


def store_instances(store: DICOMWebDatastore, files: Sequence[Path]) -> None:
    """Send DICOM files to the DICOMweb server of the images."""
    for start in range(0, len(files), SENT_AT_ONCE):
        instances = [dcmread(path) for path in files[start : start + SENT_AT_ONCE]]
        store._client.store_instances(instances)  # the datastore has no method for images


def link_images(store: Datastore, image_ids: Iterable[str], folder: Path) -> Path:
    """Create a folder with a link to each image, the input of a training.

    The ids become the names, so that images of one subfolder count as one subject.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for image_id in image_ids:
        path = image_file(store, image_id)
        suffix = "" if path.is_dir() else "".join(path.suffixes)
        link = folder / f"{image_id}{suffix}"
        if not link.resolve().is_relative_to(folder.resolve()):
            link = folder / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder

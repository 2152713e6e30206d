"""One derived image as a DICOM file: its pixels in its header, its header in Part 10 (W7, W10)."""

from __future__ import annotations

from io import BytesIO

from pydicom import DataElement, Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from operators.character_set import tag_of
from operators.provenance import IMPLEMENTATION_CLASS_UID, implementation_version_name
from operators.stored_values import PixelFormat, Stored


def set_pixels(derived: Dataset, stored: Stored, layout: PixelFormat) -> None:
    """Put stored values into a header: PixelData and the attributes that speak of it."""
    for keyword, value in (
        ("SmallestImagePixelValue", stored.min()),
        ("LargestImagePixelValue", stored.max()),
    ):
        if keyword in derived:
            tag = tag_of(keyword)
            derived[tag] = DataElement(tag, "SS" if layout.signed else "US", int(value))
    pixels = stored.tobytes()
    derived.add_new(
        tag_of("PixelData"),
        "OB" if layout.allocated <= 8 else "OW",
        pixels + b"\0" * (len(pixels) % 2),
    )


def part10(derived: Dataset, version: str) -> bytes:
    """The bytes of a DICOM file: a zeroed preamble, our own meta information, the dataset."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = derived.SOPClassUID
    meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = implementation_version_name(version)
    derived.file_meta = meta
    file = BytesIO()
    dcmwrite(file, derived, enforce_file_format=True)
    return file.getvalue()

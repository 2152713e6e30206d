"""One derived image as a DICOM file: its pixels in its header, its header in Part 10 (W7, W10)."""

from __future__ import annotations

import struct

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from operators.elements import Element, serialised
from operators.provenance import IMPLEMENTATION_CLASS_UID, implementation_version_name
from operators.raw_header import encoded, put, tag_of, text_of, vr_of
from operators.stored_values import PixelFormat, Stored

PREAMBLE = bytes(128) + b"DICM"


def put_pixels(derived: Dataset, stored: Stored, layout: PixelFormat) -> None:
    """Put stored values into a header: PixelData and the attributes that speak of it."""
    sign = "SS" if layout.signed else "US"
    for keyword, value in (
        ("SmallestImagePixelValue", stored.min()),
        ("LargestImagePixelValue", stored.max()),
    ):
        if tag_of(keyword) in derived:
            put(derived, keyword, struct.pack("<h" if layout.signed else "<H", value), sign)
    put(derived, "PixelData", stored.tobytes(), "OB" if layout.allocated <= 8 else "OW")


def part10(derived: Dataset, version: str) -> bytes:
    """The bytes of a file: a zeroed preamble, our own meta information, the data set."""
    meta = {
        "FileMetaInformationVersion": b"\0\1",
        "MediaStorageSOPClassUID": text_of(derived, "SOPClassUID").encode(),
        "MediaStorageSOPInstanceUID": text_of(derived, "SOPInstanceUID").encode(),
        "TransferSyntaxUID": ExplicitVRLittleEndian.encode(),
        "ImplementationClassUID": IMPLEMENTATION_CLASS_UID.encode(),
        "ImplementationVersionName": implementation_version_name(version).encode(),
    }
    group = serialised(
        [Element(tag_of(key), vr_of(key).encode(), value) for key, value in meta.items()]
    )
    length = struct.pack("<I", len(group))
    group_length = serialised([Element(tag_of("FileMetaInformationGroupLength"), b"UL", length)])
    return b"".join((PREAMBLE, group_length, group, encoded(derived)))

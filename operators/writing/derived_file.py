"""Writes one derived instance as a DICOM file (PS3.10): its frames, then its header (W7, W10).

    instance = DerivedInstance(2, folder, ExplicitVRLittleEndian, layout)
    instance.add(1, stored_of_frame_1)
    instance.add(0, stored_of_frame_0)
    put_range(header, *instance.range, layout)
    write_file(path, instance.part10(header, version))

The header comes last because it describes all frames. Until then the frames are kept in memory or,
above `IN_MEMORY` bytes, in an unnamed temporary file, so that memory does not grow with them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile

from pydicom import Dataset
from pydicom.uid import UID

from stillscan.operators.dicom.attributes import encoded, put, tag_of, text_of, vr_of
from stillscan.operators.dicom.elements import Element, serialised
from stillscan.operators.errors import ResultError
from stillscan.operators.writing.pixel_encoding import encapsulated, encoder
from stillscan.operators.writing.provenance import (
    IMPLEMENTATION_CLASS_UID,
    implementation_version_name,
)
from stillscan.operators.writing.stored_values import PixelFormat, Stored

PREAMBLE = bytes(128) + b"DICM"
IN_MEMORY = 2**23  # bytes of frames that are kept in memory
UNDEFINED_LENGTH = 0xFFFFFFFF
LONGEST_VALUE = 2**32 - 2  # PS3.5 7.1.1: the length of an element has 32 bits


class PixelDataTooLongError(ResultError):
    """The frames of an instance are more bytes than one element can hold (PS3.5 7.1.1)."""

    reason = "pixel-data-too-long"


class DerivedInstance:
    """Collects the frames of one derived instance, in any order."""

    def __init__(self, frames: int, scratch: Path, syntax: UID, layout: PixelFormat) -> None:
        """Prepare an empty instance.

        Args:
            frames: number of frames.
            scratch: folder for the temporary file.
            syntax: the transfer syntax.
            layout: how the pixels are stored.
        """
        self._frames = frames
        self._syntax = syntax
        self._layout = layout
        self._encode = encoder(syntax, layout)
        self._waiting = SpooledTemporaryFile(IN_MEMORY, dir=str(scratch))  # noqa: SIM115
        self._places: dict[int, tuple[int, int]] = {}
        self._low: list[int] = []
        self._high: list[int] = []

    @property
    def is_complete(self) -> bool:
        """Return whether every frame has been added."""
        return len(self._places) == self._frames

    @property
    def range(self) -> tuple[int, int]:
        """Return the smallest and the largest stored value."""
        return min(self._low), max(self._high)

    def add(self, frame: int, stored: Stored) -> None:
        """Keep the stored values of the frame `frame`, counted from 0."""
        place = self._waiting.tell()
        length = self._waiting.write(self._encode(stored))
        self._places[frame] = place, length
        self._low.append(int(stored.min()))
        self._high.append(int(stored.max()))

    def close(self) -> None:
        """Discard the frames."""
        self._waiting.close()

    def part10(self, header: Dataset, version: str) -> Iterator[bytes]:
        """Yield the file in pieces: a zeroed preamble, new file meta information, the data set.

        Raises:
            PixelDataTooLongError: if the frames do not fit into one element.
        """
        yield PREAMBLE
        yield _meta(header, self._syntax, version)
        before, after = _around_pixel_data(header)
        yield before
        yield from self._pixel_data()
        yield after

    def _pixel_data(self) -> Iterator[bytes]:
        lengths = [length for _, (_, length) in sorted(self._places.items())]
        length = sum(lengths)
        if self._syntax.is_encapsulated:
            yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED_LENGTH)
            yield from encapsulated(self._encoded_frames(), lengths)
            return
        if length > LONGEST_VALUE:
            raise PixelDataTooLongError(
                f"{self._frames} frames have {length} bytes; an element holds {LONGEST_VALUE}"
            )
        vr = b"OB" if self._layout.allocated <= 8 else b"OW"
        yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length + length % 2)
        yield from self._encoded_frames()
        yield bytes(length % 2)

    def _encoded_frames(self) -> Iterator[bytes]:
        """Yield the encoded frames in the order of the file."""
        for _, (place, size) in sorted(self._places.items()):
            self._waiting.seek(place)
            yield self._waiting.read(size)


def put_range(derived: Dataset, low: int, high: int, layout: PixelFormat) -> None:
    """Set the smallest and the largest stored value where the source has these attributes."""
    for keyword, value in (("SmallestImagePixelValue", low), ("LargestImagePixelValue", high)):
        if tag_of(keyword) in derived:
            packed = struct.pack("<h" if layout.signed else "<H", value)
            put(derived, keyword, packed, "SS" if layout.signed else "US")


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file piece by piece."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def _meta(header: Dataset, syntax: UID, version: str) -> bytes:
    meta = {
        "FileMetaInformationVersion": b"\0\1",
        "MediaStorageSOPClassUID": text_of(header, "SOPClassUID").encode(),
        "MediaStorageSOPInstanceUID": text_of(header, "SOPInstanceUID").encode(),
        "TransferSyntaxUID": syntax.encode(),
        "ImplementationClassUID": IMPLEMENTATION_CLASS_UID.encode(),
        "ImplementationVersionName": implementation_version_name(version).encode(),
    }
    group = serialised(
        [Element(tag_of(key), vr_of(key).encode(), value) for key, value in meta.items()]
    )
    length = struct.pack("<I", len(group))
    return serialised([Element(tag_of("FileMetaInformationGroupLength"), b"UL", length)]) + group


def _around_pixel_data(header: Dataset) -> tuple[bytes, bytes]:
    """Return the data set before PixelData and after it (private groups that are kept)."""
    pixel_data = tag_of("PixelData")
    return encoded(header[:pixel_data]), encoded(header[pixel_data:])

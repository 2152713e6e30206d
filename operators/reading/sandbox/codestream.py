"""Checks that the header of a compressed frame agrees with the DICOM header of its image.

A JPEG 2000 header of 60000 x 60000 makes the decoder allocate 6.7 GiB, and a file with a lossless
transfer syntax may hold a lossy stream.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from stillscan.operators.errors import CorruptPixelDataError
from stillscan.operators.reading.records import ImageAttributes

JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
HTJ2K_LOSSLESS = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
JPEG_2000_LOSSY = ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
JPEG_2000 = (JPEG_2000_LOSSLESS, *HTJ2K_LOSSLESS, *JPEG_2000_LOSSY)
JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
LOSSLESS = (JPEG_2000_LOSSLESS, *HTJ2K_LOSSLESS, *JPEG_LOSSLESS, JPEG_LS_LOSSLESS)
RLE = "1.2.840.10008.1.2.5"

J2K_START, J2K_SIZE, J2K_CODING = 0xFF4F, 0xFF51, 0xFF52
J2K_TILE = 0xFF90
JPEG_START, JPEG_SCAN = 0xFFD8, 0xFFDA
JPEG_END = b"\xff\xd9"
JPEG_FRAMES = frozenset({*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC})


class Frame(NamedTuple):
    """The properties of a frame, as the compressed stream declares them."""

    rows: int
    columns: int
    components: int
    precision: int
    lossless: bool


def require_codestream(syntax: str, stream: bytes, image: ImageAttributes) -> None:
    """Require that a compressed frame declares the same image as the DICOM header.

    Raises:
        CorruptPixelDataError: if they differ; the message names the property.
    """
    if syntax == RLE:  # has no header of its own; its decoder fills Rows x Columns and no more
        return
    try:
        frame = _j2k_frame(stream) if syntax in JPEG_2000 else _jpeg_frame(stream)
    except struct.error as error:
        raise CorruptPixelDataError("PixelData: the stream ends inside its header") from error
    if syntax not in JPEG_2000 and JPEG_END not in stream.rstrip(b"\0")[-3:]:  # one byte of padding
        # CharLS searches for the missing end for four seconds
        raise CorruptPixelDataError("PixelData: the stream ends without an end-of-image marker")
    if frame is None:
        raise CorruptPixelDataError("PixelData: the stream does not match TransferSyntaxUID")
    found, expected = (frame.rows, frame.columns), (image.rows, image.columns)
    if found != expected or frame.components != 1:
        raise CorruptPixelDataError(
            f"PixelData: the stream has {frame.rows} x {frame.columns} x {frame.components} values,"
            f" expected {image.rows} x {image.columns} x 1"
        )
    if frame.precision > image.bits_allocated:
        raise CorruptPixelDataError(
            f"PixelData: the stream has {frame.precision} bits, expected {image.bits_stored}"
        )
    if syntax in LOSSLESS and not frame.lossless:
        raise CorruptPixelDataError("PixelData: a lossy stream in a lossless transfer syntax")


def _j2k_frame(stream: bytes) -> Frame | None:
    """Return the frame of a JPEG 2000 stream, from SIZ and COD (ISO 15444-1 A.5.1, A.6.1)."""
    if struct.unpack_from(">H", stream) != (J2K_START,):
        return None
    size: tuple[int, ...] | None = None
    reversible = False
    for marker, start in _segments(stream, J2K_TILE):
        if marker == J2K_SIZE:
            size = struct.unpack_from(">IIII16xHB", stream, start + 2)
        elif marker == J2K_CODING:
            (transform,) = struct.unpack_from("9xB", stream, start)
            reversible = transform == 1
    if size is None:
        return None
    right, bottom, left, top, components, depth = size
    return Frame(bottom - top, right - left, components, (depth & 0x7F) + 1, reversible)


def _jpeg_frame(stream: bytes) -> Frame | None:
    """Return the frame of a JPEG stream: SOF (ISO 10918-1 B.2.2), JPEG-LS: SOS (14495-1 C.2.3)."""
    if struct.unpack_from(">H", stream) != (JPEG_START,):
        return None
    frame: Frame | None = None
    for marker, start in _segments(stream, None):
        if marker in JPEG_FRAMES:
            precision, rows, columns, components = struct.unpack_from(">BHHB", stream, start)
            frame = Frame(rows, columns, components, precision, lossless=marker == 0xFFC3)
            jpeg_ls = marker == 0xFFF7
        elif marker == JPEG_SCAN and frame is not None:
            (near,) = struct.unpack_from("B", stream, start + 1 + 2 * frame.components)
            return frame._replace(lossless=near == 0) if jpeg_ls else frame
    return frame


def _segments(stream: bytes, last: int | None) -> Iterator[tuple[int, int]]:
    """Yield the markers of the main header with the offset of their contents."""
    position = 2
    while position + 4 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == last or marker >> 8 != 0xFF:
            return
        yield marker, position + 4
        if marker == JPEG_SCAN:
            return
        position += 2 + length

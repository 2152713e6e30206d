"""Checks the length of the pixel data against the header, and decodes single frames.

Runs in the reading process. Uncompressed frames need the standard library alone; pydicom and its
decoders are imported when a file is compressed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from stillscan.operators.dicom.elements import swap_words
from stillscan.operators.errors import (
    CorruptPixelDataError,
    DamagedFileError,
    FloatPixelsError,
    FrameTooLargeError,
    NoPixelDataError,
    PixelDataLengthError,
    TruncatedFileError,
    UnknownTransferSyntaxError,
    UnsupportedCompressionError,
)
from stillscan.operators.reading.records import ImageAttributes
from stillscan.operators.reading.sandbox.codestream import require_codestream
from stillscan.operators.reading.sandbox.encapsulated import (
    Frame,
    fragments_of_frames,
    value_of_one_frame,
)
from stillscan.operators.reading.sandbox.parser import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    UNDEFINED,
    ParsedFile,
    PixelElement,
)
from stillscan.operators.reading.sandbox.silent_decoder import decoder_must_be_silent

MAX_FRAME_PIXELS = 2**25  # 5792 x 5792: the largest detectors have 25 million
NATIVE_SYNTAXES = (IMPLICIT_LE, EXPLICIT_LE, DEFLATED_LE, EXPLICIT_BE)
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"  # PS3.5 A.4.11: a frame in each fragment
PLUGINS = {  # of pydicom; one each, so that no other decoder hides a failure
    "1.2.840.10008.1.2.4.50": "gdcm",  # JPEG baseline (lossy)
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS near-lossless (lossy)
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000 (lossy)
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # High-Throughput JPEG 2000 lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",  # the same, resolution by resolution
    "1.2.840.10008.1.2.4.203": "pylibjpeg",  # High-Throughput JPEG 2000 (lossy)
    "1.2.840.10008.1.2.5": "pylibjpeg",  # RLE
}
STANDARD_SYNTAXES = "1.2.840.10008.1.2."


class PixelData(NamedTuple):
    """The pixel data element; for compressed data, also the fragments of each frame."""

    element: PixelElement
    frames: list[Frame]


def is_compressed(parsed: ParsedFile) -> bool:
    """Return whether the frames need one of the decoders."""
    return parsed.transfer_syntax_uid in PLUGINS


def require_integer_pixels(parsed: ParsedFile) -> PixelElement:
    """Require the attribute Pixel Data.

    Raises:
        NoPixelDataError, FloatPixelsError: if it is absent.
    """
    if parsed.pixels is None:
        raise NoPixelDataError("PixelData is missing")
    if parsed.pixels.keyword != "PixelData":
        raise FloatPixelsError(f"{parsed.pixels.keyword}: found instead of PixelData")
    return parsed.pixels


def require_pixel_data(parsed: ParsedFile, image: ImageAttributes) -> PixelData:
    """Require pixel data that can be decoded and has the length that the header declares.

    Raises:
        NoPixelDataError, FloatPixelsError, UnknownTransferSyntaxError, UnsupportedCompressionError,
        PixelDataLengthError, TruncatedFileError, DamagedFileError, FrameTooLargeError,
        CorruptPixelDataError
    """
    pixels = require_integer_pixels(parsed)
    syntax = parsed.transfer_syntax_uid
    frames: list[Frame] = []
    if syntax in NATIVE_SYNTAXES:
        _require_native_length(parsed, pixels, image)
    elif syntax in PLUGINS or syntax == ENCAPSULATED_UNCOMPRESSED:
        if pixels.length != UNDEFINED:
            raise DamagedFileError("PixelData has a length, expected encapsulated fragments")
        frames = fragments_of_frames(parsed.source, pixels.start, image.frames)
    elif syntax.startswith(STANDARD_SYNTAXES):
        raise UnsupportedCompressionError(f"TransferSyntaxUID: found {syntax}, not decoded here")
    else:
        raise UnknownTransferSyntaxError("TransferSyntaxUID: found none of the standard")
    if image.rows * image.columns > MAX_FRAME_PIXELS:
        raise FrameTooLargeError(
            f"Rows x Columns: found {image.rows} x {image.columns}, "
            f"expected at most {MAX_FRAME_PIXELS} pixels"
        )
    return PixelData(pixels, frames)


def read_frame(
    parsed: ParsedFile, pixel_data: PixelData, image: ImageAttributes, frame: int
) -> bytes:
    """Return the stored values of one frame in little endian, `image.frame_bytes` long.

    Raises:
        CorruptPixelDataError: if the stream contradicts the header or its decoder fails or warns.
        TruncatedFileError: if a deflated file ends too early.
    """
    if parsed.transfer_syntax_uid in NATIVE_SYNTAXES:
        return _native_frame(parsed, pixel_data.element, image, frame)
    stream, value = value_of_one_frame(parsed.source, pixel_data.frames[frame])
    if parsed.transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED:
        return _uncompressed_frame(stream, image)
    return _decoded_frame(parsed.transfer_syntax_uid, stream, value, image)


def _require_native_length(
    parsed: ParsedFile, pixels: PixelElement, image: ImageAttributes
) -> None:
    found, expected = pixels.length, image.frame_bytes * image.frames
    if found == UNDEFINED:
        raise DamagedFileError("PixelData is encapsulated, but its transfer syntax is uncompressed")
    if found not in (expected, expected + expected % 2):
        raise PixelDataLengthError(
            f"PixelData: found {found} bytes, expected {expected} for {image.frames} x {image.rows}"
            f" x {image.columns} x {image.bits_allocated} bits"
        )
    missing = pixels.start + found - parsed.source.size
    if not parsed.source.inflated and missing > 0:
        raise TruncatedFileError(f"ends {missing} bytes before the end of its pixel data")


def _native_frame(
    parsed: ParsedFile, pixels: PixelElement, image: ImageAttributes, frame: int
) -> bytes:
    start = frame * image.frame_bytes
    if parsed.encoding.little or pixels.vr != b"OW":
        return parsed.source.value(pixels.start + start, image.frame_bytes)
    # big endian words: whole ones are read, also where a frame of bytes begins or ends inside one
    first, last = start - start % 2, start + image.frame_bytes + (start + image.frame_bytes) % 2
    words = parsed.source.value(pixels.start + first, last - first)
    return swap_words(words, 2, "PixelData")[start - first :][: image.frame_bytes]


def _uncompressed_frame(stream: bytes, image: ImageAttributes) -> bytes:
    if len(stream) not in (image.frame_bytes, image.frame_bytes + image.frame_bytes % 2):
        raise PixelDataLengthError(
            f"PixelData: found a frame of {len(stream)} bytes, expected {image.frame_bytes}"
        )
    return stream[: image.frame_bytes]


def _decoded_frame(syntax: str, stream: bytes, value: bytes, image: ImageAttributes) -> bytes:
    from pydicom.pixels.decoders.base import get_decoder

    options: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": image.bits_allocated,
        "bits_stored": image.bits_stored,
        "pixel_representation": int(image.signed),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "correct_unused_bits": False,
    }
    with decoder_must_be_silent():
        require_codestream(syntax, stream, image)
        array, _ = get_decoder(syntax).as_array(
            value, index=0, raw=True, decoding_plugin=PLUGINS[syntax], **options
        )
    stored = array.astype(image.dtype, casting="equiv").tobytes()
    if len(stored) != image.frame_bytes:
        raise CorruptPixelDataError(
            f"PixelData decodes to {len(stored)} bytes, expected {image.frame_bytes}"
        )
    return stored

"""Reads and checks how the pixels of an image are stored; each error names the attribute.

Runs in the reading process and imports the standard library alone.
"""

from __future__ import annotations

from stillscan.operators.dicom.elements import Tags, text_in, unsigned_short, whole_number
from stillscan.operators.errors import (
    ConcatenationError,
    InvalidAttributeError,
    InvalidBitDepthError,
    MissingAttributeError,
    OverlayInPixelsError,
)
from stillscan.operators.reading.records import ImageAttributes

ROWS, COLUMNS, FRAMES = 0x00280010, 0x00280011, 0x00280008
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION = range(0x00280100, 0x00280104)
CONCATENATION_UID = 0x00209161
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
OVERLAY_BIT_POSITION, OVERLAY_DATA = 0x0102, 0x3000


def image_attributes(tags: Tags) -> ImageAttributes:
    """Return how the pixels of an instance are stored.

    Raises:
        MissingAttributeError, InvalidAttributeError, InvalidBitDepthError, OverlayInPixelsError,
        ConcatenationError: the message names the attribute, found and expected.
    """
    require_no_overlay_in_pixels(tags)
    require_whole_instance(tags)
    bits_allocated, bits_stored, signed = _bits(tags)
    return ImageAttributes(
        rows=_positive(tags, ROWS, "Rows"),
        columns=_positive(tags, COLUMNS, "Columns"),
        frames=_frames(tags),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=signed,
    )


def require_no_overlay_in_pixels(tags: Tags) -> None:
    """Require that no overlay lies in unused bits of the pixels (PS3.5 8.1.2, retired; W8).

    Raises:
        OverlayInPixelsError: the message names the bit.
    """
    for group in OVERLAY_GROUPS:
        bit = unsigned_short(tags.get(group << 16 | OVERLAY_BIT_POSITION))
        if bit and group << 16 | OVERLAY_DATA not in tags:
            raise OverlayInPixelsError(
                f"({group:04X},0102) OverlayBitPosition: found {bit}, expected 0 with OverlayData"
            )


def require_whole_instance(tags: Tags) -> None:
    """Require that the instance is no part of a larger one (PS3.3 C.7.6.16.2.2.4).

    Raises:
        ConcatenationError: where it is.
    """
    if text_in(tags, CONCATENATION_UID):
        raise ConcatenationError("ConcatenationUID is present: this is a part of an instance")


def _bits(tags: Tags) -> tuple[int, int, bool]:
    allocated = _required(tags, BITS_ALLOCATED, "BitsAllocated")
    stored = _required(tags, BITS_STORED, "BitsStored")
    representation = _required(tags, PIXEL_REPRESENTATION, "PixelRepresentation")
    high_bit = unsigned_short(tags.get(HIGH_BIT))
    if allocated not in (8, 16):
        raise InvalidBitDepthError(f"BitsAllocated: found {allocated}, expected 8 or 16")
    if not 1 <= stored <= allocated:
        raise InvalidBitDepthError(f"BitsStored: found {stored}, expected 1 to {allocated}")
    if high_bit is not None and high_bit != stored - 1:
        raise InvalidBitDepthError(f"HighBit: found {high_bit}, expected {stored - 1}")
    if representation not in (0, 1):
        raise InvalidBitDepthError(f"PixelRepresentation: found {representation}, expected 0 or 1")
    return allocated, stored, representation == 1


def _frames(tags: Tags) -> int:
    if FRAMES not in tags or not tags[FRAMES].text:
        return 1
    frames = whole_number(tags[FRAMES].text)
    if frames is None or frames < 1:
        found = tags[FRAMES].text[:16]
        raise InvalidAttributeError(f"NumberOfFrames: found {found!r}, expected 1 or more")
    return frames


def _positive(tags: Tags, tag: int, keyword: str) -> int:
    number = _required(tags, tag, keyword)
    if number < 1:
        raise InvalidAttributeError(f"{keyword}: found {number}, expected 1 or more")
    return number


def _required(tags: Tags, tag: int, keyword: str) -> int:
    number = unsigned_short(tags.get(tag))
    if number is None:
        raise MissingAttributeError(f"{keyword} is missing")
    return number

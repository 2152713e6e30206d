"""Reads and checks how the pixels of an image are stored; every requirement that fails says why.

Runs in the reading child: the standard library alone.
"""

from __future__ import annotations

import math

from operators.elements import Element
from operators.errors import (
    InvalidAttributeError,
    InvalidBitDepthError,
    InvalidRescaleError,
    MissingAttributeError,
    ModalityLutError,
    OverlayInPixelsError,
)
from operators.instance import ImageAttributes, Tags, Triple, unsigned_short, whole_number

ROWS, COLUMNS, FRAMES = 0x00280010, 0x00280011, 0x00280008
BITS_ALLOCATED, BITS_STORED, HIGH_BIT, PIXEL_REPRESENTATION = range(0x00280100, 0x00280104)
PADDING_VALUE, PADDING_LIMIT = 0x00280120, 0x00280121
INTERCEPT, SLOPE, RESCALE_TYPE, MODALITY_LUT = 0x00281052, 0x00281053, 0x00281054, 0x00283000
UNITS = 0x00541001
POSITION, ORIENTATION = 0x00200032, 0x00200037
OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
OVERLAY_BIT_POSITION, OVERLAY_DATA = 0x0102, 0x3000


def image_attributes(tags: Tags) -> ImageAttributes:
    """How the pixels of an instance are stored.

    Raises:
        MissingAttributeError, InvalidAttributeError, InvalidBitDepthError, InvalidRescaleError,
        ModalityLutError, OverlayInPixelsError: naming the attribute, found and expected.
    """
    require_no_overlay_in_pixels(tags)
    bits_allocated, bits_stored, signed = _bits(tags)
    slope, intercept = _rescale(tags)
    return ImageAttributes(
        rows=_positive(tags, ROWS, "Rows"),
        columns=_positive(tags, COLUMNS, "Columns"),
        frames=_frames(tags),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        signed=signed,
        slope=slope,
        intercept=intercept,
        unit=_unit(tags),
        padding=_padding(tags, signed),
        position=_position(tags),
        orientation=_orientation(tags),
    )


def require_no_overlay_in_pixels(tags: Tags) -> None:
    """Require that no overlay lies in unused bits of the pixels (PS3.5 8.1.2, retired; W8).

    Raises:
        OverlayInPixelsError: naming the bit.
    """
    for group in OVERLAY_GROUPS:
        bit = unsigned_short(tags.get(group << 16 | OVERLAY_BIT_POSITION))
        if bit and group << 16 | OVERLAY_DATA not in tags:
            raise OverlayInPixelsError(
                f"({group:04X},0102) OverlayBitPosition: found {bit}, expected 0 with OverlayData"
            )


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


def _rescale(tags: Tags) -> tuple[float, float]:
    if tags.get(MODALITY_LUT, Element(0, b"", b"")).items:
        raise ModalityLutError("ModalityLUTSequence is present, expected RescaleSlope")
    slope = _rescale_number(tags, SLOPE, "RescaleSlope", 1.0)
    intercept = _rescale_number(tags, INTERCEPT, "RescaleIntercept", 0.0)
    if slope == 0:
        raise InvalidRescaleError("RescaleSlope: found 0, expected a number other than 0")
    return slope, intercept


def _rescale_number(tags: Tags, tag: int, keyword: str, default: float) -> float:
    text = tags[tag].text if tag in tags else ""
    if not text:
        return default
    number = _number(text)
    if number is None:
        raise InvalidRescaleError(f"{keyword}: found {text[:16]!r}, expected a number")
    return number


def _frames(tags: Tags) -> int:
    if FRAMES not in tags or not tags[FRAMES].text:
        return 1
    frames = whole_number(tags[FRAMES].text)
    if frames is None or frames < 1:
        found = tags[FRAMES].text[:16]
        raise InvalidAttributeError(f"NumberOfFrames: found {found!r}, expected 1 or more")
    return frames


def _unit(tags: Tags) -> str:
    """RescaleType, or Units of PET; "" where neither says anything."""
    unit = next((tags[tag].text for tag in (RESCALE_TYPE, UNITS) if tag in tags), "")
    return "" if unit == "US" else unit  # PS3.3 C.11.1.1.2: US is "unspecified"


def _padding(tags: Tags, signed: bool) -> tuple[int, int] | None:
    """PS3.3 C.7.5.1.1.2: one value, or all from it to the limit, on whichever side that is."""
    value = unsigned_short(tags.get(PADDING_VALUE))
    if value is None:
        return None
    limit = unsigned_short(tags.get(PADDING_LIMIT))
    ends = [_as_stored(end, signed) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, signed: bool) -> int:
    return value - 0x10000 if signed and value >= 0x8000 else value


def _position(tags: Tags) -> Triple | None:
    numbers = _numbers(tags, POSITION, 3)
    return None if numbers is None else (numbers[0], numbers[1], numbers[2])


def _orientation(tags: Tags) -> tuple[Triple, Triple] | None:
    numbers = _numbers(tags, ORIENTATION, 6)
    if numbers is None:
        return None
    row, column = numbers[:3], numbers[3:]
    return (row[0], row[1], row[2]), (column[0], column[1], column[2])


def _numbers(tags: Tags, tag: int, count: int) -> list[float] | None:
    """`count` finite numbers, None if the attribute does not hold them."""
    texts = tags[tag].text.split("\\") if tag in tags else []
    numbers = [number for text in texts if (number := _number(text)) is not None]
    return numbers if len(numbers) == len(texts) == count else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


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

"""Reads and checks rescale, unit, padding and geometry of each frame (PS3.3 C.7.6.16).

A classic image has these attributes in its data set, a multi-frame one in functional groups, shared
or per frame. Runs in the reading process and imports the standard library alone.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence

from stillscan.operators.dicom.elements import (
    Element,
    Tags,
    items_in,
    text_in,
    unsigned_short,
    values_in,
)
from stillscan.operators.errors import (
    InvalidAttributeError,
    InvalidRescaleError,
    MissingAttributeError,
    MixedPixelFormatError,
    ModalityLutError,
)
from stillscan.operators.reading.records import FrameAttributes, ImageAttributes, Triple

PADDING_VALUE, PADDING_LIMIT = 0x00280120, 0x00280121
INTERCEPT, SLOPE, RESCALE_TYPE, MODALITY_LUT = 0x00281052, 0x00281053, 0x00281054, 0x00283000
UNITS, MODALITY = 0x00541001, 0x00080060
REAL_WORLD_VALUES, MAPPED_UNITS = 0x00409096, 0x004008EA
QUANTITIES, CONCEPT_NAME, CONCEPT = 0x00409220, 0x0040A043, 0x0040A168
CODE_VALUE = 0x00080100
HOUNSFIELD = ("HU", "H.U.", "HOUNSFIELD", "[HNSF'U]")
QUANTITY_NAMES = ("246205007", "G-C1C6")  # (SCT or SRT, "Quantity")
POSITION, ORIENTATION = 0x00200032, 0x00200037
SPACING, IMAGER_SPACING, THICKNESS = 0x00280030, 0x00181164, 0x00180050

SHARED, PER_FRAME = 0x52009229, 0x52009230  # functional groups
FRAME_CONTENT, PLANE_POSITION, PLANE_ORIENTATION = 0x00209111, 0x00209113, 0x00209116
PIXEL_MEASURES = 0x00289110
PIXEL_VALUE_TRANSFORMATION = 0x00289145
FRAME_TYPE_MACROS = (0x00189226, 0x00189329, 0x00189751)  # MR, CT, PET
CONVERTED_ATTRIBUTES = (0x00209170, 0x00209171)  # unassigned, of Legacy Converted Enhanced
FRAME_TYPE, COMPLEX_COMPONENT, CALCULATION = 0x00089007, 0x00089208, 0x00089207
STACK_ID, IN_STACK_POSITION, TEMPORAL_POSITION = 0x00209056, 0x00209057, 0x00209128
DIMENSIONS, DIMENSION_POINTER, DIMENSION_VALUES = 0x00209222, 0x00209165, 0x00209157
CARDIAC_SYNCHRONIZATION, DELAY_TIME, RR_INTERVAL = 0x00189118, 0x00209153, 0x00209251
TRIGGER_TIME, NOMINAL_INTERVAL, REJECTED_BEAT = 0x00181060, 0x00181062, 0x00181080
TEMPORAL_IDENTIFIER, PHASES, TEMPORAL_POSITIONS = 0x00200100, 0x00181090, 0x00200105
LARGEST_NUMBER = 1e30  # of slope and intercept: pixels are float32
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([Ee][+-]?\d+)?", re.ASCII)
GEOMETRY = {
    POSITION: "ImagePositionPatient",
    ORIENTATION: "ImageOrientationPatient",
    SPACING: "PixelSpacing",
    IMAGER_SPACING: "ImagerPixelSpacing",
}
FARTHEST_MM = 1e6
THICKEST_MM = 1000.0
SPACING_MM = (0.001, 100.0)
ORTHONORMAL = 0.02  # tolerance of directions: some writers give two digits
OF_SPACE = (STACK_ID, IN_STACK_POSITION, POSITION, PLANE_POSITION)


def frame_attributes(tags: Tags, image: ImageAttributes) -> tuple[FrameAttributes, ...]:
    """Return the attributes of each frame of an instance, in the order of the file.

    Raises:
        InvalidRescaleError, ModalityLutError: the message names the attribute, found and expected.
        MissingAttributeError, InvalidAttributeError: if frames have no functional groups, or their
            geometry is impossible, or a CT has no rescale attributes.
        MixedPixelFormatError: if the frames of one instance differ in their unit.
    """
    if tags.get(MODALITY_LUT, Element(0, b"", b"")).items:
        raise ModalityLutError("ModalityLUTSequence is present, expected RescaleSlope")
    if PER_FRAME not in tags:
        if image.frames > 1 and SHARED in tags:
            raise MissingAttributeError("PerFrameFunctionalGroupsSequence is missing")
        return (_classic(tags, image),) * image.frames
    groups = _groups_of_frames(tags, image.frames)
    dimensions = _dimensions(tags)
    frames = tuple(_frame(tags, each, image, dimensions) for each in groups)
    for number, frame in enumerate(frames, start=1):
        if frame.unit != frames[0].unit:
            raise MixedPixelFormatError(
                f"frames 1 and {number} differ in RescaleType: {frames[0].unit or 'none'} and "
                f"{frame.unit or 'none'}; one instance must have one unit"
            )
    return frames


def _classic(tags: Tags, image: ImageAttributes) -> FrameAttributes:
    slope, intercept = _rescale(tags, tags)
    mapped = _mapped_units(tags)
    return FrameAttributes(
        slope=slope,
        intercept=intercept,
        unit=_unit(tags, tags, mapped),
        padding=_padding(tags, image.signed),
        position=_position(tags),
        orientation=_orientation(tags),
        spacing=_spacing(tags),
        thickness=_thickness(tags),
        timing=_timing(tags, tags, tags),
        mapped_units=mapped,
        quantities=_quantities(tags),
    )


def _groups_of_frames(tags: Tags, frames: int) -> list[Tags]:
    """Return the functional groups of each frame: its own, else the shared ones."""
    shared = items_in(tags, SHARED)[:1] or [{}]
    own = items_in(tags, PER_FRAME)
    if len(own) != frames:
        raise InvalidAttributeError(
            f"PerFrameFunctionalGroupsSequence: found {len(own)} items, expected {frames}"
        )
    return [{**shared[0], **each} for each in own]


def _frame(
    tags: Tags, groups: Tags, image: ImageAttributes, dimensions: list[int]
) -> FrameAttributes:
    content = _macro(groups, FRAME_CONTENT)
    kind = next((_macro(groups, macro) for macro in FRAME_TYPE_MACROS if macro in groups), {})
    transformation = _macro(groups, PIXEL_VALUE_TRANSFORMATION) or tags
    measures = _macro(groups, PIXEL_MEASURES)
    slope, intercept = _rescale(tags, transformation)
    mapped = _mapped_units(groups) or _mapped_units(tags)
    return FrameAttributes(
        slope=slope,
        intercept=intercept,
        unit=_unit(tags, transformation, mapped),
        padding=_padding_of_frame(tags, groups, image.signed),
        position=_position(_macro(groups, PLANE_POSITION)),
        orientation=_orientation(_macro(groups, PLANE_ORIENTATION)),
        frame_type=values_in(kind, FRAME_TYPE),
        complex_component=text_in(kind, COMPLEX_COMPONENT).upper(),
        calculation=text_in(kind, CALCULATION).upper(),
        mapped_units=mapped,
        quantities=_quantities(groups) or _quantities(tags),
        stack=text_in(content, STACK_ID),
        volume_index=_volume_index(content, dimensions),
        spacing=_spacing(measures),
        thickness=_thickness(measures),
        timing=_timing(tags, content, _macro(groups, CARDIAC_SYNCHRONIZATION)),
    )


def _macro(groups: Tags, tag: int) -> Tags:
    """Return the attributes of one functional group."""
    items = items_in(groups, tag)
    return items[0] if items else {}


def _dimensions(tags: Tags) -> list[int]:
    """Return the attribute that each of DimensionIndexValues refers to."""
    pointers = [each.get(DIMENSION_POINTER) for each in items_in(tags, DIMENSIONS)]
    words = [
        array("H", each.value[:4]) if each and len(each.value) >= 4 else (0, 0) for each in pointers
    ]
    return [group << 16 | number for group, number in words]


def _volume_index(content: Tags, dimensions: list[int]) -> tuple[int, ...]:
    values = content[DIMENSION_VALUES].value if DIMENSION_VALUES in content else b""
    indices = array("I", values[: len(values) // 4 * 4])
    if len(indices) == len(dimensions) > 0:
        counted = zip(dimensions, indices, strict=True)
        return tuple(index for dimension, index in counted if dimension not in OF_SPACE)
    time = content.get(TEMPORAL_POSITION)
    return () if time is None else (int.from_bytes(time.value[:4], "little"),)


def _rescale(tags: Tags, transformation: Tags) -> tuple[float, float]:
    """Return slope and intercept; required in CT, where stored values are no HU (PS3.3 C.8.2.1)."""
    required = text_in(tags, MODALITY) == "CT"
    slope = _rescale_number(transformation, SLOPE, "RescaleSlope", None if required else 1.0)
    intercept = _rescale_number(
        transformation, INTERCEPT, "RescaleIntercept", None if required else 0.0
    )
    if not 1 / LARGEST_NUMBER <= abs(slope) <= LARGEST_NUMBER:
        raise InvalidRescaleError(
            f"RescaleSlope: found {slope:g}, expected a number that can be inverted"
        )
    return slope, intercept


def _rescale_number(tags: Tags, tag: int, keyword: str, default: float | None) -> float:
    text = text_in(tags, tag)
    if not text:
        if default is None:
            raise MissingAttributeError(f"{keyword} is missing; a CT image must have it")
        return default
    number = _number(text)
    if number is None or abs(number) > LARGEST_NUMBER:
        raise InvalidRescaleError(f"{keyword}: found {text[:16]!r}, expected a number")
    return number


def _unit(tags: Tags, transformation: Tags, mapped: Sequence[str]) -> str:
    """Return Units in PET, else RescaleType; "" if unspecified (US, PS3.3 C.11.1.1.2).

    A CT without RescaleType is in HU, as RescaleType is required otherwise (PS3.3 C.8.2.1), unless
    real world values have another unit.
    """
    unit = text_in(tags, UNITS) or text_in(transformation, RESCALE_TYPE)
    if text_in(tags, MODALITY) == "CT":
        unit = unit or next(iter(mapped), "HU")
        unit = "HU" if unit.upper() in HOUNSFIELD else unit
    return "" if unit.upper() == "US" else unit


def _mapped_units(tags: Tags) -> tuple[str, ...]:
    """Return the units of real world values (PS3.3 C.7.6.16.2.11)."""
    maps = items_in(tags, REAL_WORLD_VALUES)
    return tuple(_codes(code for each in maps for code in items_in(each, MAPPED_UNITS)))


def _quantities(tags: Tags) -> tuple[str, ...]:
    """Return the quantities of real world values, where they are defined."""
    definitions = (
        q for each in items_in(tags, REAL_WORLD_VALUES) for q in items_in(each, QUANTITIES)
    )
    return tuple(
        code
        for each in definitions
        if set(_codes(items_in(each, CONCEPT_NAME))) & set(QUANTITY_NAMES)
        for code in _codes(items_in(each, CONCEPT))
    )


def _codes(items: Iterable[Tags]) -> Iterator[str]:
    return (text_in(item, CODE_VALUE) for item in items)


def _padding(tags: Tags, signed: bool) -> tuple[int, int] | None:
    """Return the range of padding values (PS3.3 C.7.5.1.1.2); the limit may be on either side."""
    value = unsigned_short(tags.get(PADDING_VALUE))
    if value is None:
        return None
    limit = unsigned_short(tags.get(PADDING_LIMIT))
    ends = [_as_stored(end, signed) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _padding_of_frame(tags: Tags, groups: Tags, signed: bool) -> tuple[int, int] | None:
    """Return the padding of a frame; converted series may have it in the unassigned attributes."""
    places = (tags, *(_macro(groups, tag) for tag in CONVERTED_ATTRIBUTES))
    return next((found for place in places if (found := _padding(place, signed))), None)


def _as_stored(value: int, signed: bool) -> int:
    return value - 0x10000 if signed and value >= 0x8000 else value


def _position(tags: Tags) -> Triple | None:
    numbers = _numbers(tags, POSITION, 3)
    if numbers is None:
        return None
    if max(map(abs, numbers)) > FARTHEST_MM:
        raise InvalidAttributeError(
            f"ImagePositionPatient: found a coordinate beyond {FARTHEST_MM:g} mm"
        )
    return numbers[0], numbers[1], numbers[2]


def _orientation(tags: Tags) -> tuple[Triple, Triple] | None:
    """Return the directions of rows and columns; six zeros mean that they are not known."""
    numbers = _numbers(tags, ORIENTATION, 6)
    if numbers is None or not any(numbers):
        return None
    (a, b, c), (x, y, z) = row, column = numbers[:3], numbers[3:]
    off = (math.hypot(*row) - 1, math.hypot(*column) - 1, a * x + b * y + c * z)
    if not max(map(abs, off)) <= ORTHONORMAL:
        raise InvalidAttributeError(
            "ImageOrientationPatient: found directions that are not orthogonal unit vectors"
        )
    return (a, b, c), (x, y, z)


def _spacing(tags: Tags) -> tuple[float, float] | None:
    """PixelSpacing; on radiographs, which lack it, that of the detector."""
    for tag in (SPACING, IMAGER_SPACING):
        numbers = _numbers(tags, tag, 2)
        if numbers is not None:
            least, most = SPACING_MM
            if not all(least <= each <= most for each in numbers):
                raise InvalidAttributeError(f"{GEOMETRY[tag]}: expected {least:g} to {most:g} mm")
            return numbers[0], numbers[1]
    return None


def _thickness(tags: Tags) -> float | None:
    thickness = _number(tags[THICKNESS].text) if THICKNESS in tags else None
    return thickness if thickness is not None and 0 < thickness <= THICKEST_MM else None


def _timing(tags: Tags, content: Tags, cardiac: Tags) -> tuple[float | None, ...]:
    """Return `FrameAttributes.timing` of a data set and its two functional groups."""

    def binary(group: Tags, tag: int, code: str) -> float | None:
        value = group[tag].value if tag in group else b""
        size = array(code).itemsize
        number = float(array(code, value[:size])[0]) if len(value) >= size else math.nan
        return number if math.isfinite(number) else None

    def decimal(*names: int) -> float | None:
        return next((found for each in names if (found := _number(text_in(tags, each)))), None)

    interval = binary(cardiac, RR_INTERVAL, "d")
    return (
        _number(text_in(tags, TRIGGER_TIME)),
        binary(cardiac, DELAY_TIME, "d"),
        decimal(TEMPORAL_IDENTIFIER),
        binary(content, TEMPORAL_POSITION, "I"),
        decimal(NOMINAL_INTERVAL) if interval is None else interval,
        decimal(PHASES, TEMPORAL_POSITIONS),
        1.0 if text_in(tags, REJECTED_BEAT).upper() == "Y" else None,
    )


def _numbers(tags: Tags, tag: int, count: int) -> list[float] | None:
    """`count` finite numbers, None where the attribute is absent or empty.

    Raises:
        InvalidAttributeError: if it holds anything else.
    """
    text = tags[tag].text if tag in tags else ""
    if not text:
        return None
    texts = text.split("\\", count)
    numbers = [number for each in texts if (number := _number(each)) is not None]
    if not len(numbers) == len(texts) == count:
        raise InvalidAttributeError(f"{GEOMETRY[tag]}: expected {count} finite numbers")
    return numbers


def _number(text: str) -> float | None:
    number = float(text) if NUMBER.fullmatch(text.strip()) else math.nan
    return number if math.isfinite(number) else None

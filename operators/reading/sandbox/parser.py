"""Parses a DICOM file under limits, up to its pixel data: PS3.10 and PS3.5 as scanners write them.

Runs in the reading process and imports the standard library alone.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from stillscan.operators.dicom.elements import (
    ITEM,
    ITEM_END,
    LONG_VRS,
    SEQUENCE_END,
    SHORT_VRS,
    Element,
    in_little_endian,
    is_vr,
    name_of,
    vr_in_dictionary,
)
from stillscan.operators.errors import (
    DamagedFileError,
    EmptyFileError,
    HeaderTooLargeError,
    NestedTooDeepError,
    NotDicomError,
    TruncatedFileError,
)
from stillscan.operators.reading.sandbox.file_source import FileSource

MAX_DEPTH = 32  # of nested sequences: images use fewer than ten, Orthanc 1.10 crashes at fifty
MAX_ELEMENTS = 2**20  # and items: 10,000 frames of an enhanced image have 300,000
UNDEFINED = 0xFFFFFFFF

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

TRANSFER_SYNTAX_UID = 0x00020010
SPECIFIC_CHARACTER_SET = 0x00080005
SOP_CLASS_UID = 0x00080016
PIXEL_REPRESENTATION = 0x00280103
PIXEL_KEYWORDS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
NO_TEXT = re.compile(rb"[^ -~]")
ITEM_START = b"\xfe\xff\x00\xe0"
PACKED = {b"PK\3\4": "a zip archive", b"\x1f\x8b": "packed with gzip"}
NIFTI = "is NIfTI, not DICOM: to denoise it, name this file (.nii, .nii.gz) as the input"
NIFTI_HEAD, PACKED_HEAD = 348, 4096  # bytes
NO_DICOM = "is not DICOM: it has no 'DICM' at byte 128 and no data set at byte 0"


class Encoding(NamedTuple):
    """How the elements of a data set are written."""

    explicit: bool
    little: bool

    @property
    def order(self) -> str:
        """Return the byte order in the notation of `struct`."""
        return "<" if self.little else ">"


IMPLICIT = Encoding(explicit=False, little=True)
EXPLICIT = Encoding(explicit=True, little=True)


class PixelElement(NamedTuple):
    """The place of the pixel data: `start` is the offset of its value in the source."""

    keyword: str
    vr: bytes
    start: int
    length: int  # UNDEFINED when encapsulated


@dataclass(frozen=True)
class ParsedFile:
    """The elements before the pixel data, and the place of the pixel data."""

    source: FileSource
    meta: dict[int, Element]
    transfer_syntax_uid: str
    encoding: Encoding
    elements: list[Element]
    pixels: PixelElement | None

    @property
    def tags(self) -> dict[int, Element]:
        """Return the elements by tag."""
        return {element.tag: element for element in self.elements}


def parse_file(source: FileSource) -> ParsedFile:
    """Parse a DICOM file up to its pixel data.

    Raises:
        EmptyFileError, NotDicomError: if it is no DICOM file.
        DamagedFileError, TruncatedFileError, NestedTooDeepError, HeaderTooLargeError: if it is a
            DICOM file that does not follow PS3.5 and PS3.10, or exceeds a limit.
    """
    if source.size == 0:
        raise EmptyFileError("is empty")
    if source.holds(132) and source.data[128:132] == b"DICM":
        return _parse_from(source, 132)
    for magic, kind in PACKED.items():
        if source.holds(len(magic)) and source.data[: len(magic)] == magic:
            if _is_nifti(_first_bytes(source.data)):
                raise NotDicomError(NIFTI)
            raise NotDicomError(f"is {kind}: unpack it first")
    if _is_nifti(bytes(source.data[:NIFTI_HEAD])):
        raise NotDicomError(NIFTI)
    if not _may_be_a_data_set(source):
        raise NotDicomError(NO_DICOM)
    try:
        parsed = _parse_from(source, 0)
    except (DamagedFileError, TruncatedFileError) as error:
        raise NotDicomError(NO_DICOM) from error
    if not any(element.tag == SOP_CLASS_UID for element in parsed.elements):
        raise NotDicomError(NO_DICOM)
    return parsed


def _first_bytes(packed: bytes | bytearray | memoryview) -> bytes:
    """Return what a file packed with gzip begins with; nothing where it is another."""
    try:
        return zlib.decompressobj(wbits=31).decompress(bytes(packed[:PACKED_HEAD]), NIFTI_HEAD)
    except zlib.error:
        return b""


def _is_nifti(head: bytes) -> bool:
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def _may_be_a_data_set(source: FileSource) -> bool:
    """Return whether the file, which has no preamble, begins in group 0002 or 0008."""
    return source.holds(16) and bytes(source.data[:2]) in (b"\x02\0", b"\x08\0", b"\0\x08")


def _parse_from(source: FileSource, position: int) -> ParsedFile:
    meta, position = _parse_meta(source, position)
    syntax = meta[TRANSFER_SYNTAX_UID].text if TRANSFER_SYNTAX_UID in meta else ""
    if syntax == DEFLATED_LE:
        source.inflate_from(position)
        position = 0
    encoding = _encoding_at(source, position, syntax)
    parser = _Parser(source)
    elements, _ = parser.data_set(position, None, encoding, depth=0)
    return ParsedFile(
        source=source,
        meta=meta,
        transfer_syntax_uid=syntax or _syntax_of(encoding),
        encoding=encoding,
        elements=elements,
        pixels=parser.pixels,
    )


def _parse_meta(source: FileSource, position: int) -> tuple[dict[int, Element], int]:
    """Return the file meta information, in Explicit VR Little Endian, and its end (PS3.10 7.1)."""
    meta: dict[int, Element] = {}
    parser = _Parser(source)
    while source.holds(position + 8) and source.data[position : position + 2] == b"\x02\0":
        element, position = parser.element(position, EXPLICIT, depth=0)
        if element is not None:
            meta[element.tag] = element
    return meta, position


def _encoding_at(source: FileSource, position: int, syntax: str) -> Encoding:
    """Return the encoding by the transfer syntax, unless the first VR of the data set differs."""
    if not source.holds(position + 8):
        return EXPLICIT
    if not is_vr(bytes(source.data[position + 4 : position + 6])):
        return IMPLICIT
    big = syntax == EXPLICIT_BE or (not syntax and source.data[position] == 0)  # group 00 08
    return Encoding(explicit=True, little=not big)


def _syntax_of(encoding: Encoding) -> str:
    if not encoding.little:
        return EXPLICIT_BE
    return EXPLICIT_LE if encoding.explicit else IMPLICIT_LE


def _require_code_string(vr: bytes, value: bytes) -> bytes:
    """Return the VR of SpecificCharacterSet, whose value later selects a codec.

    Raises:
        DamagedFileError: if it is no text of the default repertoire.
    """
    if vr not in (b"CS", b"UN"):
        raise DamagedFileError(f"SpecificCharacterSet: found VR {vr.decode()}, expected CS")
    if NO_TEXT.search(value.rstrip(b" \0")):
        raise DamagedFileError("SpecificCharacterSet contains bytes that are not characters")
    return b"CS"


class _Parser:
    """Reads the elements of one file up to the pixel data, whose place is then in `pixels`."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.pixels: PixelElement | None = None
        self._signed = False  # PixelRepresentation decides what "US or SS" means
        self._count = 0  # of elements and items

    def data_set(
        self, position: int, stop: int | None, encoding: Encoding, depth: int
    ) -> tuple[list[Element], int]:
        """Return the elements up to `stop` or the item delimiter; at depth 0, to the pixel data."""
        elements: list[Element] = []
        while stop is None or position < stop:
            if depth == 0 and self._ends_at(position):
                return elements, position
            self.source.need(position + 8)
            if depth and stop is None and self._is_delimiter(position, encoding, ITEM_END):
                return elements, position + 8
            element, position = self.element(position, encoding, depth)
            if self.pixels is not None:
                return elements, position
            if element is not None:
                elements.append(element)
        if position != stop:
            raise DamagedFileError(f"an item ends at byte {stop}, its last element at {position}")
        return elements, position

    def element(self, position: int, encoding: Encoding, depth: int) -> tuple[Element | None, int]:
        """Return one element and its end; None for elements that a clean data set leaves out."""
        self._count_one()
        tag, vr, position, length = self._head(position, encoding)
        if depth == 0 and tag in PIXEL_KEYWORDS:
            self.pixels = PixelElement(PIXEL_KEYWORDS[tag], vr, position, length)
            return None, position
        if length == UNDEFINED and vr not in (b"SQ", b"UN"):
            return None, self._after_fragments(position)  # the compressed picture of an icon
        if length == UNDEFINED or vr == b"SQ":
            if tag == SPECIFIC_CHARACTER_SET:
                raise DamagedFileError("SpecificCharacterSet is a sequence, expected CS")
            # PS3.5 6.2.2: a UN of undefined length holds Implicit VR Little Endian
            inside = IMPLICIT if vr == b"UN" else encoding
            items, position = self._items(position, length, inside, depth + 1)
            return Element(tag, b"SQ", b"", items), position
        stop = position + length
        self.source.need(stop)
        value = bytes(self.source.data[position:stop])
        if vr == b"UN" and value.startswith(ITEM_START):
            items_or_none = self._items_of_unknown(position, length, depth + 1)
            if items_or_none is not None:
                return Element(tag, b"SQ", b"", items_or_none), stop
        if not encoding.little:
            value = in_little_endian(value, vr, tag)
        if tag == SPECIFIC_CHARACTER_SET:
            vr = _require_code_string(vr, value)
        if tag == PIXEL_REPRESENTATION and depth == 0:
            self._signed = value[:1] == b"\1"
        if tag & 0xFFFF == 0 or tag >> 16 == 0:  # group lengths (retired) and command elements
            return None, stop
        return Element(tag, vr, value), stop

    def _count_one(self) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise HeaderTooLargeError(f"has more than {MAX_ELEMENTS} elements and items")

    def _head(self, position: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
        """Return tag, VR, offset and length of the value."""
        data, order = self.source.data, encoding.order
        group, number = struct.unpack_from(order + "HH", data, position)
        tag = group << 16 | number
        if group == 0xFFFE:
            raise DamagedFileError(f"found a delimiter at byte {position}, expected an element")
        if not encoding.explicit:
            (length,) = struct.unpack_from("<I", data, position + 4)
            return tag, vr_in_dictionary(tag, self._signed), position + 8, length
        vr = bytes(data[position + 4 : position + 6])
        if vr in SHORT_VRS:
            (length,) = struct.unpack_from(order + "H", data, position + 6)
            return tag, vr, position + 8, length
        if vr not in LONG_VRS:
            raise DamagedFileError(
                f"{name_of(tag)} at byte {position} has a VR that is not in PS3.5"
            )
        self.source.need(position + 12)
        (length,) = struct.unpack_from(order + "I", data, position + 8)
        return tag, vr, position + 12, length

    def _items(
        self, position: int, length: int, encoding: Encoding, depth: int
    ) -> tuple[list[list[Element]], int]:
        """Return the items of a sequence and its end."""
        if depth > MAX_DEPTH:
            raise NestedTooDeepError(f"nests sequences deeper than {MAX_DEPTH}")
        items: list[list[Element]] = []
        stop = None if length == UNDEFINED else position + length
        self.source.need(position if stop is None else stop)
        while stop is None or position < stop:
            self.source.need(position + 8)
            if stop is None and self._is_delimiter(position, encoding, SEQUENCE_END):
                return items, position + 8
            if not self._is_delimiter(position, encoding, ITEM):
                raise DamagedFileError(f"a sequence has no item at byte {position}")
            self._count_one()
            (length,) = struct.unpack_from(encoding.order + "I", self.source.data, position + 4)
            position += 8
            item_stop = None if length == UNDEFINED else position + length
            self.source.need(position if item_stop is None else item_stop)
            inside = self._encoding_in_item(position, encoding)
            item, position = self.data_set(position, item_stop, inside, depth)
            items.append(item)
        if position != stop:
            raise DamagedFileError(f"a sequence ends at byte {stop}, its last item at {position}")
        return items, position

    def _items_of_unknown(
        self, position: int, length: int, depth: int
    ) -> list[list[Element]] | None:
        """Return the items of a UN value that begins like a sequence; None if it is no sequence."""
        try:
            return self._items(position, length, IMPLICIT, depth)[0]
        except (DamagedFileError, TruncatedFileError):
            return None

    def _encoding_in_item(self, position: int, encoding: Encoding) -> Encoding:
        """Return the encoding inside an item, by its first VR: some writers change it there."""
        if not encoding.little or not self.source.holds(position + 8):
            return encoding
        if self.source.data[position : position + 2] == b"\xfe\xff":  # an empty item
            return encoding
        return EXPLICIT if is_vr(bytes(self.source.data[position + 4 : position + 6])) else IMPLICIT

    def _after_fragments(self, position: int) -> int:
        """Return the end of an encapsulated value."""
        while True:
            self.source.need(position + 8)
            group, number, length = struct.unpack_from("<HHI", self.source.data, position)
            if group != 0xFFFE or number not in (ITEM, SEQUENCE_END):
                raise DamagedFileError(f"an encapsulated value has no item at byte {position}")
            position += 8 + length
            self.source.need(position)
            if number == SEQUENCE_END:
                return position

    def _is_delimiter(self, position: int, encoding: Encoding, number: int) -> bool:
        found = struct.unpack_from(encoding.order + "HH", self.source.data, position)
        return found == (0xFFFE, number)

    def _ends_at(self, position: int) -> bool:
        """Return whether the data set ends here; a few zeros behind it are padding."""
        return not self.source.holds(position + 8) and not any(self.source.data[position:])

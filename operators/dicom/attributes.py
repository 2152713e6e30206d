"""Reads and writes single attributes of a header while all others keep their bytes (W1, W9).

The reader returns headers in Explicit VR Little Endian with raw elements, the bytes of the file.
Elements that are not converted are written unchanged, whatever their character set or number
format. Therefore values of a derived header are also set as bytes, and values are read here from
the bytes: this works for any content, in time proportional to its length.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import cast

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import TEXT_VR_DELIMS

from stillscan.operators.dicom.elements import (
    ITEM,
    WORD_BYTES,
    Element,
    item_contents,
    parsed,
    serialised,
)

Item = Sequence[Element]  # of a sequence, its elements in the order of their tags

MOST_TEXT = 2**14  # bytes that are read of any text: an ST has 1024 characters
MOST_VALUES = 64  # of an attribute that is read value by value
MOST_TERMS = 8  # of SpecificCharacterSet
DEFAULT_ENCODINGS = ("iso8859",)
# PS3.5 6.1.2.3: the VRs whose text SpecificCharacterSet concerns; all others are ASCII
CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# PS3.5 table 6.2-1: characters of a value; LT and ST have one value, where \ is a character
LONGEST = {"AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "DT": 26, "IS": 12, "LO": 64}
LONGEST |= {"PN": 194, "SH": 16, "TM": 14, "UI": 64, "LT": 10240, "ST": 1024}
ONE_VALUE = ("LT", "ST", "UT")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([Ee][+-]?\d+)?", re.ASCII)
BINARY = {"SS": "h", "US": "H", "SL": "i", "UL": "I", "FL": "f", "FD": "d"}
BINARY |= {"SV": "q", "UV": "Q"}
# terms of PS3.3 C.12.1.1.2 as scanners spell them: `ISO-IR 100`
MISSPELLED = re.compile(r"ISO[-_ ](IR[-_ ]|2022[-_ ]IR[-_ ])(\d{1,3})", re.ASCII)


@lru_cache(maxsize=512)
def tag_of(keyword: str) -> BaseTag:
    """Return the tag of an attribute's keyword."""
    return Tag(cast(int, tag_for_keyword(keyword)))


@lru_cache(maxsize=512)
def vr_of(keyword: str) -> str:
    """Return the VR that PS3.6 gives an attribute."""
    return dictionary_VR(tag_of(keyword))


def data_set(content: bytes | bytearray, parent: tuple[str, ...] = DEFAULT_ENCODINGS) -> Dataset:
    """Return a data set whose values stay raw bytes until they are read.

    Args:
        content: Explicit VR Little Endian, every length defined.
        parent: the character set, as Python names it, where the data set has none of its own.

    Raises:
        DamagedFileError: if it is not.
    """
    elements = parsed(content)
    made = Dataset(_raw_elements(elements))
    made.set_original_encoding(False, True, list(_character_set(made, parent)))
    return made


def text_of(header: Dataset, keyword: str) -> str:
    r"""Return the text of an attribute, values separated by \, empty where it is absent."""
    tag = tag_of(keyword)
    if tag not in header or header.get_item(tag).VR == "SQ":
        return ""
    value = header.get_item(tag).value
    if isinstance(value, bytes):
        in_set = vr_of(keyword) in CHARACTER_SET_VRS
        encodings = _character_set(header) if in_set else DEFAULT_ENCODINGS
        return _decoded(value[:MOST_TEXT], encodings).strip(" \0")
    if value is None or isinstance(value, str):
        return (value or "").strip(" \0")
    return "\\".join(map(str, value)) if hasattr(value, "__iter__") else str(value)


def integer_of(header: Dataset, keyword: str) -> int | None:
    """Return the value of an attribute whose VR is US or SS, None where it is absent."""
    tag = tag_of(keyword)
    element = header.get_item(tag) if tag in header else None
    if element is None or element.value in (None, b"", ""):
        return None
    if isinstance(element.value, bytes):
        return int.from_bytes(element.value[:2], "little", signed=element.VR == "SS")
    return int(cast(int, element.value))


def number_of(header: Dataset, keyword: str) -> float | None:
    """Return the first value of a DS as a finite number, None where there is none."""
    text = text_of(header, keyword).partition("\\")[0].strip()
    number = float(text) if NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def values_of(header: Dataset, keyword: str) -> list[str]:
    """Return the values of any attribute as text; none of a sequence, or of bytes."""
    tag = tag_of(keyword)
    element = header.get_item(tag) if tag in header else None
    if element is None or element.VR == "SQ":
        return []
    vr = vr_of(keyword) if element.VR in (None, "UN") else str(element.VR)
    if isinstance(element.value, bytes):
        if vr in BINARY:
            size = WORD_BYTES[vr.encode()]
            count = min(len(element.value) // size, MOST_VALUES)
            numbers = struct.unpack_from(f"<{count}{BINARY[vr]}", element.value)
            return [f"{each:.10g}" if isinstance(each, float) else str(each) for each in numbers]
        if vr not in LONGEST and vr not in CHARACTER_SET_VRS:
            return []
    text = text_of(header, keyword)
    values = [text] if vr in ONE_VALUE else text.split("\\")[:MOST_VALUES]
    return [each.strip() for each in values]


def put(header: Dataset, keyword: str, value: bytes, vr: str = "") -> None:
    """Set the value of an attribute."""
    tag = tag_of(keyword)
    header[tag] = RawDataElement(tag, vr or vr_of(keyword), len(value), value, 0, False, True)


def put_text(header: Dataset, keyword: str, text: str) -> None:
    """Set the text of an attribute, in the character set of `header`, cut to the length of its VR.

    If that character set cannot represent the text (the text of the source was broken), only its
    ASCII characters are kept; a code, a UID or a number is ASCII in every character set.
    """
    vr = vr_of(keyword)
    values = [text] if vr in ONE_VALUE else text.split("\\")
    text = "\\".join(value[: LONGEST.get(vr)] for value in values)
    if vr in CHARACTER_SET_VRS:
        put(header, keyword, _encoded(text, _character_set(header)))
    else:
        put(header, keyword, text.encode("ascii", "ignore"))


def put_items(header: Dataset, keyword: str, items: Sequence[Item]) -> None:
    """Set the items of a sequence."""
    put(header, keyword, _items_as_bytes(items))


def append_item(header: Dataset, keyword: str, item: Item) -> None:
    """Append to a sequence; existing items are unchanged and come first."""
    put(header, keyword, sequence_value(header, keyword) + _items_as_bytes([item]))


def append_items_of(header: Dataset, keyword: str, other: Dataset) -> None:
    """Append the items of the same sequence of another header, unchanged."""
    put(header, keyword, b"".join(sequence_value(each, keyword) for each in (header, other)))


def own_items(header: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, parsed for this `header` only, not shared with others.

    None if the attribute is absent, or is not a sequence.
    """
    tag = tag_of(keyword)
    if tag not in header:
        return []
    encodings = _character_set(header)
    items = [data_set(each, encodings) for each in item_contents(sequence_value(header, keyword))]
    header[tag] = DataElement(tag, "SQ", ItemSequence(items))
    return items


def sequence_value(header: Dataset, keyword: str) -> bytes:
    """Return the items of a sequence as bytes; no bytes if the attribute is no sequence."""
    tag = tag_of(keyword)
    element = header.get_item(tag) if tag in header else None
    if element is None or element.VR != "SQ":
        return b""
    return value_of(element, _character_set(header))


def encoded(header: Dataset, inherited: tuple[str, ...] = DEFAULT_ENCODINGS) -> bytes:
    """Return the data set in Explicit VR Little Endian, raw elements as they are.

    Args:
        header: a data set from the reader, or an item in it.
        inherited: the character set (as Python names it) that an item without its own has.

    Raises:
        ValueError: if the raw elements of `header` are not in Explicit VR Little Endian.
    """
    if len(header) and header.original_encoding != (False, True):
        raise ValueError("a header must come from the reader, in Explicit VR Little Endian")
    encodings = _character_set(header, inherited)
    return serialised(
        [
            Element(tag, (each.VR or "UN").encode(), value_of(each, encodings))
            for tag, each in sorted(header.items())
        ]
    )


def value_of(
    element: DataElement | RawDataElement, encodings: tuple[str, ...] = DEFAULT_ENCODINGS
) -> bytes:
    """Return the value of an element as bytes; for a raw element, the bytes of the file."""
    if isinstance(element, RawDataElement):
        return element.value or b""  # pydicom reads an empty number as None
    if element.VR == "SQ":
        contents = [encoded(item, encodings) for item in element.value]
        return b"".join(struct.pack("<HHI", 0xFFFE, ITEM, len(each)) + each for each in contents)
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = True, True
    write_data_element(file, element, list(encodings))
    return file.getvalue()[8:]  # after tag and length


def _raw_elements(elements: Iterable[Element]) -> dict[BaseTag, DataElement | RawDataElement]:
    tagged = ((BaseTag(each.tag), each) for each in elements)
    return {
        tag: RawDataElement(
            tag, each.vr.decode("latin-1"), len(each.value), each.value, 0, False, True
        )
        for tag, each in tagged
    }


def _items_as_bytes(items: Sequence[Item]) -> bytes:
    sequence = serialised([Element(0, b"SQ", b"", [list(item) for item in items])])
    return sequence[12:]  # after tag, VR and length


def _character_set(
    header: Dataset, inherited: tuple[str, ...] = DEFAULT_ENCODINGS
) -> tuple[str, ...]:
    """Return SpecificCharacterSet as Python's names of the encodings."""
    tag = tag_of("SpecificCharacterSet")
    if tag not in header:
        return inherited
    value = header.get_item(tag).value
    if isinstance(value, bytes):
        return _encodings(value.decode("ascii", "replace"))
    return _encodings(value if isinstance(value, str) else "\\".join(value or ()))


@lru_cache(maxsize=64)  # a misspelled term makes pydicom warn: once is enough
def _encodings(terms: str) -> tuple[str, ...]:
    """Return the encodings of SpecificCharacterSet as Python names them."""
    return tuple(convert_encodings(defined_terms(terms)))


def defined_terms(terms: str) -> list[str]:
    """Return the terms of PS3.3 C.12.1.1.2, "" for others; pydicom accepts any codec of Python."""
    named = [MISSPELLED.sub(_well_spelled, each.strip(" \0")) for each in terms.split("\\")]
    return [term if term in python_encoding else "" for term in named[:MOST_TERMS]]


def _well_spelled(found: re.Match[str]) -> str:
    return f"ISO_IR {found[2]}" if found[1].startswith("IR") else f"ISO 2022 IR {found[2]}"


@lru_cache(maxsize=1024)
def _decoded(value: bytes, encodings: tuple[str, ...]) -> str:
    return decode_bytes(value, encodings, TEXT_VR_DELIMS)


@lru_cache(maxsize=1024)
def _encoded(text: str, encodings: tuple[str, ...]) -> bytes:
    value = encode_string(text, encodings)
    return value if _decoded(value, encodings) == text else text.encode("ascii", "ignore")

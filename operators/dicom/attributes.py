"""Single attributes of a header, read and written while all others keep their bytes (W1, W9).

The reader gives headers in Explicit VR Little Endian whose elements are raw: the bytes of the file.
As long as nobody converts them they are written as they came, whatever their character set says and
however their numbers are spelled. So what a derived header changes is put in as bytes too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import TEXT_VR_DELIMS

from stillscan.operators.dicom.elements import ITEM, Element, serialised

Item = Sequence[Element]  # of a sequence, its elements in the order of their tags


@lru_cache(maxsize=512)
def tag_of(keyword: str) -> BaseTag:
    """The tag of an attribute's keyword."""
    return Tag(cast(int, tag_for_keyword(keyword)))


@lru_cache(maxsize=512)
def vr_of(keyword: str) -> str:
    """The VR that PS3.6 gives an attribute."""
    return dictionary_VR(tag_of(keyword))


def text_of(header: Dataset, keyword: str) -> str:
    r"""The text of an attribute, values separated by \, empty where it is absent."""
    tag = tag_of(keyword)
    if tag not in header:
        return ""
    value = header.get_item(tag).value
    if isinstance(value, bytes):
        return _decoded(value, _character_set(header)).strip(" \0")
    if value is None or isinstance(value, str):
        return (value or "").strip(" \0")
    return "\\".join(map(str, value)) if hasattr(value, "__iter__") else str(value)


def integer_of(header: Dataset, keyword: str) -> int | None:
    """The value of an attribute whose VR is US or SS, None where it is absent."""
    tag = tag_of(keyword)
    element = header.get_item(tag) if tag in header else None
    if element is None or element.value in (None, b"", ""):
        return None
    if isinstance(element.value, bytes):
        return int.from_bytes(element.value[:2], "little", signed=element.VR == "SS")
    return int(cast(int, element.value))


def put(header: Dataset, keyword: str, value: bytes, vr: str = "") -> None:
    """Give an attribute this value."""
    tag = tag_of(keyword)
    header[tag] = RawDataElement(tag, vr or vr_of(keyword), len(value), value, 0, False, True)


def put_text(header: Dataset, keyword: str, text: str) -> None:
    """Give an attribute this text, in the character set of `header`.

    Where that set cannot hold the text (the source's was broken), only the ASCII in it stays.
    """
    put(header, keyword, _encoded(text, _character_set(header)))


def put_items(header: Dataset, keyword: str, items: Sequence[Item]) -> None:
    """Give a sequence these items."""
    put(header, keyword, _items_as_bytes(items))


def append_item(header: Dataset, keyword: str, item: Item) -> None:
    """Append to a sequence: the items that it has stay as they are and come first."""
    tag = tag_of(keyword)
    before = b"" if tag not in header else _value_of(header.get_item(tag), _character_set(header))
    put(header, keyword, before + _items_as_bytes([item]))


def append_items_of(header: Dataset, keyword: str, other: Dataset) -> None:
    """Append to a sequence the items that it has in another header, as they are."""
    tag = tag_of(keyword)
    sets = (each for each in (header, other) if tag in each)
    put(header, keyword, b"".join(_value_of(s.get_item(tag), _character_set(s)) for s in sets))


def own_items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, parsed for `header` alone: changing them changes no other header."""
    tag = tag_of(keyword)
    if tag not in header:
        return []
    put(header, keyword, _value_of(header.get_item(tag), _character_set(header)))
    return list(header[tag].value)


def encoded(header: Dataset, inherited: tuple[str, ...] = ("iso8859",)) -> bytes:
    """The data set in Explicit VR Little Endian, raw elements as they are.

    Args:
        header: a data set from the reader, or an item in it.
        inherited: the character set (as Python names it) that an item without its own has.

    Raises:
        ValueError: if the raw elements of `header` are not in Explicit VR Little Endian.
    """
    if header.original_encoding != (False, True):
        raise ValueError("a header must come from the reader, in Explicit VR Little Endian")
    encodings = _character_set(header, inherited)
    return serialised(
        [
            Element(tag, (each.VR or "UN").encode(), _value_of(each, encodings))
            for tag, each in sorted(header.items())
        ]
    )


def _value_of(element: DataElement | RawDataElement, encodings: tuple[str, ...]) -> bytes:
    if isinstance(element, RawDataElement):
        return element.value or b""  # pydicom reads an empty number as None
    if element.VR == "SQ":
        contents = [encoded(item, encodings) for item in element.value]
        return b"".join(struct.pack("<HHI", 0xFFFE, ITEM, len(each)) + each for each in contents)
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = True, True
    write_data_element(file, element, list(encodings))
    return file.getvalue()[8:]  # after tag and length


def _items_as_bytes(items: Sequence[Item]) -> bytes:
    sequence = serialised([Element(0, b"SQ", b"", [list(item) for item in items])])
    return sequence[12:]  # after tag, VR and length


def _character_set(header: Dataset, inherited: tuple[str, ...] = ("iso8859",)) -> tuple[str, ...]:
    """SpecificCharacterSet as Python's names of the encodings."""
    tag = tag_of("SpecificCharacterSet")
    if tag not in header:
        return inherited
    value = header.get_item(tag).value
    if isinstance(value, bytes):
        return _encodings(value.decode("ascii", "replace"))
    return _encodings(value if isinstance(value, str) else "\\".join(value or ()))


@lru_cache(maxsize=64)  # an unknown term makes pydicom warn: once is enough
def _encodings(terms: str) -> tuple[str, ...]:
    return tuple(convert_encodings([term.strip(" \0") for term in terms.split("\\")]))


@lru_cache(maxsize=1024)
def _decoded(value: bytes, encodings: tuple[str, ...]) -> str:
    return decode_bytes(value, encodings, TEXT_VR_DELIMS)


@lru_cache(maxsize=1024)
def _encoded(text: str, encodings: tuple[str, ...]) -> bytes:
    value = encode_string(text, encodings)
    return value if _decoded(value, encodings) == text else text.encode("ascii", "ignore")

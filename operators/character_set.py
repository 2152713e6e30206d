"""Text in a dataset's own character set, read and written without touching anything else (W9)."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import TEXT_VR_DELIMS


def tag_of(keyword: str) -> BaseTag:
    """The tag of an attribute's keyword."""
    return Tag(cast(int, tag_for_keyword(keyword)))


def text_of(dataset: Dataset, keyword: str) -> str:
    """The text of an attribute, empty where it is absent. `dataset` keeps its raw elements raw."""
    tag = tag_of(keyword)
    if tag not in dataset:
        return ""
    value = dataset.get_item(tag).value
    if isinstance(value, bytes):
        return _decoded(value, _character_set(dataset)).strip(" \0")
    if value is None or isinstance(value, str):
        return str(value or "").strip(" \0")
    return "\\".join(map(str, value)) if hasattr(value, "__iter__") else str(value)


def text_element(dataset: Dataset, keyword: str, text: str) -> RawDataElement:
    """The element for `dataset` that says `text` in the character set of `dataset`.

    Where that set cannot hold the text (its source was broken), only the ASCII in it stays.
    """
    value = _encoded(text, _character_set(dataset))
    tag = tag_of(keyword)
    return RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)


def _character_set(dataset: Dataset) -> tuple[str, ...]:
    """SpecificCharacterSet as Python's names of the encodings."""
    tag = tag_of("SpecificCharacterSet")
    element: DataElement | RawDataElement | None = dataset.get_item(tag) if tag in dataset else None
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").split("\\")
    terms = [value] if isinstance(value, str) or value is None else list(value)
    return _encodings(tuple((term or "").strip(" \0") for term in terms))


@lru_cache(maxsize=64)  # an unknown term makes pydicom warn: once is enough
def _encodings(terms: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(convert_encodings(list(terms)))


@lru_cache(maxsize=256)
def _decoded(value: bytes, encodings: tuple[str, ...]) -> str:
    return decode_bytes(value, encodings, TEXT_VR_DELIMS)


@lru_cache(maxsize=256)
def _encoded(text: str, encodings: tuple[str, ...]) -> bytes:
    value = encode_string(text, encodings)
    if _decoded(value, encodings) != text:
        value = text.encode("ascii", "ignore")
    return value + b" " * (len(value) % 2)

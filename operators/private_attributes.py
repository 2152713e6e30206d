"""Private attributes of a derived header: none, but those on an allow-list (W8).

What a manufacturer hides in private groups may describe the source's pixels (histograms, checksums,
a second image) or the patient; neither is true or wanted in a derived image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, cast

from pydicom import DataElement, Dataset, Sequence
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

# From the safe private attributes of PS3.15 table E.3.10-1: what one must know to use the pixels.
SAFE_PRIVATE_ATTRIBUTES = (
    '(0019,"SIEMENS MR HEADER",0c)',  # b value
    '(0019,"SIEMENS MR HEADER",0d)',  # diffusion directionality
    '(0019,"SIEMENS MR HEADER",0e)',  # diffusion gradient direction
    '(0019,"SIEMENS MR HEADER",27)',  # b matrix
    '(0043,"GEMS_PARM_01",39)',  # b value
    '(2001,"Philips Imaging DD 001",03)',  # b value
    '(2001,"Philips Imaging DD 001",04)',  # diffusion direction
    '(2005,"Philips MR Imaging DD 001",0d)',  # scale intercept
    '(2005,"Philips MR Imaging DD 001",0e)',  # scale slope
    '(7053,"Philips PET Private Group",00)',  # SUV scale factor
    '(7053,"Philips PET Private Group",09)',  # activity concentration scale factor
)
_NOTATION = re.compile(r'\(([0-9a-f]{4}),"([^"\\]{1,64})",([0-9a-f]{2})\)', re.IGNORECASE)


class PrivateAttribute(NamedTuple):
    """A private attribute, wherever its creator has reserved its block (PS3.5 7.8.1)."""

    group: int
    creator: str
    element: int


def parse_private_attribute(text: str) -> PrivateAttribute:
    """Read the notation of PS3.15 and dcmtk: `(0019,"SIEMENS MR HEADER",0c)`.

    Raises:
        ValueError: if `text` is not in this notation, or its group is not a private one.
    """
    match = _NOTATION.fullmatch(text.strip())
    if match is None or not int(match[1], 16) % 2:
        raise ValueError(
            f'{text!r} is no private attribute; expected (gggg,"CREATOR",ee) with an odd group'
        )
    return PrivateAttribute(int(match[1], 16), match[2], int(match[3], 16))


def without_private(dataset: Dataset, allowed: frozenset[PrivateAttribute]) -> Dataset:
    """A shallow copy of `dataset` without the private attributes that are not `allowed`.

    Sequences are cleaned too. Elements that stay are the same objects, raw ones stay raw, so that
    they are written with the bytes they were read with; `dataset` itself is not changed.
    """
    kept_private = set(_allowed_tags(dataset, allowed))
    copy = Dataset(
        {
            tag: dataset.get_item(tag)
            for tag in dataset.keys()  # noqa: SIM118 (iterating would convert raw elements)
            if not tag.is_private or tag in kept_private
        }
    )
    implicit, little_endian = dataset.original_encoding
    copy.set_original_encoding(implicit, little_endian, dataset.original_character_set)
    copy.is_undefined_length_sequence_item = dataset.is_undefined_length_sequence_item
    for tag in [tag for tag in copy.keys() if copy.get_item(tag).VR == "SQ"]:  # noqa: SIM118
        raw = copy.get_item(tag)
        items = cast(Sequence, copy[tag].value)
        if any(_holds_private(item) for item in items):
            copy[tag] = _sequence(tag, (without_private(item, allowed) for item in items))
        else:
            copy[tag] = raw
    return copy


def _sequence(tag: BaseTag, items: Iterable[Dataset]) -> DataElement:
    return DataElement(tag, "SQ", Sequence(items))


def _holds_private(dataset: Dataset) -> bool:
    return any(tag.is_private for tag in dataset.keys()) or any(  # noqa: SIM118
        _holds_private(item)
        for tag in dataset.keys()  # noqa: SIM118
        if dataset.get_item(tag).VR == "SQ"
        for item in dataset[tag].value
    )


def _allowed_tags(dataset: Dataset, allowed: frozenset[PrivateAttribute]) -> Iterable[BaseTag]:
    """The allowed private elements of this dataset and the creators that reserve their blocks."""
    for tag in dataset.keys():  # noqa: SIM118
        if tag.is_private and tag.element > 0xFF:
            creator_tag = Tag(tag.group, tag.element >> 8)
            if creator_tag not in dataset:
                continue
            creator = _text(dataset.get_item(creator_tag))
            if PrivateAttribute(tag.group, creator, tag.element & 0xFF) in allowed:
                yield tag
                yield creator_tag


def _text(element: DataElement | RawDataElement) -> str:
    value = element.value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")

"""Private attributes of a derived header: none, but those on an allow-list (W8).

What a manufacturer hides in private groups may describe the source's pixels (histograms, checksums,
a second image) or the patient; neither is true or wanted in a derived image.
"""

from __future__ import annotations

import re
from typing import NamedTuple, cast

from pydicom import DataElement, Dataset, Sequence
from pydicom.dataelem import RawDataElement

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
    kept = _allowed_tags(dataset, allowed)
    copy = Dataset(
        {tag: each for tag, each in dataset.items() if not _is_private(tag) or tag in kept}
    )
    implicit, little_endian = dataset.original_encoding
    copy.set_original_encoding(implicit, little_endian, dataset.original_character_set)
    for tag, element in list(copy.items()):
        if element.VR == "SQ":
            items = cast(Sequence, copy[tag].value)
            if any(_holds_private(item) for item in items):
                cleaned = Sequence(without_private(item, allowed) for item in items)
                copy[tag] = DataElement(tag, "SQ", cleaned)
            else:
                copy[tag] = element
    return copy


def _holds_private(dataset: Dataset) -> bool:
    return any(map(_is_private, dataset.keys())) or any(
        _holds_private(item)
        for tag, element in list(dataset.items())
        if element.VR == "SQ"
        for item in dataset[tag].value
    )


def _allowed_tags(dataset: Dataset, allowed: frozenset[PrivateAttribute]) -> set[int]:
    """The allowed private elements of this dataset and the creators that reserve their blocks."""
    trusted = {each.creator for each in allowed}
    blocks = {  # (gggg,00bb) reserves (gggg,bb00) to (gggg,bbff), PS3.5 7.8.1
        tag >> 16 << 8 | tag & 0xFF: (tag, creator)
        for tag, each in dataset.items()
        if _is_creator(tag) and (creator := _text(each)) in trusted
    }
    tags: set[int] = set()
    for tag in dataset.keys() if blocks else ():
        creator_tag, creator = blocks.get(tag >> 8, (tag, ""))
        if PrivateAttribute(tag >> 16, creator, tag & 0xFF) in allowed:
            tags |= {tag, creator_tag}
    return tags


def _is_private(tag: int) -> bool:
    return bool(tag >> 16 & 1)


def _is_creator(tag: int) -> bool:
    return _is_private(tag) and 0x10 <= tag & 0xFFFF <= 0xFF


def _text(element: DataElement | RawDataElement) -> str:
    value = element.value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0")

"""Private attributes of a derived header: none, but those on an allow-list (W8).

What a manufacturer hides in private groups may describe the source's pixels (histograms, checksums,
a second image) or the patient; neither is true or wanted in a derived image.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import NamedTuple

from pydicom import Dataset
from pydicom.dataelem import RawDataElement

from stillscan.operators.dicom.attributes import value_of
from stillscan.operators.dicom.elements import ITEM, item_contents, parsed, serialised

# What one must know to use the pixels: b values and directions, how slices lie in a mosaic and when
# they were acquired. From the safe private attributes of PS3.15 table E.3.10-1, and from what
# rordenlab/dcm2niix (nii_dicom.cpp), gdcm and nibabel read.
SAFE_PRIVATE_ATTRIBUTES = (
    '(0019,"SIEMENS MR HEADER",08)',  # type of the CSA header
    '(0019,"SIEMENS MR HEADER",0a)',  # number of images in the mosaic
    '(0019,"SIEMENS MR HEADER",0b)',  # duration of a slice
    '(0019,"SIEMENS MR HEADER",0c)',  # b value
    '(0019,"SIEMENS MR HEADER",0d)',  # diffusion directionality
    '(0019,"SIEMENS MR HEADER",0e)',  # diffusion gradient direction
    '(0019,"SIEMENS MR HEADER",18)',  # dwell time
    '(0019,"SIEMENS MR HEADER",27)',  # b matrix
    '(0019,"SIEMENS MR HEADER",28)',  # bandwidth per pixel in phase direction
    '(0019,"SIEMENS MR HEADER",29)',  # when the slices of a mosaic were acquired
    '(0021,"SIEMENS MR SDI 02",fe)',  # holds the next ones, for each frame
    '(0021,"SIEMENS MR SDI 02",04)',  # when a slice was acquired
    '(0021,"SIEMENS MR SDI 02",06)',  # its place in the dimensions of the series
    '(0021,"SIEMENS MR SDI 02",1c)',  # phase encoding direction
    '(0021,"SIEMENS MR SDI 02",53)',  # bandwidth per pixel in phase direction
    '(0021,"SIEMENS MR SDI 02",58)',  # acquisition matrix
    '(0029,"SIEMENS CSA HEADER",08)',  # type of the next but one
    '(0029,"SIEMENS CSA HEADER",09)',  # its version
    '(0029,"SIEMENS CSA HEADER",10)',  # image header: mosaic, slice normal, timing, diffusion
    '(0029,"SIEMENS CSA HEADER",18)',  # the same of the series
    '(0029,"SIEMENS CSA HEADER",19)',
    '(0029,"SIEMENS CSA HEADER",20)',  # its protocol: where the slices of a mosaic lie
    '(0051,"SIEMENS MR HEADER",0b)',  # acquisition matrix
    '(0019,"GEMS_ACQU_01",9c)',  # pulse sequence
    '(0019,"GEMS_ACQU_01",9e)',
    '(0019,"GEMS_ACQU_01",bb)',  # diffusion direction
    '(0019,"GEMS_ACQU_01",bc)',
    '(0019,"GEMS_ACQU_01",bd)',
    '(0019,"GEMS_ACQU_01",df)',  # how many images without and with diffusion
    '(0019,"GEMS_ACQU_01",e0)',
    '(0021,"GEMS_RELA_01",4f)',  # locations in the acquisition
    '(0021,"GEMS_RELA_01",5a)',  # kind of diffusion directions
    '(0021,"GEMS_RELA_01",5e)',  # when a slice was acquired
    '(0025,"GEMS_SERS_01",1b)',  # protocol: order of slices
    '(0043,"GEMS_PARM_01",2c)',  # echo spacing
    '(0043,"GEMS_PARM_01",2f)',  # magnitude
    '(0009,"GEMS_PETD_01",0d)',  # GE PET: when the scan began
    '(0043,"GEMS_PARM_01",30)',  # kind of image
    '(0043,"GEMS_PARM_01",39)',  # b value
    '(0043,"GEMS_PARM_01",83)',  # acceleration
    '(2001,"Philips Imaging DD 001",03)',  # b value
    '(2001,"Philips Imaging DD 001",04)',  # diffusion direction
    '(2001,"Philips Imaging DD 001",08)',  # phase
    '(2001,"Philips Imaging DD 001",0a)',  # slice
    '(2001,"Philips Imaging DD 001",18)',  # number of slices
    '(2001,"Philips Imaging DD 001",81)',  # number of dynamics
    '(2005,"Philips MR Imaging DD 001",0d)',  # scale intercept
    '(2005,"Philips MR Imaging DD 001",0e)',  # scale slope
    '(2005,"Philips MR Imaging DD 001",a0)',  # when a dynamic began
    '(2005,"Philips MR Imaging DD 001",b0)',  # diffusion direction
    '(2005,"Philips MR Imaging DD 001",b1)',
    '(2005,"Philips MR Imaging DD 001",b2)',
    '(2005,"Philips MR Imaging DD 005",12)',  # number of the b value
    '(2005,"Philips MR Imaging DD 005",13)',  # number of the direction
    '(2005,"Philips MR Imaging DD 005",29)',  # label or control
    '(0061,"DB Dicom Private Creator",02)',  # UIH: private format
    '(0065,"Image Private Header",05)',  # UIH: phase encoding direction
    '(0065,"Image Private Header",09)',  # b value
    '(0065,"Image Private Header",0a)',
    '(0065,"Image Private Header",14)',  # slice normal
    '(0065,"Image Private Header",37)',  # diffusion direction
    '(0065,"Image Private Header",50)',  # slices in a grid
    '(0065,"Image Private Header",51)',  # and when and where each was acquired
    '(0071,"SIEMENS MED PT",22)',  # time to which decay is corrected
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
            f'{text!r} is not a private attribute; expected (gggg,"CREATOR",ee) with an odd group'
        )
    return PrivateAttribute(int(match[1], 16), match[2], int(match[3], 16))


def without_private(dataset: Dataset, allowed: frozenset[PrivateAttribute]) -> Dataset:
    """A shallow copy of `dataset` without the private attributes that are not `allowed`.

    Sequences are cleaned too, as bytes: however many items they have, no object is made of one.
    Elements that stay are the same objects, raw ones stay raw, so that they are written with the
    bytes they were read with; `dataset` itself is not changed.
    """
    creators = ((tag, value_of(each)) for tag, each in dataset.items() if _is_creator(tag))
    kept = _allowed_tags(dataset.keys(), creators, allowed)
    copy = Dataset(
        {tag: each for tag, each in dataset.items() if not _is_private(tag) or tag in kept}
    )
    implicit, little_endian = dataset.original_encoding
    copy.set_original_encoding(implicit, little_endian, dataset.original_character_set)
    for tag, element in list(copy.items()):
        if element.VR == "SQ":
            before = value_of(element)
            after = _clean_items(before, allowed)
            if after is not before:
                copy[tag] = RawDataElement(tag, "SQ", len(after), after, 0, False, True)
    return copy


def _clean_items(value: bytes, allowed: frozenset[PrivateAttribute]) -> bytes:
    """The items of a sequence without private attributes; the same object where they have none."""
    before = item_contents(value)
    after = [_clean(each, allowed) for each in before]
    if all(one is other for one, other in zip(before, after, strict=True)):
        return value
    return b"".join(struct.pack("<HHI", 0xFFFE, ITEM, len(each)) + each for each in after)


def _clean(content: bytes, allowed: frozenset[PrivateAttribute]) -> bytes:
    """A data set without private attributes; the same object where it has none."""
    elements = parsed(content)
    creators = [(each.tag, each.value) for each in elements if _is_creator(each.tag)]
    kept = _allowed_tags((each.tag for each in elements), creators, allowed)
    changed, cleaned = False, []
    for each in elements:
        if _is_private(each.tag) and each.tag not in kept:
            changed = True
            continue
        if each.vr == b"SQ" and each.value:
            value = _clean_items(each.value, allowed)
            changed = changed or value is not each.value
            each = each._replace(value=value)
        cleaned.append(each)
    return serialised(cleaned) if changed else content


def _allowed_tags(
    tags: Iterable[int],
    creators: Iterable[tuple[int, bytes]],
    allowed: frozenset[PrivateAttribute],
) -> set[int]:
    """The allowed private elements among `tags` and the creators that reserve their blocks."""
    trusted = {each.creator for each in allowed}
    blocks = {  # (gggg,00bb) reserves (gggg,bb00) to (gggg,bbff), PS3.5 7.8.1
        tag >> 16 << 8 | tag & 0xFF: (tag, creator)
        for tag, value in creators
        if (creator := value.decode("ascii", "replace").strip(" \0")) in trusted
    }
    kept: set[int] = set()
    for tag in tags if blocks else ():
        creator_tag, creator = blocks.get(tag >> 8, (tag, ""))
        if PrivateAttribute(tag >> 16, creator, tag & 0xFF) in allowed:
            kept |= {tag, creator_tag}
    return kept


def _is_private(tag: int) -> bool:
    return bool(tag >> 16 & 1)


def _is_creator(tag: int) -> bool:
    return _is_private(tag) and 0x10 <= tag & 0xFFFF <= 0xFF

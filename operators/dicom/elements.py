"""Reads data elements as bytes and writes a clean Explicit VR Little Endian data set.

Runs in the reading process and imports the standard library alone, but for pydicom's dictionary,
which is imported when a file is in implicit VR. No value is decoded: text keeps its bytes whatever
its character set says (W9), and an impossible number has no effect until it is needed.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from stillscan.operators.errors import DamagedFileError

MAX_TEXT = 1024  # of any text that travels to the parent
LARGEST_WHOLE_NUMBER = 2**31 - 1  # of an IS (PS3.5 table 6.2-1)
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
ITEM, ITEM_END, SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD  # elements of group FFFE

# PS3.5 7.1.2: these have a two-byte length, the others two reserved bytes and a four-byte length
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SPACE_PADDED_VRS = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UR UT".split())
WORD_BYTES = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4),
    **dict.fromkeys((b"FD", b"OD", b"SV", b"UV", b"OV"), 8),
}
WORD_CODES = {2: "H", 4: "I", 8: "Q"}
_HEAD = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<I")
_ITEM_HEAD = struct.Struct("<HHI")


class Element(NamedTuple):
    """One element: its value in little endian, or the items of a sequence."""

    tag: int
    vr: bytes
    value: bytes
    items: list[list[Element]] | None = None

    @property
    def text(self) -> str:
        """Return the value as text without its padding; for UIDs, codes and numbers."""
        return self.value.decode("latin-1").strip(" \0")


Tags = dict[int, Element]


def is_vr(vr: bytes) -> bool:
    """Return whether PS3.5 knows this VR."""
    return vr in SHORT_VRS or vr in LONG_VRS


def name_of(tag: int) -> str:
    """Return (gggg,eeee), for messages."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def serialised(elements: Sequence[Element]) -> bytes:
    """Return the data set in Explicit VR Little Endian, every length defined."""
    return b"".join(_pieces(elements))


def _pieces(elements: Sequence[Element]) -> Iterator[bytes]:
    for tag, vr, plain, items in elements:
        value = plain if items is None else _serialised_items(items)
        if len(value) % 2:
            value += b" " if vr in SPACE_PADDED_VRS else b"\0"
        group, number = tag >> 16, tag & 0xFFFF
        if vr in SHORT_VRS and len(value) <= 0xFFFF:
            yield struct.pack("<HH2sH", group, number, vr, len(value)) + value
        else:  # PS3.5 6.2.2: what is too long for its VR becomes UN
            long_vr = vr if vr in LONG_VRS else b"UN"
            yield struct.pack("<HH2sHI", group, number, long_vr, 0, len(value)) + value


def _serialised_items(items: Sequence[Sequence[Element]]) -> bytes:
    return b"".join(
        struct.pack("<HHI", 0xFFFE, ITEM, len(item)) + item for item in map(serialised, items)
    )


def parsed(content: bytes | bytearray) -> list[Element]:
    """Return the elements of a data set in Explicit VR Little Endian; sequences keep their bytes.

    Raises:
        DamagedFileError: if a length does not fit.
    """
    elements: list[Element] = []
    at, end = 0, len(content)
    while at < end:
        try:
            group, number, vr, length = _HEAD.unpack_from(content, at)
            at += _HEAD.size
            if vr not in SHORT_VRS:
                (length,) = _LONG_LENGTH.unpack_from(content, at)
                at += _LONG_LENGTH.size
        except struct.error as error:
            raise DamagedFileError(f"an element at byte {at} is cut off") from error
        if length > end - at:
            raise DamagedFileError(f"an element of {length} bytes at byte {at} of {end}")
        elements.append(Element(group << 16 | number, vr, bytes(content[at : at + length])))
        at += length
    return elements


def item_contents(value: bytes) -> list[bytes]:
    """Return the items of a sequence in Explicit VR Little Endian, every length defined, as bytes.

    Raises:
        DamagedFileError: if the value is no sequence.
    """
    items: list[bytes] = []
    at, end = 0, len(value)
    while at < end:
        if end - at < _ITEM_HEAD.size:
            raise DamagedFileError(f"an item at byte {at} is cut off")
        group, number, length = _ITEM_HEAD.unpack_from(value, at)
        at += _ITEM_HEAD.size
        if (group, number) != (0xFFFE, ITEM) or length > end - at:
            raise DamagedFileError(f"a sequence has no item at byte {at}")
        items.append(value[at : at + length])
        at += length
    return items


def in_little_endian(value: bytes, vr: bytes, tag: int) -> bytes:
    """Return a big endian value in little endian."""
    size = WORD_BYTES.get(vr)
    return value if size is None else swap_words(value, size, name_of(tag))


def swap_words(value: bytes, size: int, name: str) -> bytes:
    """Return the value with the bytes of each word of 2, 4 or 8 bytes swapped.

    Raises:
        DamagedFileError: if the value of the attribute `name` ends inside a word.
    """
    if len(value) % size:
        raise DamagedFileError(f"{name} has {len(value)} bytes, expected a multiple of {size}")
    words = array(WORD_CODES[size], value)
    words.byteswap()
    return words.tobytes()


@lru_cache(maxsize=4096)
def vr_in_dictionary(tag: int, signed: bool) -> bytes:
    """Return the VR that PS3.6 gives an attribute; of two, the one that PS3.5 A.1 prescribes."""
    from pydicom.datadict import dictionary_VR  # a quarter of a second, for implicit VR alone

    group, number = tag >> 16, tag & 0xFFFF
    if number == 0:
        return b"UL"
    if group % 2:
        return b"LO" if 0x10 <= number <= 0xFF else b"UN"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if "OW" in vr:
        return b"OW"
    if vr == "US or SS":
        return b"SS" if signed else b"US"
    return vr.encode()


def whole_number(text: str) -> int | None:
    """Return the integer of an IS, None if the text is no valid IS."""
    number = int(text) if WHOLE_NUMBER.fullmatch(text.strip()) else None
    return None if number is None or abs(number) > LARGEST_WHOLE_NUMBER else number


def unsigned_short(element: Element | None) -> int | None:
    """Return the first value of a US (or of the same attribute in another VR), None if absent."""
    if element is None or len(element.value) < 2:
        return None
    return int.from_bytes(element.value[:2], "little")


def text_in(tags: Tags, tag: int) -> str:
    """Return the text of an attribute, "" where it is absent."""
    return tags[tag].text[:MAX_TEXT] if tag in tags else ""


def values_in(tags: Tags, tag: int) -> tuple[str, ...]:
    """Return the values of a code string, in capitals."""
    texts = text_in(tags, tag).split("\\") if tag in tags else []
    return tuple(text.strip().upper() for text in texts)


def items_in(tags: Tags, tag: int) -> list[Tags]:
    """Return the items of a sequence, none where it is absent."""
    items = tags[tag].items if tag in tags else None
    return [{element.tag: element for element in item} for item in items or []]


def private_element(tags: Tags, group: int, creator: str, number: int) -> Element | None:
    """Return a private attribute of the block whose creator begins so (PS3.5 7.8.1), or None."""
    for block in range(0x10, 0x100):
        if text_in(tags, group << 16 | block).startswith(creator):
            found = tags.get(group << 16 | block << 8 | number)
            if found is not None:
                return found
    return None

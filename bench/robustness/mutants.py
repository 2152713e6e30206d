"""Damaged copies of a DICOM file: wrong lengths, VRs, sequences, numbers, syntaxes and streams.

    mutant(content, numpy.random.default_rng([seed, number])).content

Each is damaged in one to three ways. Heads of elements are found by their VR, in sequences too, so
that damage hits what a parser reads and not only values; a deflated file is damaged inside its
stream as often as outside.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

META = 132  # where the file meta information begins
DEFLATED = b"1.2.840.10008.1.2.1.99"
SYNTAXES = (
    *(b"1.2.840.10008.1.2" + end for end in (b"", b".1", b".2", b".5", b".1.98", b".1.99")),
    *(
        b"1.2.840.10008.1.2.4." + end
        for end in (b"50", b"51", b"57", b"70", b"80", b"81", b"90", b"91", b"100", b"201")
    ),
    b"1.2.3",
    b"",
)
VRS = (
    b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR "
    b"US UT UV XX"
).split()
LONG_VRS = (
    b"OB",
    b"OD",
    b"OF",
    b"OL",
    b"OV",
    b"OW",
    b"SQ",
    b"SV",
    b"UC",
    b"UN",
    b"UR",
    b"UT",
    b"UV",
)
HEAD = re.compile(rb"(?s)(?<=[\x02-\x7f]\0..)(" + b"|".join(VRS[:-1]) + rb")")
LENGTHS = (0, 1, 2, 3, 7, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
NUMBERS = (0, 1, 2, 7, 8, 15, 16, 17, 31, 32, 64, 255, 256, 512, 4095, 32767, 32768, 65535)
TEXTS = (b"", b"0", b"-1", b"1e400", b"1e-320", b"NaN", b"inf", b"1e30", b"9" * 15, b"1\\2", b"\0")
NUMBER_TAGS = tuple(
    struct.pack("<HH", 0x0028, number)
    for number in (0x0002, 0x0010, 0x0011, 0x0100, 0x0101, 0x0102, 0x0103, 0x0120, 0x0121)
)
TEXT_TAGS = tuple(
    struct.pack("<HH", *tag)
    for tag in (
        *((0x0028, number) for number in (0x0004, 0x0008, 0x1052, 0x1053, 0x1054)),
        *((0x0020, number) for number in (0x0032, 0x0037, 0x0013, 0x000D, 0x000E, 0x9056, 0x9157)),
        *((0x0008, number) for number in (0x0008, 0x0016, 0x0018, 0x0060, 0x0005, 0x9007)),
    )
)
MARKERS = (
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\x4f",
    b"\xff\x51",
    b"\xff\x52",
    b"\xff\x90",
    b"\xff\xc3",
)
ITEMS = (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0")

Damage = Callable[[bytearray, np.random.Generator], None]


@dataclass(frozen=True)
class Mutant:
    """A damaged file and its damages."""

    content: bytes
    damages: tuple[str, ...]


def mutant(content: bytes, rng: np.random.Generator) -> Mutant:
    """Return one damaged copy of a Part 10 file, determined by the generator's state."""
    meta, data_set, deflated = _parts(content)
    if deflated and rng.random() < 0.5:
        data_set = bytearray(zlib.decompress(bytes(data_set), -zlib.MAX_WBITS))
        names = _damage(data_set, rng)
        packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        return Mutant(bytes(meta) + packer.compress(data_set) + packer.flush(), names)
    if rng.random() < 0.1:
        meta, name = _with_another_syntax(meta, rng), "transfer syntax"
        return Mutant(bytes(meta + data_set), (name,))
    if rng.random() < 0.05:
        names = _damage(meta, rng)
        return Mutant(bytes(meta + data_set), names)
    names = _damage(data_set, rng)
    return Mutant(bytes(meta + data_set), names)


def _parts(content: bytes) -> tuple[bytearray, bytearray, bool]:
    """Preamble and file meta information, the data set, and whether that is deflated."""
    (length,) = struct.unpack_from("<I", content, META + 8)  # of (0002,0000)
    stop = META + 12 + length
    meta = content[:stop]
    return bytearray(meta), bytearray(content[stop:]), DEFLATED in meta


def _damage(data: bytearray, rng: np.random.Generator) -> tuple[str, ...]:
    names = [*DAMAGES, *DEEP]
    chosen = [names[rng.integers(len(names))] for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    for name in chosen:
        if len(data) > 64:
            DAMAGES[name](data, rng)
    return tuple(chosen)


def _with_another_syntax(meta: bytearray, rng: np.random.Generator) -> bytearray:
    """Return the meta information with another TransferSyntaxUID and correct group length."""
    at = meta.index(b"\x02\0\x10\0UI")
    (length,) = struct.unpack_from("<H", meta, at + 6)
    syntax = SYNTAXES[rng.integers(len(SYNTAXES))]
    value = syntax + b"\0" * (len(syntax) % 2)
    changed = meta[: at + 6] + struct.pack("<H", len(value)) + value + meta[at + 8 + length :]
    struct.pack_into("<I", changed, META + 8, len(changed) - META - 12)
    return bytearray(changed)


def _header_stop(data: bytearray) -> int:
    at = data.rfind(b"\xe0\x7f\x10\0")
    return len(data) if at < 0 else at + 12


def _heads(data: bytearray) -> list[int]:
    """Find element starts, approximately: some are values that look like a header."""
    return [match.start() - 4 for match in HEAD.finditer(data, 4, _header_stop(data))]


def _some_head(data: bytearray, rng: np.random.Generator) -> int:
    heads = _heads(data)
    return heads[rng.integers(len(heads))] if heads else int(rng.integers(len(data) - 16))


def _bytes_in_header(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(1, 8)):
        data[rng.integers(_header_stop(data))] = rng.integers(256)


def _bytes_in_pixels(data: bytearray, rng: np.random.Generator) -> None:
    start = min(_header_stop(data), len(data) - 1)
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(start, len(data))] = rng.integers(256)


def _start_of_stream(data: bytearray, rng: np.random.Generator) -> None:
    """The items and the headers of compressed frames."""
    start = min(_header_stop(data), len(data) - 1)
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(start, min(start + 160, len(data)))] = rng.integers(256)


def _length(data: bytearray, rng: np.random.Generator) -> None:
    at, length = _some_head(data, rng), LENGTHS[rng.integers(len(LENGTHS))]
    if bytes(data[at + 4 : at + 6]) in LONG_VRS:
        struct.pack_into("<I", data, at + 8, length)
    else:
        struct.pack_into("<H", data, at + 6, length & 0xFFFF)


def _vr(data: bytearray, rng: np.random.Generator) -> None:
    at = _some_head(data, rng)
    data[at + 4 : at + 6] = VRS[rng.integers(len(VRS))]


def _tag(data: bytearray, rng: np.random.Generator) -> None:
    at = _some_head(data, rng)
    tags = (*NUMBER_TAGS, *TEXT_TAGS, *ITEMS, b"\xe0\x7f\x10\0", b"\0\0\0\0", rng.bytes(4))
    data[at : at + 4] = tags[rng.integers(len(tags))]


def _number(data: bytearray, rng: np.random.Generator) -> None:
    """Replace a value of Rows, Columns, bits or padding."""
    at = data.find(NUMBER_TAGS[rng.integers(len(NUMBER_TAGS))])
    if 0 <= at < len(data) - 10:
        struct.pack_into("<H", data, at + 8, NUMBERS[rng.integers(len(NUMBERS))])


def _text(data: bytearray, rng: np.random.Generator) -> None:
    """Replace a slope, a position, a UID or a frame count, wherever it occurs."""
    tag = TEXT_TAGS[rng.integers(len(TEXT_TAGS))]
    places = [match.start() for match in re.finditer(re.escape(tag), data)]
    if places and (at := places[rng.integers(len(places))]) < len(data) - 8:
        (length,) = struct.unpack_from("<H", data, at + 6)
        value = TEXTS[rng.integers(len(TEXTS))]
        if rng.random() < 0.5 or HEAD.match(data, at + 4) is None:
            data[at + 8 : at + 8 + length] = value[:length].ljust(length)
        else:
            value += b" " * (len(value) % 2)
            data[at + 6 : at + 8 + length] = struct.pack("<H", len(value)) + value


def _truncation(data: bytearray, rng: np.random.Generator) -> None:
    limit = _header_stop(data) if rng.random() < 0.5 else len(data)
    del data[rng.integers(limit) :]


def _removal(data: bytearray, rng: np.random.Generator) -> None:
    at = _some_head(data, rng)
    del data[at : at + int(rng.integers(1, 64))]


def _repetition(data: bytearray, rng: np.random.Generator) -> None:
    at, stop = sorted((_some_head(data, rng), _some_head(data, rng)))
    piece = bytes(data[at : min(stop, at + 4096)])
    data[at:at] = piece * int(rng.integers(1, 50))


def _nesting(data: bytearray, rng: np.random.Generator) -> None:
    """Insert nested sequences, closed or left open."""
    depth, at = int(rng.integers(1, 200)), _some_head(data, rng)
    opened = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF) + ITEMS[0] + b"\xff" * 4
    closed = (ITEMS[1] + bytes(4) + ITEMS[2] + bytes(4)) * int(rng.random() < 0.7)
    data[at:at] = opened * depth + closed * depth


def _stray_item(data: bytearray, rng: np.random.Generator) -> None:
    at = _some_head(data, rng)
    length = LENGTHS[rng.integers(len(LENGTHS))]
    data[at:at] = ITEMS[rng.integers(3)] + struct.pack("<I", length)


def _marker(data: bytearray, rng: np.random.Generator) -> None:
    """Insert a marker of a codec, or break a real one."""
    places = [
        m.start() for m in re.finditer(b"\xff[\x4f-\x93\xc0-\xf7]", data[_header_stop(data) :])
    ]
    if places and rng.random() < 0.5:
        at = _header_stop(data) + places[rng.integers(min(len(places), 12))]
        end = min(at + 24, len(data))
        data[rng.integers(at, end)] = rng.integers(256)
        return
    at = int(rng.integers(min(_header_stop(data), len(data) - 2), len(data) - 1))
    data[at : at + 2] = MARKERS[rng.integers(len(MARKERS))]


def _zeros(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    size = min(int(rng.integers(1, 2000)), len(data) - at)
    data[at : at + size] = bytes(size)


def _swapped_words(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(_header_stop(data)))
    size = min(int(rng.integers(1, 100)) * 2, (len(data) - at) // 2 * 2)
    data[at : at + size] = np.frombuffer(bytes(data[at : at + size]), "<u2").byteswap().tobytes()


DAMAGES: dict[str, Damage] = {
    "bytes in the header": _bytes_in_header,
    "bytes in the pixels": _bytes_in_pixels,
    "start of the stream": _start_of_stream,
    "length": _length,
    "vr": _vr,
    "tag": _tag,
    "number": _number,
    "text": _text,
    "truncation": _truncation,
    "removal": _removal,
    "repetition": _repetition,
    "nesting": _nesting,
    "stray item": _stray_item,
    "marker": _marker,
    "zeros": _zeros,
    "swapped words": _swapped_words,
}
# the parser finds most damage: these are more frequent, to reach the code behind it
DEEP = ("bytes in the pixels", "start of the stream", "number", "text", "text", "marker")

"""Finds the fragments of each frame in encapsulated pixel data, without reading the fragments.

Runs in the reading process and imports the standard library alone. PS3.5 A.4: the first item is the
Basic Offset Table, which may be empty; the others are fragments. Where there are as many fragments
as frames, each holds one frame (always with RLE or an Extended Offset Table). Else frames begin at
the offsets of the table or, where it is empty or wrong, at fragments that start like a stream.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from stillscan.operators.dicom.elements import ITEM, SEQUENCE_END
from stillscan.operators.errors import (
    CorruptPixelDataError,
    DamagedFileError,
    NoPixelDataError,
    PixelDataLengthError,
    TruncatedFileError,
)
from stillscan.operators.reading.sandbox.file_source import FileSource

ITEM_HEAD = struct.Struct("<HHI")
STREAM_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")  # JPEG and JPEG-LS, JPEG 2000


class Fragment(NamedTuple):
    """Offset and length of one fragment in the file."""

    start: int
    length: int


Frame = Sequence[Fragment]


def fragments_of_frames(source: FileSource, start: int, frames: int) -> list[Frame]:
    """Return the fragments of each frame of the pixel data that begins at `start`.

    Raises:
        DamagedFileError, TruncatedFileError, NoPixelDataError: if PS3.5 A.4 is not followed.
        PixelDataLengthError: if there are fewer fragments than frames.
        CorruptPixelDataError: if it is unclear which fragment belongs to which frame.
    """
    table, *fragments = _items(source, start)
    if not fragments:
        raise NoPixelDataError("PixelData has no fragment")
    if len(fragments) < frames:
        raise PixelDataLengthError(
            f"PixelData: found {len(fragments)} fragments, expected {frames} frames"
        )
    if frames == 1:
        return [fragments]
    begin = range(frames) if len(fragments) == frames else _in_table(source, table, fragments)
    if len(begin) != frames or begin[0] != 0:
        begin = _in_streams(source, fragments)
    if len(begin) != frames or begin[0] != 0:
        raise CorruptPixelDataError(
            f"PixelData: found {len(fragments)} fragments for {frames} frames, and neither an "
            "offset table nor the streams show where each frame begins"
        )
    return [fragments[first:after] for first, after in pairwise([*begin, len(fragments)])]


def value_of_one_frame(source: FileSource, frame: Frame) -> tuple[bytes, bytes]:
    """Return the stream of a frame, and encapsulated pixel data with this frame alone."""
    pieces = [source.value(fragment.start, fragment.length) for fragment in frame]
    empty_table = ITEM_HEAD.pack(0xFFFE, ITEM, 0)
    items = [ITEM_HEAD.pack(0xFFFE, ITEM, len(piece)) + piece for piece in pieces]
    return b"".join(pieces), empty_table + b"".join(items)


def _items(source: FileSource, position: int) -> list[Fragment]:
    """Return the offset table and all fragments."""
    items: list[Fragment] = []
    while True:
        group, number, length = ITEM_HEAD.unpack(source.value(position, ITEM_HEAD.size))
        position += ITEM_HEAD.size
        if (group, number) == (0xFFFE, SEQUENCE_END):
            return items or [Fragment(position, 0)]
        if (group, number) != (0xFFFE, ITEM):
            raise DamagedFileError(f"PixelData has no fragment at byte {position - ITEM_HEAD.size}")
        items.append(Fragment(position, length))
        position += length
        if position > source.size:
            raise TruncatedFileError(
                f"ends {position - source.size} bytes before the end of its pixel data"
            )


def _in_table(source: FileSource, table: Fragment, fragments: Sequence[Fragment]) -> list[int]:
    """Return the fragments where frames begin by the offset table; none if it is not usable."""
    if table.length % 4 or table.length > 4 * len(fragments):
        return []
    words = array("I", source.value(table.start, table.length))
    numbers = {each.start - fragments[0].start: at for at, each in enumerate(fragments)}
    begin = [numbers.get(offset, -1) for offset in words]
    return begin if begin == sorted(set(begin)) and -1 not in begin else []


def _in_streams(source: FileSource, fragments: Sequence[Fragment]) -> list[int]:
    """Return the fragments that begin like a compressed frame."""
    return [
        at
        for at, each in enumerate(fragments)
        if source.value(each.start, min(each.length, 4)).startswith(STREAM_STARTS)
    ]

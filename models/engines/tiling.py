"""Tiles of large images that overlap as far as an output depends on: no seams, bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator


def spans(length: int, tile: int, overlap: int, multiple: int) -> Iterator[tuple[slice, slice]]:
    """Yield for each tile of a side its extent and the part of the side that is taken from it.

    All tiles have one length, and length and start are divisible by `multiple`. Inside the image a
    tile extends `overlap` beyond its part; at the border of the image it ends with the image.
    """
    count = math.ceil(length / tile)
    among_all = length + 2 * overlap * (count - 1)
    extent = min(length, multiple * math.ceil(among_all / count / multiple))
    start = done = 0
    while done < length:
        stop = start + extent
        until = length if stop == length else stop - overlap
        yield slice(start, stop), slice(done, until)
        start, done = min(stop - 2 * overlap, length - extent), until


def inside(inner: slice, outer: slice) -> slice:
    """Return `inner` relative to the start of `outer`."""
    return slice(inner.start - outer.start, inner.stop - outer.start)

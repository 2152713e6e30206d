"""Large images in tiles that overlap by all that an output depends on: no seam, bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator


def spans(length: int, tile: int, overlap: int, multiple: int) -> Iterator[tuple[slice, slice]]:
    """Where each tile of a side begins and ends, and which part of the side is taken from it.

    All tiles have one length, a multiple of `multiple` as their beginnings are. Within the image
    they end `overlap` beyond their part; at its border nothing is beyond.
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
    """`inner` as counted from the beginning of `outer`."""
    return slice(inner.start - outer.start, inner.stop - outer.start)

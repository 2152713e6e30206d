"""Large images in tiles that overlap by all that an output depends on: no seam, bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator


def spans(length: int, tile: int, overlap: int, multiple: int) -> Iterator[tuple[slice, slice]]:
    """Where each tile of a side begins and ends, and which part of the side is taken from it.

    All tiles have one length, a multiple of `multiple` as their beginnings are, and end `overlap`
    beyond their part or at the image's border.
    """
    count = math.ceil(length / tile)
    part = multiple * math.ceil(length / count / multiple)
    extent = min(length, part + 2 * overlap)
    for inner in range(0, length, part):
        start = min(max(inner - overlap, 0), length - extent)
        yield slice(start, start + extent), slice(inner, min(inner + part, length))


def inside(inner: slice, outer: slice) -> slice:
    """`inner` as counted from the beginning of `outer`."""
    return slice(inner.start - outer.start, inner.stop - outer.start)

"""The bits of a pixel above BitsStored: nothing, a sign, padding, or undeclared content."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from stillscan.operators.errors import UnusedBitsError
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.records import Instance
from stillscan.operators.volume import SliceHeader

CODESTREAMS = "1.2.840.10008.1.2.4."  # JPEG and its like; RLE and native pixels are whole cells


def without_unused_bits(
    stored: Integer[np.ndarray, "row column"], instance: Instance, slice_: SliceHeader
) -> bool:
    """Clear the bits above BitsStored in place, or extend the sign; whether any had to be cleared.

    PS3.5 8.1.1: nothing may be assumed of them. Padding may lie outside the stored range (GE writes
    -2000 into 12 bits): it stays as it is.

    Raises:
        UnusedBitsError: if values of a compressed stream lie outside BitsStored: it is damaged.
    """
    image = instance.image
    unused = image.bits_allocated - image.bits_stored
    if unused == 0:
        return False
    if image.signed and not np.any(stored >> image.bits_stored):
        # PS3.5 8.1.1: without sign extension, a negative value looks like a large one
        _extend(stored, unused)
        return False
    least = -(2 ** (image.bits_stored - 1)) if image.signed else 0
    outside = (stored < least) | (stored > least + 2**image.bits_stored - 1)
    if slice_.padding is not None:
        outside &= (stored < slice_.padding[0]) | (stored > slice_.padding[1])
    if not np.any(outside):
        return False
    if instance.known.transfer_syntax_uid.startswith(CODESTREAMS):
        raise UnusedBitsError(
            f"{shown(slice_.path)}: {np.count_nonzero(outside)} pixels of the compressed stream "
            f"have bits set above BitsStored {image.bits_stored}"
        )
    cleared = stored[outside]
    _extend(cleared, unused)
    stored[outside] = cleared
    return True


def _extend(values: Integer[np.ndarray, ...], unused: int) -> None:
    """Fill the unused bits with the sign, or with 0 where the type has none, in place."""
    np.left_shift(values, unused, out=values)
    np.right_shift(values, unused, out=values)

"""The bits of a pixel above BitsStored: nothing, a sign, padding, or undeclared content."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

from stillscan.operators.errors import UnusedBitsError
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.records import ImageAttributes
from stillscan.operators.volume import SliceHeader


def require_clear_bits(
    stored: Integer[np.ndarray, "row column"], image: ImageAttributes, slice_: SliceHeader
) -> None:
    """Require that no bit above BitsStored has a meaning of its own; extend the sign in place.

    Padding may lie outside the stored range (GE writes -2000 into 12 bits): it stays as it is.

    Raises:
        UnusedBitsError: if other values do.
    """
    unused = image.bits_allocated - image.bits_stored
    if unused == 0:
        return
    if image.signed and not np.any(stored >> image.bits_stored):
        # PS3.5 8.1.1: without sign extension, a negative value looks like a large one
        np.left_shift(stored, unused, out=stored)
        np.right_shift(stored, unused, out=stored)
        return
    least = -(2 ** (image.bits_stored - 1)) if image.signed else 0
    outside = (stored < least) | (stored > least + 2**image.bits_stored - 1)
    if slice_.padding is not None:
        outside &= (stored < slice_.padding[0]) | (stored > slice_.padding[1])
    if np.any(outside):
        raise UnusedBitsError(
            f"{shown(slice_.path)}: {np.count_nonzero(outside)} pixels have bits set above "
            f"BitsStored {image.bits_stored}"
        )

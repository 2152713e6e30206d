"""The output transfer syntaxes: how the stored values of a frame become bytes in a file (W10)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
from jaxtyping import Integer
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from stillscan.operators.dicom.elements import ITEM, SEQUENCE_END
from stillscan.operators.writing.stored_values import PixelFormat

Stored = Integer[np.ndarray, "row column"]
OutputSyntax = Literal[
    "explicit-vr-little-endian", "jpeg-ls-lossless", "jpeg-2000-lossless", "rle-lossless"
]

SYNTAXES: Mapping[OutputSyntax, UID] = {
    "explicit-vr-little-endian": ExplicitVRLittleEndian,
    "jpeg-ls-lossless": JPEGLSLossless,
    "jpeg-2000-lossless": JPEG2000Lossless,
    "rle-lossless": RLELossless,
}
# One encoder for each: gdcm, pydicom's first choice for RLE, aborts the process on odd sizes.
ENCODERS = {JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg", RLELossless: "pylibjpeg"}
LARGEST_OFFSET = 2**32 - 1  # of a Basic Offset Table


def syntax_for(name: OutputSyntax, layouts: Sequence[PixelFormat]) -> UID:
    """The transfer syntax of an instance whose frames store their pixels so.

    Padding may lie outside the stored bits (GE writes -2000 into 12 of them): no codec that is
    told of 12 bits keeps it, so such an instance is written uncompressed.
    """
    outside = any(
        padding[0] < each.lowest or padding[1] > each.highest
        for each in layouts
        if (padding := each.padding) is not None
    )
    return ExplicitVRLittleEndian if outside else SYNTAXES[name]


def encoder(syntax: UID, layout: PixelFormat) -> Callable[[Stored], bytes]:
    """What turns the stored values of one frame into the bytes of this transfer syntax."""
    if syntax == ExplicitVRLittleEndian:
        return lambda stored: stored.tobytes()
    from pydicom.pixels.encoders.base import (
        get_encoder,
    )  # imported where something is to be compressed

    codec = get_encoder(syntax)

    def encode(stored: Stored) -> bytes:
        rows, columns = stored.shape
        return codec.encode(
            stored.tobytes(),
            encoding_plugin=ENCODERS[syntax],
            rows=rows,
            columns=columns,
            number_of_frames=1,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",  # what is light is the reader's business
            bits_allocated=layout.allocated,
            bits_stored=layout.stored,
            pixel_representation=int(layout.signed),
        )

    return encode


def encapsulated(frames: Iterator[bytes], lengths: Sequence[int]) -> Iterator[bytes]:
    """Compressed frames as the value of PixelData, one fragment each (PS3.5 A.4), in pieces.

    Args:
        frames: one after the other.
        lengths: of each; they make the Basic Offset Table, which a single frame does not need.
    """
    even = [length + length % 2 for length in lengths]
    starts = [0, *accumulate(each + 8 for each in even)][:-1]
    table = b""
    if len(starts) > 1 and starts[-1] <= LARGEST_OFFSET:
        table = struct.pack(f"<{len(starts)}I", *starts)
    yield struct.pack("<HHI", 0xFFFE, ITEM, len(table)) + table
    for frame in frames:
        yield struct.pack("<HHI", 0xFFFE, ITEM, len(frame) + len(frame) % 2)
        yield frame
        yield bytes(len(frame) % 2)
    yield struct.pack("<HHI", 0xFFFE, SEQUENCE_END, 0)

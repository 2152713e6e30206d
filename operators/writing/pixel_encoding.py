"""Encodes the stored values of a frame in the output transfer syntax (W10)."""

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
    """Return the transfer syntax of an instance whose frames have these pixel formats.

    Padding may lie outside the stored bits (GE writes -2000 into images of 12 bits). A codec set
    to 12 bits would not keep it, so such an instance is written uncompressed.
    """
    outside = any(
        padding[0] < each.lowest or padding[1] > each.highest
        for each in layouts
        if (padding := each.padding) is not None
    )
    return ExplicitVRLittleEndian if outside else SYNTAXES[name]


def encoder(syntax: UID, layout: PixelFormat) -> Callable[[Stored], bytes]:
    """Return the function that encodes the stored values of a frame in this transfer syntax."""
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
            photometric_interpretation="MONOCHROME2",  # the codec does not need to know
            bits_allocated=layout.allocated,
            bits_stored=layout.stored,
            pixel_representation=int(layout.signed),
        )

    return encode


def encapsulated(frames: Iterator[bytes], lengths: Sequence[int]) -> Iterator[bytes]:
    """Yield the value of PixelData in pieces, one fragment for each frame (PS3.5 A.4).

    Args:
        frames: compressed frames.
        lengths: of each frame, for the Basic Offset Table, which a single frame does not need.
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

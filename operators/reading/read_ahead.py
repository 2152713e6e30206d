"""A volume that serves what has been read already from memory, so that nothing is decoded twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydicom import Dataset

from stillscan.operators.volume import SliceHeader, Volume, VolumeBlock


def volume_with(block: VolumeBlock) -> Volume:
    """The volume of `block`, which reads the slices of the block from it and others as before."""
    return replace(block.volume, reader=_ReadAhead(block))


class _ReadAhead:
    """A `SliceReader` that holds one block."""

    def __init__(self, block: VolumeBlock) -> None:
        self._block = block
        slices = block.volume.slices[block.start : block.stop]
        self._held = {slice_: index for index, slice_ in enumerate(slices)}

    def read(self, slices: Sequence[SliceHeader]) -> tuple[list[Dataset], np.ndarray]:
        """Slices of the block from memory; any others through the volume's own reader."""
        if not all(each in self._held for each in slices):
            return self._block.volume.reader.read(slices)
        at = [self._held[each] for each in slices]
        return [self._block.headers[index] for index in at], self._block.stored[at]

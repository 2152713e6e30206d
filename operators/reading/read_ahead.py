"""Keeps some slices of a volume in memory, so that they are not decoded twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from stillscan.operators.volume import SliceHeader, SliceReader, Volume


def with_slices_in_memory(volume: Volume, indices: Sequence[int]) -> Volume:
    """Read these slices now and return a volume that keeps them in memory.

    Raises:
        InputError: if one of them cannot be read.
    """
    return replace(volume, reader=_Memory(volume.reader, [volume.slices[i] for i in indices]))


class _Memory:
    """A `SliceReader` with some slices in memory; another reader reads the rest."""

    def __init__(self, reader: SliceReader, slices: Sequence[SliceHeader]) -> None:
        headers, stored = reader.read(slices)
        self._reader = reader
        self._held = dict(zip(slices, zip(headers, stored, strict=True), strict=True))
        self._last: tuple[Path, Dataset] | None = None

    def read(self, slices: Sequence[SliceHeader]) -> tuple[list[Dataset], np.ndarray]:
        """See `SliceReader`: frames of one instance keep one header, wherever they come from."""
        missing = [each for each in slices if each not in self._held]
        found = dict(self._held)
        stored = None
        if missing:
            read, stored = self._reader.read(missing)
            found |= zip(missing, zip(read, stored, strict=True), strict=True)
        of_file = dict([self._last]) if self._last else {}
        headers = [of_file.setdefault(each.path, found[each][0]) for each in slices]
        last = slices[-1]
        self._last = (last.path, headers[-1]) if last.frames > 1 else None
        if stored is None or len(missing) < len(slices):
            stored = np.stack([found[each][1] for each in slices])
        return headers, stored

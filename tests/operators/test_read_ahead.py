from dataclasses import replace
from pathlib import Path

import numpy as np

from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_ahead import with_slices_in_memory
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series


class Counting:
    """Passes on what a reader gives and counts the slices."""

    def __init__(self, volume: Volume) -> None:
        self.volume, self.slices = volume, []

    def read(self, slices):
        self.slices += slices
        return self.volume.reader.read(slices)


def read(folder: Path, decoder: Decoder) -> tuple[Volume, Counting]:
    (candidate,) = find_series(folder, decoder, SelectionRules()).candidates
    volume = read_series(candidate, decoder)
    counting = Counting(volume)
    return replace(volume, reader=counting), counting


def test_every_slice_is_read_once(tmp_path: Path) -> None:
    make_series(tmp_path, slices=6, per_slice_slope=True, slope=1.5)
    with Decoder() as decoder:
        volume, counting = read(tmp_path, decoder)
        ahead = with_slices_in_memory(volume, [1, 4])
        found = [ahead.read(0, 2), ahead.read(2, 6), ahead.read(4, 5)]
        assert len(counting.slices) == 6
        for block in found:
            expected = volume.read(block.start, block.stop)
            np.testing.assert_array_equal(block.pixels, expected.pixels)
            assert list(block.headers) == list(expected.headers)


def test_frames_of_one_instance_keep_one_header(tmp_path: Path) -> None:
    """Whether they come from memory or are read now, in one block or in the next."""
    make_enhanced(tmp_path, frames=6)
    with Decoder() as decoder:
        volume, _ = read(tmp_path, decoder)
        ahead = with_slices_in_memory(volume, [2])
        headers = [each for at in (0, 2, 4) for each in ahead.read(at, at + 2).headers]
        assert len({id(each) for each in headers}) == 1

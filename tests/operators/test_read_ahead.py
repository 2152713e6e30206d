from dataclasses import replace
from pathlib import Path

import numpy as np

from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_ahead import volume_with
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.volume import Volume
from tests.series_factory import make_series


class NoReader:
    def read(self, slices: object) -> None:
        raise AssertionError("read again")


def test_slices_of_the_block_are_not_read_again(tmp_path: Path) -> None:
    make_series(tmp_path, slices=4, per_slice_slope=True, slope=1.5)
    with Decoder() as decoder:
        (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
        volume: Volume = read_series(candidate, decoder)
        block = volume.read(1, 3)
        ahead = volume_with(replace(block, volume=replace(volume, reader=NoReader())))
        np.testing.assert_array_equal(ahead.read(2, 3).pixels, volume.read(2, 3).pixels)
        assert ahead.read(2, 3).headers == volume.read(2, 3).headers


def test_other_slices_are_read_as_before(tmp_path: Path) -> None:
    make_series(tmp_path, slices=4)
    with Decoder() as decoder:
        (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
        volume = read_series(candidate, decoder)
        ahead = volume_with(volume.read(1, 3))
        np.testing.assert_array_equal(ahead.read(2, 4).stored, volume.read(2, 4).stored)

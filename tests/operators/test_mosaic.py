"""Mosaics are denoised tile by tile: where two tiles meet there is no anatomy."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest

from stillscan.operators.errors import InvalidAttributeError
from stillscan.operators.mosaic import Mosaic
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.writing.derived_header import OutputOptions
from tests.derived import derive
from tests.series_factory import make_series

ROWS, COLUMNS = 40, 48


def csa(number: int) -> bytes:
    """A CSA header (SV10) with NumberOfImagesInMosaic and an entry before it."""

    def entry(name: bytes, text: bytes) -> bytes:
        head = struct.pack("<64si4sii", name, 1, b"US", 6, 6) + struct.pack("<i", 77)
        items = struct.pack("<4i", len(text), len(text), 77, len(text))
        return head + items + text + bytes(-len(text) % 4) + 5 * struct.pack("<4i", 0, 0, 77, 0)

    entries = entry(b"EchoTime", b"3.5\0") + entry(b"NumberOfImagesInMosaic", b"%d\0" % number)
    return b"SV10\4\3\2\1" + struct.pack("<2I", 2, 77) + entries


def mosaics(folder: Path, tiles: int, across: int, down: int, kind: str = "siemens") -> list[Path]:
    """Two pictures of `tiles` slices with noise."""
    kinds = {"siemens": "MOSAIC", "csa": "MOSAIC", "uih": "VFRAME"}
    files = make_series(
        folder,
        slices=2,
        rows=ROWS * down,
        columns=COLUMNS * across,
        ImageType=["ORIGINAL", "PRIMARY", "M", kinds[kind]],
    )
    for number, file in enumerate(files):
        image = pydicom.dcmread(file)
        picture = np.random.default_rng(number).integers(100, 900, (image.Rows, image.Columns))
        for place in range(tiles, across * down):
            row, column = divmod(place, across)
            picture[row * ROWS : (row + 1) * ROWS, column * COLUMNS : (column + 1) * COLUMNS] = 0
        image.PixelData = picture.astype("<u2").tobytes()
        if kind == "siemens":
            image.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(10, "US", tiles)
        elif kind == "csa":
            image.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(
                0x10, "OB", csa(tiles)
            )
        else:
            block = image.private_block(0x65, "Image Private Header", create=True)
            block.add_new(0x50, "DS", str(tiles))
        image.save_as(file)
    return files


@pytest.mark.parametrize(
    ("tiles", "rows", "columns", "square", "found"),
    [
        (36, 384, 384, True, (6, 64, 64)),
        (40, 448, 448, True, (7, 64, 64)),
        (2, 128, 128, True, (2, 64, 64)),
        (2, 64, 128, False, (2, 64, 64)),
        (20, 256, 320, False, (5, 64, 64)),
        (36, 385, 384, True, None),
        (1, 64, 64, True, None),
        (0, 64, 64, True, None),
    ],
)
def test_tiles_of_a_picture(tiles, rows, columns, square, found):
    mosaic = Mosaic.of(tiles, rows, columns, square=square)
    assert (mosaic and (mosaic.across, mosaic.rows, mosaic.columns)) == found


@pytest.mark.parametrize(
    ("kind", "tiles", "across", "down"),
    [("siemens", 3, 2, 2), ("csa", 7, 3, 3), ("uih", 5, 3, 2), ("uih", 2, 2, 1)],
)
@pytest.mark.parametrize("syntax", ["explicit-vr-little-endian", "jpeg-ls-lossless"])
def test_every_tile_is_a_slice(kind, tiles, across, down, syntax, tmp_path):
    mosaics(tmp_path / "source", tiles, across, down, kind)

    def brighter_by_its_place(block):
        assert block.pixels.shape[1:] == (ROWS, COLUMNS)
        tile = np.array([each.frame for each in block.volume.slices[block.start : block.stop]])
        return block.pixels + np.where(tile % 2, 1, -1)[:, None, None].astype(np.float32)

    options = OutputOptions(transfer_syntax=syntax)
    derivation = derive(tmp_path / "source", brighter_by_its_place, options=options)
    assert len(derivation.volume.slices) == 2 * tiles
    assert derivation.series.instances == 2
    sign = np.array([1 if place % 2 else -1 for place in range(across * down)])
    sign[tiles:] = 0
    expected = np.kron(sign.reshape(down, across), np.ones((ROWS, COLUMNS)))
    for source, derived in derivation.pairs:
        change = derived.pixel_array.astype(int) - source.pixel_array
        assert np.array_equal(change, expected)


def test_another_acquisition_of_a_tile_is_at_its_place(tmp_path):
    for file in mosaics(tmp_path / "source", 3, 2, 2):
        image = pydicom.dcmread(file)
        image.ImagePositionPatient = [0, 0, 0]
        image.save_as(file)
    volume = derive(tmp_path / "source").volume
    places = [each.place for each in volume.slices]
    assert places[:3] == places[3:]
    assert len(set(places)) == 3


@pytest.fixture
def decoder():
    with Decoder() as running:
        yield running


def test_a_picture_with_more_than_it_says_is_refused(tmp_path, decoder):
    files = mosaics(tmp_path, 4, 2, 2)
    for file in files:
        image = pydicom.dcmread(file)
        image.private_block(0x19, "SIEMENS MR HEADER")[10].value = 3
        image.save_as(file)
    (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
    with pytest.raises(InvalidAttributeError, match="more than the 3 slices"):
        read_series(candidate, decoder).read(0, 1)


@pytest.mark.parametrize("tiles", [5, 26])
def test_tiles_that_do_not_fit_are_one_picture_with_a_warning(tmp_path, decoder, tiles):
    for file in mosaics(tmp_path, 4, 2, 2):
        image = pydicom.dcmread(file)
        image.private_block(0x19, "SIEMENS MR HEADER")[10].value = tiles
        image.Columns, image.Rows = 2 * ROWS, 2 * COLUMNS  # 80 is no multiple of 3 or of 6
        image.save_as(file)
    (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
    volume = read_series(candidate, decoder)
    assert (volume.mosaic, len(volume.slices)) == (None, 2)
    assert any("mosaics whose tiles do not fit" in each for each in volume.warnings)

"""Derived images in the compressed output syntaxes: the same pixels, readable by others and us."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pydicom
import pytest
from pydicom.encaps import parse_basic_offsets
from pydicom.uid import ExplicitVRLittleEndian

from stillscan.operators.writing.derive_series import OutputOptions
from stillscan.operators.writing.pixel_encoding import SYNTAXES, OutputSyntax
from tests.derived import derive, derive_volume, real_volumes, volumes_in
from tests.enhanced_factory import make_enhanced, make_legacy_converted
from tests.operators.test_validators import new_errors
from tests.series_factory import make_series

Tool = Callable[[str], str]

COMPRESSED = [name for name in get_args(OutputSyntax) if SYNTAXES[name].is_compressed]
KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "MR": lambda folder: make_series(folder, modality="MR", slices=2),
    "MR signed": lambda folder: make_series(folder, modality="MR", slices=2, signed=True),
    "MR 16 bits signed": lambda folder: make_series(
        folder, modality="MR", slices=2, signed=True, bits_stored=16
    ),
    "CT padded": lambda folder: make_series(
        folder, modality="CT", slices=2, signed=True, bits_stored=16, padding=-2000
    ),
    "PT": lambda folder: make_series(folder, modality="PT", slices=2, per_slice_slope=True),
    "CR 8 bits, odd matrix": lambda folder: make_series(
        folder, modality="CR", bits_stored=8, rows=67, columns=61
    ),
    "DX MONOCHROME1": lambda folder: make_series(folder, modality="DX", photometric="MONOCHROME1"),
    "Enhanced CT": lambda folder: make_enhanced(folder, modality="CT", frames=5),
    "Legacy Converted Enhanced MR": lambda folder: make_legacy_converted(folder, modality="MR"),
}


@pytest.mark.parametrize("syntax", COMPRESSED)
@pytest.mark.parametrize("kind", KINDS)
def test_compressed_output_has_the_pixels_of_the_uncompressed(
    kind: str, syntax: OutputSyntax, tmp_path: Path
) -> None:
    KINDS[kind](tmp_path / "source")
    plain = derive(tmp_path / "source")
    packed = derive(tmp_path / "source", options=OutputOptions(transfer_syntax=syntax))
    for (_, expected), (_, derived) in zip(plain.pairs, packed.pairs, strict=True):
        assert derived.file_meta.TransferSyntaxUID == SYNTAXES[syntax]
        assert np.array_equal(derived.pixel_array, expected.pixel_array)
        assert derived.get("LossyImageCompression", "00") == "00"
    (read,) = [
        each
        for each in volumes_in(tmp_path / "derived")
        if each.series_instance_uid == packed.series.series_instance_uid
    ]
    (expected,) = [
        each
        for each in volumes_in(tmp_path / "derived")
        if each.series_instance_uid == plain.series.series_instance_uid
    ]
    count = len(read.slices)
    assert np.array_equal(read.read(0, count).stored, expected.read(0, count).stored)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_padding_outside_the_stored_bits_is_written_uncompressed(
    syntax: OutputSyntax, tmp_path: Path
) -> None:
    make_series(
        tmp_path / "source", modality="CT", signed=True, bits_stored=12, padding=-3000, slices=2
    )
    derivation = derive(tmp_path / "source", options=OutputOptions(transfer_syntax=syntax))
    for source, derived in derivation.pairs:
        assert derived.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        before, after = (np.frombuffer(each.PixelData, "<i2") for each in (source, derived))
        assert (before == -3000).any()
        assert np.array_equal(after == -3000, before == -3000)


def test_the_basic_offset_table_points_at_every_frame(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "source", modality="MR", frames=5)
    options = OutputOptions(transfer_syntax="jpeg-ls-lossless")
    ((_, derived),) = derive(tmp_path / "source", options=options).pairs
    offsets = parse_basic_offsets(derived.PixelData)
    assert len(offsets) == 5
    first = 8 + 4 * len(offsets)
    for offset in offsets:
        item = derived.PixelData[first + offset :]
        assert item[:4] == b"\xfe\xff\x00\xe0"
        assert item[8:10] == b"\xff\xd8"  # the codestream begins there


@pytest.mark.tools
@pytest.mark.parametrize("syntax", COMPRESSED)
def test_other_decoders_read_compressed_output(
    syntax: OutputSyntax, tool: Tool, tmp_path: Path
) -> None:
    make_series(tmp_path / "source", modality="MR", slices=1)
    plain = derive(tmp_path / "source")
    packed = derive(tmp_path / "source", options=OutputOptions(transfer_syntax=syntax))
    raw = tmp_path / "raw.dcm"
    subprocess.run([tool("gdcmconv"), "--raw", packed.series.files[0], raw], check=True)
    ((_, expected),) = plain.pairs
    assert np.array_equal(pydicom.dcmread(raw).pixel_array, expected.pixel_array)
    assert new_errors(tool, packed) == []


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("syntax", COMPRESSED)
def test_real_series_are_compressed_without_loss(
    syntax: OutputSyntax, stillscan_data: Path, tmp_path: Path
) -> None:
    options = OutputOptions(transfer_syntax=syntax)
    known = set()
    for name, volume in real_volumes(stillscan_data, tmp_path):
        if volume.series_instance_uid in known:
            continue  # the same pixels, which came in another syntax
        known.add(volume.series_instance_uid)
        derivation = derive_volume(volume, tmp_path / "derived", options=options)
        for source, derived in derivation.pairs:
            assert np.array_equal(source.pixel_array, derived.pixel_array), name

"""A parsed file holds what pydicom finds in it, byte for byte, and hostile structure is refused."""

import gzip
import struct
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian

from stillscan.operators.dicom.elements import Element, serialised
from stillscan.operators.errors import (
    DamagedFileError,
    HeaderTooLargeError,
    InputError,
    NestedTooDeepError,
    NotDicomError,
    TruncatedFileError,
)
from stillscan.operators.reading.sandbox.file_source import FileSource
from stillscan.operators.reading.sandbox.parser import (
    DEFLATED_LE,
    MAX_DEPTH,
    ParsedFile,
    parse_file,
)
from tests.series_factory import NATIVE_SYNTAXES, make_series

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
REAL_FILES = ("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm")


def parsed(path: Path) -> ParsedFile:
    source = FileSource(str(path))
    try:
        return parse_file(source)
    finally:
        source.close()


def clean(path: Path) -> Dataset:
    return read_dataset(BytesIO(serialised(parsed(path).elements)), False, True)


def require_same(found: Dataset, expected: Dataset) -> None:
    for element in expected:
        if element.tag.element == 0 or element.tag.group >= 0x7FE0:
            continue  # group lengths are retired, pixel data is not in the header
        if element.VR == "SQ":
            assert len(found[element.tag].value) == len(element.value)
            for mine, theirs in zip(found[element.tag].value, element.value, strict=True):
                require_same(mine, theirs)
        else:
            assert found[element.tag].value == element.value, element.tag


def part_10(body: bytes, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """A file with this data set behind preamble and file meta information."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value
    return b"\0" * 128 + b"DICM" + meta + body


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return serialised([Element(tag, vr, value)])


@pytest.mark.parametrize("name", REAL_FILES)
def test_header_is_what_pydicom_reads(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.dcmread(PYDICOM_FILES / name, stop_before_pixels=True)
    require_same(clean(PYDICOM_FILES / name), expected)


@pytest.mark.slow
@pytest.mark.data
def test_headers_of_real_scanners_are_what_pydicom_reads(stillscan_data):
    for path in (stillscan_data / "dev" / "dicom").rglob("*"):
        # PS3.5 6.2.2: UN is in little endian; pydicom swaps it with a big endian file
        if path.is_file() and "BigEndian" not in path.name:
            require_same(clean(path), pydicom.dcmread(path, stop_before_pixels=True))


@pytest.mark.parametrize("syntax", NATIVE_SYNTAXES)
def test_header_does_not_depend_on_the_transfer_syntax(syntax, tmp_path):
    (twin,) = make_series(tmp_path / "twin", modality="PT", slices=1, padding=None)
    (path,) = make_series(tmp_path / "it", modality="PT", slices=1, transfer_syntax=syntax)
    assert serialised(parsed(path).elements) == serialised(parsed(twin).elements)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Wang^XiaoDong=王^小东="),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 100", "Müller^Jörg"),
    ],
)
def test_text_keeps_its_bytes_in_every_character_set(charset, name, tmp_path):
    (path,) = make_series(tmp_path, slices=1, SpecificCharacterSet=charset, PatientName=name)
    expected = pydicom.dcmread(path).get_item("PatientName").value
    assert clean(path).get_item("PatientName").value == expected


def nested(depth: int, *, defined: bool) -> bytes:
    body = element(0x00100020, b"LO", b"x")
    for _ in range(depth):
        size = len(body) if defined else 0xFFFFFFFF
        item = struct.pack("<HHI", 0xFFFE, 0xE000, size) + body
        if not defined:
            item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        size = len(item) if defined else 0xFFFFFFFF
        body = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, size) + item
        if not defined:
            body += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return body


@pytest.mark.parametrize("defined", [True, False])
def test_sequences_may_nest_to_the_limit_and_no_further(defined, tmp_path):
    path = tmp_path / "nested"
    path.write_bytes(part_10(nested(MAX_DEPTH, defined=defined)))
    assert len(parsed(path).elements) == 1
    path.write_bytes(part_10(nested(MAX_DEPTH + 1, defined=defined)))
    with pytest.raises(NestedTooDeepError):
        parsed(path)


def test_sequences_hidden_in_unknown_values_count(tmp_path):
    hidden = nested(MAX_DEPTH + 1, defined=True).replace(b"SQ", b"UN")
    path = tmp_path / "hidden"
    path.write_bytes(part_10(hidden))
    with pytest.raises(NestedTooDeepError):
        parsed(path)


def test_unknown_value_that_only_begins_like_a_sequence_stays_as_it_is(tmp_path):
    value = struct.pack("<HHI", 0xFFFE, 0xE000, 999) + b"12345678"
    path = tmp_path / "unknown"
    path.write_bytes(part_10(element(0x00091001, b"UN", value)))
    assert clean(path)[0x00091001].value == value


def test_header_that_inflates_beyond_the_limit_is_refused(tmp_path):
    blob = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 2**27) + b"\0" * 2**27
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path = tmp_path / "bomb"
    path.write_bytes(part_10(packer.compress(blob) + packer.flush(), DEFLATED_LE))
    with pytest.raises(HeaderTooLargeError):
        parsed(path)


def test_deflate_stream_that_breaks_off_is_refused(tmp_path):
    (path,) = make_series(tmp_path, slices=1, transfer_syntax=DEFLATED_LE)
    whole = path.read_bytes()
    path.write_bytes(whole[:600])
    with pytest.raises(TruncatedFileError):
        parsed(path)


def test_element_without_a_valid_vr_is_refused(tmp_path):
    good = element(0x00080016, b"UI", b"1.2\0")
    path = tmp_path / "damaged"
    path.write_bytes(part_10(good + struct.pack("<HH2sH", 0x0008, 0x0018, b"zz", 0)))
    with pytest.raises(DamagedFileError, match=r"\(0008,0018\).* has a VR that is not"):
        parsed(path)


def test_item_longer_than_its_sequence_is_refused(tmp_path):
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 16) + element(0x00100020, b"LO", b"12345678")
    sequence = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(item) - 4) + item
    path = tmp_path / "damaged"
    path.write_bytes(part_10(sequence))
    with pytest.raises(DamagedFileError, match="ends at byte"):
        parsed(path)


def test_value_too_long_for_its_vr_becomes_unknown():
    long = element(0x00081030, b"LO", b"x" * 70000)
    assert long[4:6] == b"UN"
    assert read_dataset(BytesIO(long), False, True)[0x00081030].value == b"x" * 70000


def test_text_is_not_taken_for_dicom(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and there is no image in them " * 10)
    with pytest.raises(NotDicomError):
        parsed(path)


@settings(max_examples=200, deadline=1000)
@given(data=st.data())
def test_damage_is_always_an_input_error_or_harmless(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    whole = bytearray((PYDICOM_FILES / "MR_small.dcm").read_bytes()[:3000])
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(132, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(InputError):
        serialised(parsed(path).elements)


@pytest.mark.parametrize(
    "broken",
    [
        element(0x00080005, b"CS", b"ISO_IR\x00100 "),
        element(0x00080005, b"CS", b"ISO_IR\xff100 "),
        element(0x00080005, b"SV", b"ISO_IR 1"),
        serialised([Element(0x00080005, b"SQ", b"", [[]])]),
    ],
)
def test_character_set_that_is_no_code_string_is_refused(broken, tmp_path):
    """Who reads a header looks for a codec of this name."""
    path = tmp_path / "it"
    path.write_bytes(part_10(broken + element(0x00080016, b"UI", b"1.2\0")))
    with pytest.raises(DamagedFileError, match="SpecificCharacterSet"):
        parsed(path)


def test_character_set_of_unknown_vr_is_a_code_string(tmp_path):
    path = tmp_path / "it"
    path.write_bytes(part_10(element(0x00080005, b"UN", b"ISO_IR 100")))
    assert clean(path).SpecificCharacterSet == "ISO_IR 100"


@pytest.mark.parametrize(
    ("packed", "kind"), [(b"PK\3\4" + bytes(200), "zip"), (b"\x1f\x8b\x08" + bytes(200), "gzip")]
)
def test_a_packed_file_is_named_as_such(packed: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "study").write_bytes(packed)
    with pytest.raises(NotDicomError, match=f"{kind}.*unpack it first"):
        parsed(tmp_path / "study")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_is_named_as_such(kind: type, packed: bool, tmp_path: Path) -> None:
    content = kind(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    (tmp_path / "volume").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(NotDicomError, match=r"is NIfTI.*name this file"):
        parsed(tmp_path / "volume")

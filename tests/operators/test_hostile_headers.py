"""What a header holds beyond what the standard allows is refused by its series, or does no harm."""

import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from bench.robustness.headers.tree import HeaderTree
from stillscan.operators.dicom.attributes import (
    data_set,
    number_of,
    own_items,
    put,
    put_text,
    tag_of,
    text_of,
    values_of,
)
from stillscan.operators.dicom.elements import Element, item_contents, parsed, serialised
from stillscan.operators.errors import DamagedFileError, HeaderTooLargeError, InputError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.reading.sandbox import parser
from stillscan.operators.reading.sandbox.file_source import FileSource
from stillscan.operators.reading.sandbox.parser import parse_file
from stillscan.operators.reading.selection import SelectionRules
from stillscan.operators.reading.slice_order import in_space
from stillscan.operators.writing.derived_header import OutputOptions, labelled
from tests.derived import STUDENT, derive, raw_values
from tests.series_factory import make_series

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of broken text

SUFFIX = OutputOptions().suffix
PYTHON_CODECS = ("zlib_codec", "undefined", "idna", "punycode", "utf_7", "utf-8-sig", "rot13")
HOSTILE = {  # what reading and deriving make of each
    "charset_codec_a": "derived",
    "charset_codec_b": "derived",
    "charset_codec_c": "derived",
    "enhanced_perframe_empty_items": "derived",
    "existing_sequence_empty_items": "derived",
    "header_charset": "truncated-file",
    "header_codingscheme": "derived",
    "header_iopnan": "invalid-attribute",
    "header_ippinf": "invalid-attribute",
    "header_refseries": "derived",
    "header_spacing1": "invalid-attribute",
    "header_spacingnan": "invalid-attribute",
    "pixel_spacing_1000000_1": "invalid-attribute",
    "pixel_spacing_1000_1": "invalid-attribute",
    "series_number_20_digits": "derived",
    "series_number_negative": "derived",
    "spacing_picture": "invalid-attribute",
    "vr_of_needed": "derived",
}


def changed(folder: Path, keyword: str, value: bytes, vr: str = "") -> Path:
    """A folder with one sound image, one attribute of which has this value as bytes."""
    (file,) = make_series(folder, slices=1)
    rewrite(file, lambda tree: tree.put(keyword, value, vr))
    return folder


def rewrite(file: Path, change: Callable[[HeaderTree], None]) -> None:
    """Change the header of a file."""
    tree = HeaderTree.of(file)
    change(tree)
    file.write_bytes(tree.content())


def reason_of(folder: Path) -> str:
    """`derived`, or the reason why the series of a folder is refused."""
    with Decoder() as decoder:
        catalogue = find_series(folder, decoder, SelectionRules())
        for refusal in (*catalogue.refused, *catalogue.skipped):
            return refusal.reason
        try:
            for candidate in catalogue.candidates:
                tuple(read_series(candidate, decoder).blocks())
        except InputError as error:
            return error.reason
    return "derived"


@pytest.mark.data
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_derived_or_refused_within_seconds(stillscan_data, tmp_path, name):
    source = tmp_path / "source"
    source.mkdir()
    (source / "one.dcm").write_bytes((stillscan_data / "hostile" / f"{name}.dcm").read_bytes())
    began = time.monotonic()
    reason = reason_of(source)
    if reason == "derived":
        for _, file in derive(source).files:
            after = raw_values(file)
            assert after[tag_of("ImageType")].startswith(b"DERIVED\\")
            assert after[tag_of("SeriesDescription")].rstrip().endswith(SUFFIX.encode())
    assert reason == HOSTILE[name]
    assert time.monotonic() - began < 10


@pytest.mark.data
def test_every_hostile_file_is_in_the_table(stillscan_data):
    assert {each.stem for each in (stillscan_data / "hostile").glob("*.dcm")} == set(HOSTILE)


@pytest.mark.parametrize("codec", PYTHON_CODECS)
def test_a_codec_of_python_is_no_character_set(tmp_path, codec):
    folder = changed(tmp_path, "SpecificCharacterSet", codec.encode() + b" " * (len(codec) % 2))
    ((source, file),) = derive(folder).files
    before, after = raw_values(source), raw_values(file)
    assert after[tag_of("SpecificCharacterSet")] == before[tag_of("SpecificCharacterSet")]
    assert after[tag_of("ImageType")].startswith(b"DERIVED\\SECONDARY\\")
    assert after[tag_of("SeriesDescription")].rstrip().endswith(SUFFIX.encode())


def test_a_long_text_takes_no_longer_than_it_should():
    header = Dataset()
    put(header, "SpecificCharacterSet", b"\\ISO 2022 IR 87\\ISO 2022 IR 149")
    put(header, "SeriesDescription", b"\x1b$B\x1b$)C" * 2**18)
    began = time.monotonic()
    text_of(header, "SeriesDescription")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImagePositionPatient", b"1e308\\0\\0"),
        ("ImagePositionPatient", b"nan\\0\\0"),
        ("ImagePositionPatient", b"0\\0"),
        ("ImagePositionPatient", b"1_0\\0\\0"),
        ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0"),
        ("ImageOrientationPatient", b"2\\0\\0\\0\\1\\0"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\1\\0\\0"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\inf\\0"),
        ("PixelSpacing", b"1000\\1"),
        ("PixelSpacing", b"0\\1"),
        ("PixelSpacing", b"-1\\1"),
        ("PixelSpacing", b"1"),
        ("PixelSpacing", b"1\\nan"),
        ("ImagerPixelSpacing", b"1e-9\\1e-9"),
    ],
)
def test_impossible_geometry_is_refused(tmp_path, keyword, value):
    if keyword == "ImagerPixelSpacing":
        (file,) = make_series(tmp_path, slices=1, PixelSpacing=None)
        rewrite(file, lambda tree: tree.put(keyword, value))
        assert reason_of(tmp_path) == "invalid-attribute"
    else:
        assert reason_of(changed(tmp_path, keyword, value)) == "invalid-attribute"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0"),
        ("ImageOrientationPatient", b""),
        ("ImageOrientationPatient", b"0.99\\0.14\\0\\-0.14\\0.99\\0"),
        ("PixelSpacing", b""),
    ],
)
def test_geometry_that_is_not_known_or_rounded_is_read(tmp_path, keyword, value):
    assert reason_of(changed(tmp_path, keyword, value)) == "derived"


@pytest.mark.parametrize("number", [b"99999999999999999999", b"-3000000000", b"1_0", b"9" * 5000])
def test_a_number_that_an_is_cannot_hold_is_no_number(tmp_path, number):
    folder = changed(tmp_path, "SeriesNumber", number)
    rewrite(next(folder.iterdir()), lambda tree: tree.put("InstanceNumber", number))
    with Decoder() as decoder:
        (candidate,) = find_series(folder, decoder, SelectionRules()).candidates
    assert candidate.instances[0].known.series_number is None
    assert candidate.instances[0].known.instance_number is None
    ((_, file),) = derive(folder).files
    assert not raw_values(file)[tag_of("SeriesNumber")]


@pytest.mark.parametrize("vr", ["UN", "LO", "OB", "FD", "US"])
@pytest.mark.parametrize(
    "keyword",
    [
        "ReferencedSeriesSequence",
        "CodingSchemeIdentificationSequence",
        "ContributingEquipmentSequence",
        "DerivationCodeSequence",
        "SourceImageSequence",
    ],
)
def test_what_should_be_a_sequence_and_is_none_gives_way_to_ours(tmp_path, keyword, vr):
    folder = changed(tmp_path, keyword, b"\xcb\x83Q\xf3\xb7uz\x13", vr)
    ((_, file),) = derive(folder).files
    assert len(pydicom.dcmread(file)[keyword].value) == 1


@pytest.mark.parametrize("vr", ["AT", "FD", "OB", "SQ", "SS", "UN", "US"])
@pytest.mark.parametrize(
    "keyword", ["SeriesDescription", "ImageType", "SeriesNumber", "WindowCenter", "PatientName"]
)
def test_another_vr_does_no_harm(tmp_path, keyword, vr):
    folder = changed(tmp_path, keyword, b"" if vr == "SQ" else b"12345678", vr)
    ((_, file),) = derive(folder).files
    after = raw_values(file)
    assert after[tag_of("SeriesDescription")].rstrip().endswith(SUFFIX.strip().encode())
    assert after[tag_of("ImageType")].startswith(b"DERIVED\\")


def test_more_elements_than_an_image_needs_are_refused(tmp_path, monkeypatch):
    assert parser.MAX_ELEMENTS == 2**20
    monkeypatch.setattr(parser, "MAX_ELEMENTS", 2**14)
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * (2**14 + 1)
    (file,) = changed(tmp_path, "ReferencedImageSequence", items, "SQ").iterdir()
    source = FileSource(str(file))
    with pytest.raises(HeaderTooLargeError):
        parse_file(source)
    source.close()


def test_many_items_take_little_time(tmp_path):
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 100_000
    folder = changed(tmp_path, "ReferencedImageSequence", items, "SQ")
    began = time.monotonic()
    ((_, derived),) = derive(folder).files
    assert derived.stat().st_size > len(items)
    assert time.monotonic() - began < 5


def test_every_direction_of_its_own_takes_no_square_of_the_time(tmp_path):
    make_series(tmp_path, slices=1)
    with Decoder() as decoder:
        (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
    (one,) = candidate.instances
    frame = one.frames[0]
    turned = tuple(
        type(frame)(
            **{
                **{name: getattr(frame, name) for name in frame.__slots__},
                "orientation": ((1.0, 0.0, 0.0), (0.0, 1 - n / 1e5, n / 1e5)),
            }
        )
        for n in range(20_000)
    )
    many = type(one)(one.path, one.known, one.image, turned)
    began = time.monotonic()
    placed, _ = in_space([many])
    assert len(placed) == 20_000
    assert time.monotonic() - began < 5


def test_a_label_stays_the_end_of_what_a_person_reads():
    for hostile in ("two\\values", "turned\u202e", "line\nfeed", "bell\a", "\x1b[31mred"):
        text = labelled(hostile, SUFFIX)
        assert text.endswith(SUFFIX)
        assert text.isprintable()
        assert "\\" not in text


def test_text_is_cut_to_its_vr_and_a_code_is_ascii():
    header = Dataset()
    put(header, "SpecificCharacterSet", b"ISO_IR 192")
    put_text(header, "ImageType", "DERIVED\\" + "X" * 40 + "\\ä")
    assert header.get_item("ImageType").value == b"DERIVED\\" + b"X" * 16 + b"\\"
    put_text(header, "SeriesDescription", "ä" * 100)
    assert text_of(header, "SeriesDescription") == "ä" * 64


def test_numbers_and_values_are_read_from_bytes():
    header = Dataset()
    put(header, "WindowCenter", b"40\\80 ")
    put(header, "WindowWidth", b"inf")
    put(header, "Rows", b"\x40\0")
    put(header, "EchoTime", b"nonsense")
    put(header, "DiffusionBValue", b"\0\0\0\0\0\x40\x8f\x40")
    put(header, "SourceImageSequence", b"")
    assert number_of(header, "WindowCenter") == 40
    assert number_of(header, "WindowWidth") is None
    assert number_of(header, "WindowCenterWidthExplanation") is None
    assert values_of(header, "Rows") == ["64"]
    assert values_of(header, "WindowCenter") == ["40", "80"]
    assert values_of(header, "EchoTime") == ["nonsense"]
    assert values_of(header, "DiffusionBValue") == ["1000"]
    assert values_of(header, "SourceImageSequence") == values_of(header, "PixelData") == []


def test_what_a_broken_child_might_send_is_no_data_set():
    sound = serialised([Element(0x00100010, b"PN", b"A^B "), Element(0x7FE00010, b"OW", bytes(4))])
    assert [each.tag for each in parsed(sound)] == [0x00100010, 0x7FE00010]
    for cut in range(1, len(sound)):
        if cut != 12:  # where the first element ends
            with pytest.raises(DamagedFileError):
                data_set(sound[:cut])
    for broken in (b"\xfe\xff\x00\xe0", b"\xfe\xff\x00\xe0\x01\0\0\0", bytes(8)):
        with pytest.raises(DamagedFileError):
            item_contents(broken)


def test_an_empty_item_stays_an_empty_item(tmp_path):
    folder = changed(tmp_path, "ReferencedSeriesSequence", b"\xfe\xff\x00\xe0\0\0\0\0", "SQ")
    ((_, derived),) = derive(folder).pairs
    assert [len(each) for each in derived.ReferencedSeriesSequence] == [0, 2]
    assert own_items(Dataset(), "ReferencedSeriesSequence") == []


def test_the_derivation_is_one_of_a_denoiser(tmp_path):
    ((_, derived),) = derive(changed(tmp_path, "DerivationDescription", b"x" * 4000)).pairs
    assert len(derived.DerivationDescription) <= 1024
    assert STUDENT.software in derived.DerivationDescription

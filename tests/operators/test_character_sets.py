"""Text in the source's own character set: names keep bytes, descriptions characters (W9)."""

from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from stillscan.operators.dicom.attributes import integer_of, tag_of, text_of
from stillscan.operators.writing.derive_series import derive_series
from stillscan.operators.writing.derived_header import OutputOptions
from tests.derived import STUDENT, Denoised, derive, raw_values, smoothed, volumes_in
from tests.series_factory import make_series

SUFFIX = OutputOptions().suffix


NAMES = {
    "ISO_IR 100": "Müller^Jürgen",
    "ISO_IR 192": "Wang^XiaoDong=王^小东",
    "GB18030": "Wang^XiaoDong=王^小东",
    "ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    None: "Plain^Ascii",
}
DESCRIPTIONS = {
    "ISO_IR 100": "Schädel größer",
    "ISO_IR 192": "头部扫描",
    "GB18030": "头部扫描",
    "ISO 2022 IR 149": "머리",
    "ISO 2022 IR 87": "頭部",
    None: "head",
}


def in_character_set(folder: Path, charset: str | None) -> list[Path]:
    term: object = ["", charset] if charset and charset.startswith("ISO 2022") else charset
    return make_series(
        folder,
        slices=1,
        SpecificCharacterSet=term,
        PatientName=NAMES[charset],
        PatientComments=DESCRIPTIONS[charset],
        SeriesDescription=DESCRIPTIONS[charset],
        DerivationDescription=DESCRIPTIONS[charset],
    )


@pytest.mark.parametrize("charset", NAMES)
def test_names_keep_their_bytes_and_descriptions_their_characters(
    charset: str | None, tmp_path: Path
) -> None:
    in_character_set(tmp_path / "source", charset)
    ((source, file),) = derive(tmp_path / "source").files
    before, after = raw_values(source), raw_values(file)
    for keyword in ("PatientName", "PatientComments"):
        assert after[tag_of(keyword)] == before[tag_of(keyword)]
    assert after.get(tag_of("SpecificCharacterSet")) == before.get(tag_of("SpecificCharacterSet"))
    derived = pydicom.dcmread(file)
    assert derived.SeriesDescription == DESCRIPTIONS[charset] + SUFFIX
    assert derived.DerivationDescription.endswith(DESCRIPTIONS[charset])


@pytest.mark.parametrize("charset", NAMES)
def test_text_that_somebody_has_read_keeps_its_bytes(charset: str | None, tmp_path: Path) -> None:
    (file,) = in_character_set(tmp_path / "source", charset)
    (volume,) = volumes_in(tmp_path / "source")
    block = volume.read(0, 1)
    assert block.headers[0].PatientComments == DESCRIPTIONS[charset]
    assert str(block.headers[0].PatientName) == NAMES[charset]
    series = derive_series(
        [Denoised(block, smoothed(block))], volume, STUDENT, tmp_path / "derived"
    )
    before, after = raw_values(file), raw_values(series.files[0])
    for keyword in ("PatientName", "PatientComments"):
        assert after[tag_of(keyword)] == before[tag_of(keyword)]


@pytest.mark.parametrize("charset", NAMES)
def test_text_beside_a_private_attribute_in_a_sequence_keeps_its_characters(
    charset: str | None, tmp_path: Path
) -> None:
    (file,) = in_character_set(tmp_path / "source", charset)
    dataset = pydicom.dcmread(file)
    item = Dataset()
    item.PatientComments = DESCRIPTIONS[charset]
    item.private_block(0x0029, "SOMEBODY", create=True).add_new(0x01, "LO", "secret")
    dataset.OtherPatientIDsSequence = [item]
    dataset.save_as(file)
    ((_, derived),) = derive(tmp_path / "source").pairs
    (kept,) = derived.OtherPatientIDsSequence
    assert kept.PatientComments == DESCRIPTIONS[charset]
    assert [tag for tag in kept.keys() if tag.is_private] == []  # noqa: SIM118


@pytest.mark.parametrize("charset", ["ISO_IR 192", "GB18030", "ISO 2022 IR 87"])
def test_a_long_description_is_cut_between_characters(charset: str, tmp_path: Path) -> None:
    files = in_character_set(tmp_path / "source", charset)
    dataset = pydicom.dcmread(files[0])
    dataset.SeriesDescription = (DESCRIPTIONS[charset] * 30)[:64]
    dataset.save_as(files[0])
    ((_, derived),) = derive(tmp_path / "source").pairs
    assert len(derived.SeriesDescription) == 64
    assert derived.SeriesDescription.endswith(SUFFIX)
    assert derived.SeriesDescription.startswith(DESCRIPTIONS[charset])


@pytest.mark.filterwarnings("ignore")  # pydicom warns of the bytes that this test breaks
@pytest.mark.parametrize("charset", ["ISO_IR 192", "GB18030", "ISO_IR 999", "ISO 2022 IR 87"])
def test_broken_bytes_stay_broken_where_they_were_and_only_there(
    charset: str, tmp_path: Path
) -> None:
    files = make_series(
        tmp_path / "source",
        slices=1,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="XXXXXXXX",
        PatientComments="XXXXXXXX",
        SeriesDescription="XXXXXXXX",
    )
    content = files[0].read_bytes().replace(b"XXXXXXXX", b"\xff\xfe\x1b$Bab\xc3")
    before = b"CS\x0a\x00ISO_IR 100"
    term = charset.encode() + b" " * (len(charset) % 2)
    content = content.replace(before, b"CS" + len(term).to_bytes(2, "little") + term, 1)
    files[0].write_bytes(content)
    ((source, file),) = derive(tmp_path / "source").files
    before_values, after = raw_values(source), raw_values(file)
    for keyword in ("PatientName", "PatientComments", "SpecificCharacterSet"):
        assert after[tag_of(keyword)] == before_values[tag_of(keyword)]
    assert after[tag_of("SeriesDescription")].strip().endswith(SUFFIX.strip().encode())


def test_reading_an_attribute_leaves_the_header_raw(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(make_series(tmp_path, slices=1)[0])
    assert text_of(dataset, "PatientID") == "PH0000"
    assert text_of(dataset, "ImageType") == "ORIGINAL\\PRIMARY\\M\\ND"
    assert integer_of(dataset, "BitsStored") == 12
    for keyword in ("PatientID", "ImageType", "BitsStored"):
        assert dataset.get_item(keyword).is_raw

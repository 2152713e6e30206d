"""The header of a derived image: what differs from the source, and that all else stays (W1-W9)."""

from pathlib import Path

import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from stillscan.operators.dicom.attributes import tag_of
from stillscan.operators.writing.derived_header import (
    REMOVED,
    OutputOptions,
    derived_image_type,
    free_series_number,
    labelled,
)
from tests.derived import (
    IDENTITY,
    STUDENT,
    Denoise,
    derive,
    raw_values,
    smoothed,
    unchanged,
)
from tests.series_factory import SOP_CLASSES, make_series

SUFFIX = OutputOptions().suffix
CHANGED = {
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ImageType",
    "DerivationDescription",
    "DerivationCodeSequence",
    "CodingSchemeIdentificationSequence",
    "SourceImageSequence",
    "ReferencedSeriesSequence",
    "ContributingEquipmentSequence",
    "PixelData",
}


def derived_pair(
    folder: Path, denoise: Denoise = smoothed, **attributes: object
) -> tuple[Dataset, Dataset]:
    options = attributes.pop("options", None)
    make_series(folder / "source", slices=1, **attributes)  # type: ignore[arg-type]
    (pair,) = derive(folder / "source", denoise, options=options).pairs  # type: ignore[arg-type]
    return pair


@pytest.mark.parametrize("modality", SOP_CLASSES)
def test_every_attribute_that_is_not_named_keeps_its_bytes(modality: str, tmp_path: Path) -> None:
    make_series(tmp_path / "source", modality=modality, PatientWeight="", PregnancyStatus="")
    for source, derived in derive(tmp_path / "source").files:
        before, after = raw_values(source), raw_values(derived)
        changed = {tag_of(keyword) for keyword in CHANGED}
        removed = {tag_of(keyword) for keyword in REMOVED}
        kept = {tag: value for tag, value in before.items() if tag not in changed | removed}
        assert {tag: value for tag, value in after.items() if tag not in changed} == kept


def test_geometry_strings_are_byte_identical(tmp_path: Path) -> None:
    make_series(
        tmp_path / "source",
        ImagePositionPatient=lambda index: ["-1.000000e+2", "+.5", f"{index}.10"],
        ImageOrientationPatient=["0.99999994", "0", "-0", "0", "1.0", "1e-7"],
        PixelSpacing=["0.50", ".500"],
    )
    for source, derived in derive(tmp_path / "source").files:
        before, after = raw_values(source), raw_values(derived)
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            assert after[tag_of(keyword)] == before[tag_of(keyword)]
        assert after[tag_of("InstanceNumber")] == before[tag_of("InstanceNumber")]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_headers_of_other_byte_orders_are_the_same_in_explicit_little_endian(
    syntax: str, tmp_path: Path
) -> None:
    attributes: dict[str, object] = {
        "SmallestImagePixelValue": 1,
        "LargestImagePixelValue": 2,
        "modality": "CT",
        "signed": True,
        "padding": -2000,
        "bits_stored": 16,
    }
    _, native = derived_pair(tmp_path / "native", **attributes)
    _, other = derived_pair(tmp_path / "other", transfer_syntax=syntax, **attributes)
    assert other == native
    assert other.file_meta.TransferSyntaxUID.is_implicit_VR is False
    assert other["PixelPaddingValue"].VR == "SS"


def test_study_patient_frame_of_reference_and_scanner_stay(tmp_path: Path) -> None:
    source, derived = derived_pair(tmp_path)
    for keyword in (
        "StudyInstanceUID",
        "PatientName",
        "PatientID",
        "FrameOfReferenceUID",
        "Manufacturer",
        "ManufacturerModelName",
        "SoftwareVersions",
        "AcquisitionTime",
        "WindowCenter",
        "WindowWidth",
    ):
        assert derived[keyword] == source[keyword]


def test_identifiers_are_new_and_file_meta_names_them_and_us(tmp_path: Path) -> None:
    source, derived = derived_pair(tmp_path)
    assert derived.SOPInstanceUID != source.SOPInstanceUID
    assert derived.SeriesInstanceUID != source.SeriesInstanceUID
    meta = derived.file_meta
    assert meta.MediaStorageSOPInstanceUID == derived.SOPInstanceUID
    assert meta.MediaStorageSOPClassUID == derived.SOPClassUID
    assert meta.ImplementationVersionName == "STILLSCAN_0.1.0"
    assert str(meta.ImplementationClassUID).startswith("2.25.")


def test_preamble_is_zeroed(tmp_path: Path) -> None:
    files = make_series(tmp_path / "source", slices=1)
    content = files[0].read_bytes()
    files[0].write_bytes(b"MZ" * 64 + content[128:])
    ((_, derived),) = derive(tmp_path / "source").files
    assert derived.read_bytes()[:132] == bytes(128) + b"DICM"


# Series (W3)


@pytest.mark.parametrize(
    ("source", "taken", "factor", "expected"),
    [
        (3, {3}, 100, 301),
        (3, {3, 301, 302}, 100, 303),
        (3, {3}, 1000, 3001),
        (0, {0, 1}, 100, 2),
        (2_000_000_000, {2_000_000_000}, 100, 2_000_000_001),
        (-4, {-4}, 100, -3),
        (2**31 - 1, {2**31 - 1, 1}, 100, 2),  # the largest that an IS can hold
        (None, {1}, 100, None),
    ],
)
def test_series_number_is_the_first_free_one_above_the_sources_multiple(
    source: int | None, taken: set[int], factor: int, expected: int | None
) -> None:
    assert free_series_number(source, frozenset(taken), factor) == expected


def test_series_number_avoids_what_is_known_of_the_study(tmp_path: Path) -> None:
    make_series(tmp_path / "source", slices=1)
    derivation = derive(tmp_path / "source", sibling_series_numbers=frozenset({3, 301}))
    ((_, derived),) = derivation.pairs
    assert derived.SeriesNumber == 302


@pytest.mark.parametrize("number", ["", None])
def test_a_series_without_number_stays_without(number: str | None, tmp_path: Path) -> None:
    _, derived = derived_pair(tmp_path, SeriesNumber=number)
    assert derived.SeriesNumber is None


def test_series_level_attributes_are_constant(tmp_path: Path) -> None:
    make_series(
        tmp_path / "source",
        SeriesTime=lambda index: f"10203{index}",
        SeriesDate=lambda index: "20200102" if index < 2 else None,
        SeriesDescription=lambda index: f"phantom {index}",
    )
    derived = [after for _, after in derive(tmp_path / "source").pairs]
    for keyword in ("SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime"):
        assert len({str(each[keyword].value) for each in derived}) == 1
    assert {each.SeriesDescription for each in derived} == {"phantom 0" + SUFFIX}
    assert derived[0].SeriesTime == "102030"


def test_nothing_in_a_header_depends_on_the_clock(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        make_series(folder / "source")
        contents.append([file.read_bytes() for _, file in derive(folder / "source").files])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("length", [0, 1, 33, 34, 64])
def test_series_description_with_its_label_fits_an_lo(length: int) -> None:
    description = labelled("x" * length, SUFFIX)
    assert len(description) <= 64
    assert description.endswith(SUFFIX.strip())
    assert description.startswith("x" * min(length, 64 - len(SUFFIX)))


def test_a_control_is_labelled_as_one(tmp_path: Path) -> None:
    make_series(tmp_path / "source", slices=1)
    ((_, derived),) = derive(tmp_path / "source", unchanged, IDENTITY).pairs
    assert "not denoised" in derived.SeriesDescription
    assert "Control without noise reduction" in derived.DerivationDescription


# What was done (W5, W6)


@pytest.mark.parametrize(
    ("sop_class", "values", "expected"),
    [
        (MRImageStorage, ["ORIGINAL", "PRIMARY", "M", "ND"], "DERIVED SECONDARY M ND"),
        (CTImageStorage, ["ORIGINAL", "PRIMARY", "AXIAL"], "DERIVED SECONDARY AXIAL"),
        (PositronEmissionTomographyImageStorage, ["ORIGINAL", "PRIMARY"], "DERIVED PRIMARY"),
        (EnhancedMRImageStorage, ["ORIGINAL", "PRIMARY", "M", "NONE"], "DERIVED PRIMARY M NONE"),
        (MRImageStorage, [""], "DERIVED SECONDARY"),
    ],
)
def test_image_type_follows_the_sop_class(sop_class: str, values: list[str], expected: str) -> None:
    assert derived_image_type(values, sop_class) == expected.split()


def test_derivation_has_one_code_that_extends_cid_7203(tmp_path: Path) -> None:
    _, derived = derived_pair(tmp_path)
    (item,) = derived.DerivationCodeSequence
    assert (item.CodeValue, item.CodingSchemeDesignator) == ("NOISE_REDUCTION", "99STILLSCAN")
    assert (item.ContextIdentifier, item.MappingResource) == ("7203", "DCMR")
    assert item.ContextGroupExtensionFlag == "Y"
    assert item.ContextGroupLocalVersion
    assert item.ContextGroupExtensionCreatorUID.is_valid
    (scheme,) = derived.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99STILLSCAN"


def test_smoothing_can_stand_for_our_own_code(tmp_path: Path) -> None:
    options = OutputOptions(derivation_code="smoothing")
    _, derived = derived_pair(tmp_path, options=options)
    (item,) = derived.DerivationCodeSequence
    assert (item.CodeValue, item.CodingSchemeDesignator) == ("113087", "DCM")
    assert "CodingSchemeIdentificationSequence" not in derived


def test_earlier_derivations_stay_and_come_first(tmp_path: Path) -> None:
    earlier = Dataset()
    earlier.CodeValue, earlier.CodingSchemeDesignator = "113085", "DCM"
    earlier.CodeMeaning = "Spatial resampling"
    _, derived = derived_pair(
        tmp_path,
        DerivationCodeSequence=[earlier],
        DerivationDescription="resampled to 1 mm",
    )
    assert [item.CodeValue for item in derived.DerivationCodeSequence] == [
        "113085",
        "NOISE_REDUCTION",
    ]
    assert "Stillscan 0.1.0" in derived.DerivationDescription
    assert derived.DerivationDescription.endswith("resampled to 1 mm")


def test_derivation_description_fits_an_st(tmp_path: Path) -> None:
    _, derived = derived_pair(tmp_path, DerivationDescription="x" * 1024)
    assert len(derived.DerivationDescription) == 1024
    assert derived.DerivationDescription.startswith("Stillscan")


def test_the_source_image_and_its_series_are_referenced(tmp_path: Path) -> None:
    source, derived = derived_pair(tmp_path)
    (image,) = derived.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert image.ReferencedSOPClassUID == source.SOPClassUID
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    (series,) = derived.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    (instance,) = series.ReferencedInstanceSequence
    assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_a_series_that_the_source_refers_to_is_named_once(tmp_path: Path) -> None:
    files = make_series(tmp_path / "plain", slices=1)
    own_series = pydicom.dcmread(files[0]).SeriesInstanceUID
    references = []
    for series in ("1.2.3", own_series):
        instance, item = Dataset(), Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = "1.2", "1.9"
        item.SeriesInstanceUID, item.ReferencedInstanceSequence = series, [instance]
        references.append(item)
    source, derived = derived_pair(tmp_path, ReferencedSeriesSequence=references)
    assert [each.SeriesInstanceUID for each in derived.ReferencedSeriesSequence] == [
        "1.2.3",
        own_series,
    ]
    named = derived.ReferencedSeriesSequence[1].ReferencedInstanceSequence
    assert [each.ReferencedSOPInstanceUID for each in named] == [
        "1.9",
        source.SOPInstanceUID,
    ]


def test_we_are_added_to_the_contributing_equipment(tmp_path: Path) -> None:
    scanner = Dataset()
    scanner.Manufacturer = "Somebody"
    source, derived = derived_pair(tmp_path, ContributingEquipmentSequence=[scanner])
    first, ours = derived.ContributingEquipmentSequence
    assert first.Manufacturer == "Somebody"
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert ours.ManufacturerModelName == "Stillscan"
    assert list(ours.SoftwareVersions) == [STUDENT.version, STUDENT.model_sha256]
    assert derived.Manufacturer == source.Manufacturer


@pytest.mark.parametrize(
    ("in_source", "by_setting", "expected"),
    [("YES", False, "YES"), (None, False, ""), (None, True, "YES"), ("NO", True, "YES")],
)
def test_synthetic_data_stays_or_is_set(
    in_source: str | None, by_setting: bool, expected: str, tmp_path: Path
) -> None:
    options = OutputOptions(synthetic_data=by_setting)
    _, derived = derived_pair(tmp_path, options=options, SyntheticData=in_source)
    assert derived.get("SyntheticData", "") == expected


# Removed and kept (W8)


def with_elements(folder: Path, *elements: DataElement) -> list[Path]:
    files = make_series(folder, slices=1)
    dataset = pydicom.dcmread(files[0])
    for element in elements:
        dataset.add(element)
    dataset.save_as(files[0])
    return files


def test_what_is_untrue_of_the_derived_image_is_removed(tmp_path: Path) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    values = {"SQ": [item], "UI": "1.2.3", "DA": "20200101", "TM": "101010", "DT": "20200101"}
    elements = []
    for keyword in REMOVED:
        vr = pydicom.datadict.dictionary_VR(keyword)
        value = values.get(vr, 1 if "US" in vr or vr == "UL" else b"12" if vr[0] == "O" else "12")
        elements.append(DataElement(tag_of(keyword), "US" if "US" in vr else vr, value))
    files = with_elements(tmp_path / "source", *elements)
    assert all(tag_of(keyword) in pydicom.dcmread(files[0]) for keyword in REMOVED)
    ((_, derived),) = derive(tmp_path / "source").pairs
    assert [keyword for keyword in REMOVED if tag_of(keyword) in derived] == []


def test_overlays_of_their_own_stay(tmp_path: Path) -> None:
    with_elements(
        tmp_path / "source",
        DataElement(0x60000010, "US", 64),
        DataElement(0x60003000, "OW", bytes(range(256)) * 2),
    )
    ((source, derived),) = derive(tmp_path / "source").pairs
    assert derived.group_dataset(0x6000) == source.group_dataset(0x6000)


def test_lossy_compression_is_never_reset(tmp_path: Path) -> None:
    lossy = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ["10.0"],
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    source, derived = derived_pair(tmp_path, modality="CT", **lossy)
    for keyword in lossy:
        assert derived[keyword] == source[keyword]


@pytest.mark.parametrize(
    "options",
    [
        {"suffix": ""},
        {"suffix": "  "},
        {"suffix": " ä"},
        {"suffix": "a\\b"},
        {"suffix": "x" * 33},
        {"series_number_factor": 0},
    ],
)
def test_options_that_cannot_be_written_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        OutputOptions(**options)  # type: ignore[arg-type]


# Pixel attributes (W7)


@pytest.mark.parametrize(("signed", "vr"), [(True, "SS"), (False, "US")])
def test_smallest_and_largest_pixel_values_are_those_of_the_derived_pixels(
    signed: bool, vr: str, tmp_path: Path
) -> None:
    files = make_series(tmp_path / "source", slices=1, signed=signed)
    dataset = pydicom.dcmread(files[0])
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue"):
        dataset.add_new(tag_of(keyword), vr, 7)
    dataset.save_as(files[0])
    ((_, derived),) = derive(tmp_path / "source").pairs
    pixels = derived.pixel_array
    assert vr == derived["SmallestImagePixelValue"].VR
    assert derived.SmallestImagePixelValue == pixels.min()
    assert derived.LargestImagePixelValue == pixels.max()


def test_smallest_and_largest_are_not_added_where_the_source_has_none(tmp_path: Path) -> None:
    _, derived = derived_pair(tmp_path)
    assert "SmallestImagePixelValue" not in derived

"""The selection rules: what is not denoised by default, why, and what each rule allows."""

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from bench.derived import EVERYTHING
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Catalogue, find_series, read_series
from stillscan.operators.reading.selection import SelectionRules
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series
from tests.series_modules import item


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


@pytest.fixture
def catalogue_of(decoder, tmp_path):
    """The catalogue of one small series with these attributes."""

    def catalogue(rules: SelectionRules | None = None, **attributes: object) -> Catalogue:
        make_series(tmp_path, slices=1, **attributes)
        return find_series(tmp_path, decoder, rules or SelectionRules())

    return catalogue


def image_type(*values: str) -> list[str]:
    return ["ORIGINAL", "PRIMARY", *values]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (image_type("LOCALIZER"), "localizer"),
        (image_type("P", "ND"), "phase-or-complex"),  # Siemens
        (image_type("PHASE MAP", "P", "FFE"), "phase-or-complex"),  # Philips
        (image_type("R_IR", "R", "IR"), "phase-or-complex"),
        (image_type("I_FFE", "I", "FFE"), "phase-or-complex"),
        (image_type("VELOCITY MAP", "P", "PCA"), "phase-or-complex"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"], "quantitative-map"),
        (["DERIVED", "PRIMARY", "DIFFUSION", "FA"], "quantitative-map"),
        (image_type("T1 MAP", "T1", "UNSPECIFIED"), "quantitative-map"),
        (["DERIVED", "PRIMARY", "PERFUSION", "RCBF"], "quantitative-map"),
        (["DERIVED", "PRIMARY", "MPR", "NORM"], "reformatted"),
        (["DERIVED", "SECONDARY", "AXIAL", "CSA MPR"], "reformatted"),
        (["DERIVED", "PRIMARY", "MIP", "ND"], "reformatted"),
        (["DERIVED", "SECONDARY", "PROJECTION IMAGE"], "reformatted"),
        (["DERIVED", "PRIMARY", "MNIP", "ND"], "reformatted"),
        (["DERIVED", "SECONDARY", "SCREEN SAVE"], "burned-in-annotation"),
        (image_type("AXIAL", "CT_SOM5 SEQ", "MPR"), "reformatted"),
    ],
)
def test_image_type_says_what_is_refused(values, reason, catalogue_of):
    (refusal,) = catalogue_of(ImageType=values).refused
    assert refusal.reason == reason
    assert refusal.by_rules
    assert "ImageType: found" in refusal.message
    assert len(catalogue_of(EVERYTHING, ImageType=values).candidates) == 1


@pytest.mark.parametrize(
    "values",
    [
        ["DERIVED", "PRIMARY"],  # most radiographs
        ["DERIVED", "SECONDARY", "M"],
        image_type("M", "NORM", "DIS2D"),
        image_type("FMRI", "NONE"),
        image_type("PERFUSION", "NONE", "ND"),
        image_type("M_FFE", "M", "FFE"),
        image_type("DIFFUSION", "NONE", "ND"),
        ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"],
        image_type("T1", "NONE"),  # a flavour of enhanced MR: weighted, no map
        image_type("OTHER"),  # GE
    ],
)
def test_image_type_of_ordinary_images_does_not_refuse(values, catalogue_of):
    assert len(catalogue_of(ImageType=values).candidates) == 1


@pytest.mark.parametrize(
    ("attributes", "reason", "rules"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned-in-annotation", {"burned_in": "process"}),
        ({"LossyImageCompression": "01"}, "lossy-compression", {"lossy": "process"}),
        ({"rows": 31}, "too-few-pixels", {"min_matrix": 16}),
        ({"ComplexImageComponent": "PHASE"}, "phase-or-complex", {"complex_images": "process"}),
        ({"modality": "PT"}, "unsupported-modality", {"modalities": ("PT",)}),
    ],
)
def test_rule_decides(attributes, reason, rules, catalogue_of):
    strict = SelectionRules(modalities=("MR", "CT"))
    assert [each.reason for each in catalogue_of(strict, **attributes).refused] == [reason]
    assert len(catalogue_of(SelectionRules(**rules), **attributes).candidates) == 1


@pytest.mark.parametrize(
    ("block", "element", "vr", "value", "reason"),
    [
        ((0x0043, "GEMS_PARM_01"), 0x2F, "SS", 0, None),
        ((0x0043, "GEMS_PARM_01"), 0x2F, "SS", 1, "phase-or-complex"),
        ((0x0043, "GEMS_PARM_01"), 0x30, "SS", 14, None),
        ((0x0043, "GEMS_PARM_01"), 0x30, "SS", 18, "quantitative-map"),
        ((0x0043, "GEMS_PARM_01"), 0x30, "SS", 20, "quantitative-map"),
        ((0x0019, "GEMS_ACQU_01"), 0x9C, "LO", "epi2", None),
        ((0x0019, "GEMS_ACQU_01"), 0x9C, "LO", "3db0map", "quantitative-map"),
        ((0x0019, "GEMS_ACQU_01"), 0x9E, "LO", "B0map", "quantitative-map"),
        ((0x0019, "SOMEBODY ELSE"), 0x9E, "LO", "B0map", None),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_kind_is_said_in_private_attributes(
    block, element, vr, value, reason, implicit, decoder, tmp_path
):
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    (path,) = make_series(tmp_path, slices=1, ImageType=image_type("OTHER"))
    dataset = pydicom.dcmread(path)
    dataset.private_block(block[0], "ANOTHER ONE", create=True)
    dataset.private_block(*block, create=True).add_new(element, vr, value)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=implicit)
    refused = find_series(tmp_path, decoder, SelectionRules()).refused
    assert [each.reason for each in refused] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("unit", "quantity", "reason"),
    [
        ("1", "", None),
        ("Hz", "", "quantitative-map"),
        ("mm2/s", "", "quantitative-map"),
        ("1", "110808", "quantitative-map"),  # FA has no unit
        ("1", "110852", None),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_real_world_values_say_what_a_pixel_is(unit, quantity, reason, enhanced, decoder, tmp_path):
    mapping = item(
        RealWorldValueSlope=1.0,
        RealWorldValueIntercept=0.0,
        MeasurementUnitsCodeSequence=[item(CodeValue=unit, CodingSchemeDesignator="UCUM")],
    )
    if quantity:
        named = item(CodeValue="246205007", CodingSchemeDesignator="SCT", CodeMeaning="Quantity")
        code = item(CodeValue=quantity, CodingSchemeDesignator="DCM", CodeMeaning="X")
        mapping.QuantityDefinitionSequence = [
            item(ValueType="CODE", ConceptNameCodeSequence=[named], ConceptCodeSequence=[code])
        ]
    (path,) = (
        make_enhanced(tmp_path, modality="MR") if enhanced else make_series(tmp_path, slices=1)
    )
    dataset = pydicom.dcmread(path)
    places = dataset.PerFrameFunctionalGroupsSequence if enhanced else [dataset]
    for place in places:
        place.RealWorldValueMappingSequence = [mapping]
    dataset.save_as(path)
    refused = find_series(tmp_path, decoder, SelectionRules()).refused
    assert [each.reason for each in refused] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("attributes", "unit", "reason"),
    [
        ({"RescaleType": "HU"}, "HU", None),
        ({}, "HU", None),  # PS3.3 C.8.2.1: required where it is another
        ({"RescaleType": "US"}, "1", None),
        ({"RescaleType": "HU_MOD"}, "HU_MOD", None),
        ({"RescaleType": "MGML"}, "", "quantitative-map"),
        ({"RescaleType": "Z_EFF"}, "", "quantitative-map"),
        ({"RescaleSlope": None}, "", "missing-attribute"),
        ({"RescaleIntercept": None}, "", "missing-attribute"),
    ],
)
def test_ct_is_in_hounsfield_units_or_says_otherwise(attributes, unit, reason, decoder, tmp_path):
    for path in make_series(tmp_path, modality="CT", slices=2):
        dataset = pydicom.dcmread(path)
        dataset.pop("RescaleType", None)
        for keyword, value in attributes.items():
            dataset.pop(keyword, None) if value is None else setattr(dataset, keyword, value)
        dataset.save_as(path)
    found = find_series(tmp_path, decoder, SelectionRules())
    assert [each.reason for each in found.refused] == ([reason] if reason else [])
    assert [read_series(each, decoder).unit for each in found.candidates] == [unit] * (not reason)


def test_a_description_that_speaks_of_a_map_warns(decoder, tmp_path):
    make_series(tmp_path, slices=1, SeriesDescription="ep2d_diff_ADC")
    (candidate,) = find_series(tmp_path, decoder, SelectionRules()).candidates
    assert any("contains ADC" in each for each in read_series(candidate, decoder).warnings)


@pytest.mark.parametrize("mark", ["derivation code", "equipment"])
def test_series_that_we_made_are_not_denoised_again(mark, decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    dataset, item = pydicom.dcmread(path), Dataset()
    if mark == "derivation code":
        item.CodeValue, item.CodingSchemeDesignator = "NOISE_REDUCTION", "99STILLSCAN"
        dataset.DerivationCodeSequence = [item]
    else:
        item.Manufacturer, item.ManufacturerModelName = "Somebody", "Stillscan"
        dataset.ContributingEquipmentSequence = [item]
    dataset.save_as(path)
    (refusal,) = find_series(tmp_path, decoder, SelectionRules()).refused
    assert refusal.reason == "already-denoised"
    allowed = SelectionRules(denoised="process")
    assert len(find_series(tmp_path, decoder, allowed).candidates) == 1


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (SelectionRules(descriptions=("*t1*",)), "description-not-chosen"),
        (SelectionRules(excluded_descriptions=("mr PHAN*",)), "description-excluded"),
        (SelectionRules(descriptions=("*phantom",)), None),
    ],
)
def test_series_are_chosen_by_their_description(rules, reason, catalogue_of):
    catalogue = catalogue_of(rules)  # SeriesDescription is "MR phantom"
    assert [each.reason for each in catalogue.refused] == ([reason] if reason else [])


def test_one_odd_image_is_left_out_of_its_series(catalogue_of, decoder, tmp_path):
    def of_index(index: int) -> list[str]:
        return image_type("P" if index == 2 else "M")

    make_series(tmp_path, slices=4, ImageType=of_index)
    found = find_series(tmp_path, decoder, SelectionRules())
    (candidate,) = found.candidates
    assert not found.refused
    assert candidate.slices == 3
    ((odd,),) = [each.files for each in found.skipped]
    assert odd.name == "MR_0_0003.dcm"
    assert [each.reason for each in found.skipped] == ["phase-or-complex"]
    assert "left out: 1 of 4 images (phase-or-complex)" in candidate.warnings


def test_damage_of_what_is_no_image_to_denoise_is_not_reported(decoder, tmp_path):
    (localizer,) = make_series(tmp_path / "a", slices=1, ImageType=image_type("LOCALIZER"))
    localizer.write_bytes(localizer.read_bytes()[:-100])
    (capture,) = make_series(
        tmp_path / "b", slices=1, seed=1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"
    )
    capture.write_bytes(capture.read_bytes()[:-100])
    refused = find_series(tmp_path, decoder, SelectionRules()).refused
    assert [(each.reason, each.by_rules) for each in refused] == [
        ("localizer", True),
        ("unsupported-sop-class", True),
    ]

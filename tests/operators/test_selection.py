"""The selection rules: what is not denoised by default, why, and what each rule allows."""

import pydicom
import pytest
from pydicom import Dataset

from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Catalogue, find_series
from stillscan.operators.reading.selection import SelectionRules
from tests.series_factory import make_series

EVERYTHING = SelectionRules(
    localizers="process",
    complex_images="process",
    maps="process",
    reformatted="process",
    burned_in="process",
    lossy="process",
    denoised="process",
    min_matrix=1,
)


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
    ],
)
def test_image_type_values_3_and_4_refuse(values, reason, catalogue_of):
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
        image_type("AXIAL", "CT_SOM5 SEQ", "MPR"),  # value 5 says nothing
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


@pytest.mark.parametrize(("component", "reasons"), [(0, []), (1, ["phase-or-complex"])])
def test_ge_phase_images_are_known_by_a_private_attribute(component, reasons, decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1, ImageType=image_type("OTHER"))
    dataset = pydicom.dcmread(path)
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x2F, "SS", component)
    dataset.save_as(path)
    refused = find_series(tmp_path, decoder, SelectionRules()).refused
    assert [each.reason for each in refused] == reasons


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


def test_one_excluded_image_excludes_its_series(catalogue_of, decoder, tmp_path):
    def of_index(index: int) -> list[str]:
        return image_type("P" if index == 2 else "M")

    make_series(tmp_path, slices=4, ImageType=of_index)
    (refusal,) = find_series(tmp_path, decoder, SelectionRules()).refused
    assert refusal.reason == "phase-or-complex"
    assert len(refusal.files) == 4
    assert "MR_0_0003.dcm" in refusal.message


def test_damage_is_reported_before_rules_but_not_for_other_kinds_of_objects(decoder, tmp_path):
    (localizer,) = make_series(tmp_path / "a", slices=1, ImageType=image_type("LOCALIZER"))
    localizer.write_bytes(localizer.read_bytes()[:-100])
    (capture,) = make_series(
        tmp_path / "b", slices=1, seed=1, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"
    )
    capture.write_bytes(capture.read_bytes()[:-100])
    refused = find_series(tmp_path, decoder, SelectionRules()).refused
    assert [(each.reason, each.by_rules) for each in refused] == [
        ("truncated-file", False),
        ("unsupported-sop-class", True),
    ]

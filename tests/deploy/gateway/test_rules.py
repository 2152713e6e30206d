"""The first rule that matches the header of a series says what becomes of it."""

import pytest
from pydicom import Dataset

from stillscan.deploy.gateway.planner.rules import choose_rule, expected_images, header_of
from stillscan.deploy.gateway.settings import Rule
from stillscan.operators.reading.decoder import Decoder
from tests.series_factory import make_series

RULES = (
    Rule("from-ct", {"calling-ae-title": "CT*"}),
    Rule("axial-t1", {"Modality": "MR", "SeriesDescription": "*t1*", "ImageType": "AXIAL"}),
    Rule("mr", {"Modality": "MR"}),
)


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("attributes", "sender", "name"),
    [
        ({"Modality": "MR"}, "CT1", "from-ct"),
        ({"Modality": "MR"}, "MR1", "mr"),
        ({"Modality": "mr "}, "MR1", "mr"),
        (
            {"Modality": "MR", "SeriesDescription": "Sag T1 3D", "ImageType": ["X", "AXIAL"]},
            "",
            "axial-t1",
        ),
        ({"Modality": "MR", "SeriesDescription": "Sag T2", "ImageType": ["X", "AXIAL"]}, "", "mr"),
        ({"Modality": "US"}, "US1", None),
        ({}, "", None),
    ],
)
def test_the_first_rule_that_matches_is_taken(attributes, sender, name):
    rule = choose_rule(RULES, header(**attributes), sender)
    assert (rule.name if rule else None) == name


def test_a_rule_without_patterns_matches_everything():
    assert choose_rule([Rule("all")], header(), "") == Rule("all")


@pytest.mark.parametrize("keyword", ["RequestAttributesSequence", "PixelData", "SliceThickness"])
def test_attributes_without_text_match_nothing(keyword):
    instance = header(RequestAttributesSequence=[header(Modality="MR")], PixelData=b"MR")
    assert choose_rule([Rule("odd", {keyword: "*"})], instance, "") is None


@pytest.mark.parametrize(
    ("attributes", "count"),
    [
        ({}, None),
        ({"ImagesInAcquisition": "20"}, 20),
        ({"ImagesInAcquisition": "0"}, None),
        ({"NumberOfSlices": 47}, 47),
        ({"NumberOfSlices": 47, "NumberOfTimeSlices": 10}, 470),
        ({"NumberOfSeriesRelatedInstances": "12"}, 12),
    ],
)
def test_headers_say_how_many_images_there_are(attributes, count):
    assert expected_images(header(**attributes)) == count


def test_the_header_of_a_file_comes_from_the_reading_child(tmp_path):
    (file,) = make_series(tmp_path, slices=1, StationName="ROOM 3")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(file.read_bytes()[:-100])
    with Decoder() as decoder:
        scanned, found = header_of(file, decoder)
        assert scanned.fault is None
        assert found.StationName == "ROOM 3"
        scanned, found = header_of(broken, decoder)
        assert scanned.fault is not None
        assert found.Modality == "MR"  # what the scan could tell
        assert "StationName" not in found

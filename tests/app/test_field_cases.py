"""What users of other tools reported, made small: each case of the shared data ends as is right."""

from pathlib import Path

import pytest

from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series
from stillscan.operators.reading.selection import SelectionRules


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


@pytest.fixture
def case(stillscan_data):
    def folder(name: str) -> Path:
        found = stillscan_data / "field" / name
        if not found.is_dir():
            pytest.skip(f"the shared data holds no {name}")
        return found

    return folder


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("01-ge-adc-map", ["quantitative-map"]),
        ("02-ge-fa-map", ["quantitative-map"]),
        ("03-ge-b0-field-map", ["quantitative-map"]),
        ("04-philips-b0-map/r5", ["quantitative-map"]),
        ("04-philips-b0-map/r11", ["quantitative-map"]),
        ("05-kind-told-by-another-value/mrpet-umap", ["quantitative-map"]),
        ("05-kind-told-by-another-value/asl-ttest", ["quantitative-map"]),
        ("05-kind-told-by-another-value/ct-mip", ["reformatted"]),
        ("06-ct-rescale-type-no-hu/mgml", ["quantitative-map"]),
        ("06-ct-rescale-type-no-hu/z_eff", ["quantitative-map"]),
        ("21-ct-without-rescale/all-slices", ["missing-attribute"]),
    ],
)
def test_what_is_no_image_is_left_alone(name, reasons, case, decoder):
    found = find_series(case(name), decoder, SelectionRules())
    assert [each.reason for each in found.refused] == reasons
    assert not found.candidates

"""The field test holds on the cases that users of other tools reported."""

import pytest

from bench.field import Row, cases, field, table

pytestmark = pytest.mark.slow

MAPS = {
    "01-ge-adc-map",
    "02-ge-fa-map",
    "03-ge-b0-field-map",
    "04-philips-b0-map/r11",
    "04-philips-b0-map/r5",
    "05-kind-told-by-another-value/asl-ttest",
    "05-kind-told-by-another-value/mrpet-umap",
    "06-ct-rescale-type-no-hu/mgml",
    "06-ct-rescale-type-no-hu/z_eff",
}
OTHERS = {
    "05-kind-told-by-another-value/ct-mip": "reformatted",
    "21-ct-without-rescale/all-slices": "missing-attribute",
}
DERIVED = {
    "07-ct-air-at-lowest-value",
    "08-saturated-at-highest-value/mr",
    "10-gateway-corrected-patient/1-first",
    "10-gateway-corrected-patient/2-corrected",
    "11-ge-diffusion-directions",
    "12-siemens-mosaic",
    "16-unused-bits",
    "17-one-odd-image-in-a-series/ct-scout",
    "19-ct-unit-unspecified",
}


@pytest.mark.data
@pytest.mark.tools
def test_every_case_ends_as_is_right(stillscan_data, tool):
    for program in ("dciodvfy", "dcentvfy", "dcm2niix"):
        tool(program)
    rows = field(stillscan_data / "field")
    assert [row for row in rows if not row.is_right] == [], table(rows)
    found = {row.case: (row.outcome, row.reason) for row in rows}
    assert {case for case, (_, reason) in found.items() if reason == "quantitative-map"} == MAPS
    assert {case: found[case][1] for case in OTHERS} == OTHERS
    assert {case for case in DERIVED if found[case][0] != "derived"} == set()
    assert sum(row.case.startswith("09-") for row in rows) == 4  # each film has a row
    by_case = {row.case: row for row in rows}
    assert by_case["11-ge-diffusion-directions"].read_alike
    assert by_case["12-siemens-mosaic"].read_alike
    assert {row.clipped for row in rows if row.clipped} == set()


def test_folders_with_files_and_lone_files_are_cases(tmp_path):
    for name in ("a/1.dcm", "b/c/1.dcm", "lone.dcm", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert [str(each.relative_to(tmp_path)) for each in cases(tmp_path)] == ["a", "b/c", "lone.dcm"]


def test_a_promise_that_was_not_held_is_seen():
    row = Row("x", "derived", "", inspected=True, clipped=0.0)
    assert row.is_right
    assert not Row("x", "derived", "", inspected=False).is_right
    assert not Row("x", "derived", "", inspected=True, new_errors=("Error",)).is_right
    assert not Row("x", "derived", "", inspected=True, read_alike=False).is_right
    assert "OTHER" in table([Row("x", "derived", "", inspected=True, read_alike=False)])

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stillscan.operators.denoising.gate import Verdict
from stillscan.operators.denoising.repeats import RepeatCheck
from stillscan.operators.errors import ExitCode, InputError
from stillscan.operators.report.outcome import (
    SeriesOutcome,
    SkippedFile,
    exit_code_of,
    noise_change,
    refused,
)
from stillscan.operators.report.page import series_page
from stillscan.operators.report.pictures import Comparison
from stillscan.operators.report.result import series_result, write_result, write_series_report
from stillscan.operators.writing.provenance import Provenance

DERIVED = SimpleNamespace(
    folder=Path("2.25.77"),
    series_instance_uid="2.25.77",
    instances=3,
    clipped_share=0.0,
    mean_shift=float("nan"),
)
OUTCOME = SeriesOutcome(
    series_instance_uid="1.2.3",
    status="derived",
    modality="CT",
    slices=3,
    unit="HU",
    noise_before=20.0,
    noise_after=5.0,
    seconds=1.23456,
    verdict=Verdict("accept with clamp", ("<b>edges</b>",), {"residual_deviation": 0.9}),
    warnings=("a gap after slice 2",),
    derived=DERIVED,  # type: ignore[arg-type]
    provenance=Provenance("0.1", "ct", "ab" * 32, "student", 0.75, "torch", "float32", "cpu"),
)

REPEATS = RepeatCheck(slices=8, confirmed_share=0.48, before=6.39, after=6.01)


@pytest.fixture
def comparison() -> Comparison:
    before = np.random.default_rng(0).normal(size=(24, 32)).astype(np.float32)
    no = np.zeros(before.shape, bool)
    return Comparison(2, before, before * 0, no, (-3.0, 3.0), False, 1.0, 1.0, "HU")


def test_page_needs_nothing_but_itself(comparison: Comparison) -> None:
    page = series_page(OUTCOME, comparison)
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert references
    assert all(each.startswith("data:image/png;base64,") for each in references)
    assert "default-src 'none'" in page


def test_page_shows_the_numbers(comparison: Comparison) -> None:
    page = series_page(OUTCOME, comparison)
    for text in ("20<small> HU", "5<small> HU", "\u221275 %", "accept with clamp", "2.25.77"):
        assert text in page
    assert "a gap after slice 2" in page
    assert "Slice 2 of 3" in page


def test_page_states_the_contrast_that_stays(comparison: Comparison) -> None:
    """1 - 0.75 exp(-25 / 18) = 0.81, 1 - 0.75 exp(-64 / 18) = 0.98 for s = 1.5 mm."""
    assert "Contrast that stays" not in series_page(OUTCOME, comparison)
    passing = replace(OUTCOME.provenance, pass_through_mm=1.5)
    page = series_page(replace(OUTCOME, provenance=passing), comparison)
    assert "at the centre of a disc of 5 mm 81 %, of 8 mm 98 %" in page


def test_page_shows_the_share_that_repeats_confirm(comparison: Comparison) -> None:
    assert "repeated acquisitions" not in series_page(OUTCOME, comparison)
    page = series_page(replace(OUTCOME, repeats=REPEATS), comparison)
    assert "Check by repeated acquisitions" in page
    for text in ("48 %", "6.39 HU", "6.01 HU (\u22126 %)"):
        assert text in page


def test_a_partly_confirmed_correction_gives_a_warning() -> None:
    assert "confirm 48 % of the correction" in REPEATS.warning
    assert replace(REPEATS, confirmed_share=1.0).warning == ""


def test_page_says_what_it_is_for(comparison: Comparison) -> None:
    page = series_page(OUTCOME, comparison)
    assert "For research and evaluation. Not a cleared medical device." in page
    assert "read together with the original" in page


def test_page_escapes_what_it_quotes(comparison: Comparison) -> None:
    page = series_page(OUTCOME, comparison)
    assert "<b>edges" not in page
    assert "&lt;b&gt;edges" in page


def test_report_of_a_series_is_a_picture_and_a_page(tmp_path: Path, comparison: Comparison) -> None:
    write_series_report(tmp_path / "report", OUTCOME, comparison)
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["2.25.77.html", "2.25.77.png"]


def test_result_tells_all_of_a_derived_series() -> None:
    result = series_result(OUTCOME)
    assert result["source_series_instance_uid"] == "1.2.3"
    assert result["status"] == "derived"
    assert result["reason"] is None
    noise = {"before": 20.0, "after": 5.0, "unit": "HU", "measurements": []}
    assert result["noise"] == noise | {"expected_error_change": None}
    assert result["verdict"]["decision"] == "accept with clamp"
    assert result["derived"]["series_instance_uid"] == "2.25.77"
    assert result["method"]["model_sha256"] == "ab" * 32
    assert result["method"]["strength"] == 0.75


def test_result_tells_what_repeats_bear_out() -> None:
    assert series_result(OUTCOME)["repeats"] is None
    assert series_result(replace(OUTCOME, repeats=REPEATS))["repeats"] == {
        "slices": 8,
        "confirmed_share": 0.48,
        "difference_before": 6.39,
        "difference_after": 6.01,
    }


def test_result_tells_why_a_series_was_refused(tmp_path: Path) -> None:
    outcomes = [refused("1.2.4", [Path("a.dcm"), Path("b.dcm")], InputError("Rows differ"))]
    skipped = [SkippedFile("notes.txt", "not-dicom", "no DICOM")]
    write_result(
        tmp_path,
        outcomes,
        skipped,
        application=("Stillscan", "0.1"),
        exit_code=ExitCode.BAD_INPUT,
        seconds=1.0,
    )
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["schema"] == "stillscan-result/1"
    assert result["exit_code"] == 4
    assert result["exit_meaning"] == "bad-input"
    (series,) = result["series"]
    assert (series["status"], series["reason"]) == ("refused", "bad-input")
    assert series["message"] == "a.dcm and 1 more: Rows differ"
    assert series["derived"] is None
    assert result["skipped_files"] == [
        {"file": "notes.txt", "reason": "not-dicom", "message": "no DICOM"}
    ]


def test_a_number_that_json_does_not_know_becomes_null() -> None:
    assert series_result(OUTCOME)["derived"]["mean_shift"] is None


REFUSED = replace(OUTCOME, status="refused", exit_code=ExitCode.BAD_INPUT)
MODEL_FAULT = replace(REFUSED, exit_code=ExitCode.MODEL_FAULT)
NOT_SELECTED = replace(OUTCOME, status="not-selected")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], ExitCode.NOTHING_TO_DO),
        ([NOT_SELECTED], ExitCode.NOTHING_TO_DO),
        ([OUTCOME], ExitCode.DERIVED),
        ([OUTCOME, NOT_SELECTED], ExitCode.DERIVED),
        ([OUTCOME, REFUSED], ExitCode.PARTLY_DERIVED),
        ([OUTCOME, MODEL_FAULT], ExitCode.PARTLY_DERIVED),
        ([REFUSED, NOT_SELECTED], ExitCode.BAD_INPUT),
        ([REFUSED, MODEL_FAULT], ExitCode.MODEL_FAULT),
    ],
)
def test_exit_code_says_whether_all_some_or_none_were_derived(
    outcomes: list[SeriesOutcome], code: ExitCode
) -> None:
    assert exit_code_of(outcomes) == code


def test_change_of_noise_is_said_in_percent() -> None:
    assert noise_change(20.0, 5.0) == "-75 %"
    assert noise_change(20.0, None) == ""
    assert noise_change(0.0, 1.0) == ""

import html
import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillscan.models.noise.profile import Witness
from stillscan.operators.denoising.gate import Verdict
from stillscan.operators.denoising.repeats import RepeatCheck
from stillscan.operators.errors import ExitCode, InputError
from stillscan.operators.reading.records import SeriesName
from stillscan.operators.report.criteria import criteria, explanations, summary
from stillscan.operators.report.display import Display
from stillscan.operators.report.outcome import (
    SeriesOutcome,
    SkippedFile,
    exit_code_of,
    noise_change,
    refused,
)
from stillscan.operators.report.page import index_page, write_series_page
from stillscan.operators.report.rendering import policy_of
from stillscan.operators.report.result import series_result, write_result
from stillscan.operators.report.slices import SliceTexts
from stillscan.operators.writing.provenance import Provenance

DERIVED = SimpleNamespace(
    folder=Path("2.25.77"),
    series_instance_uid="2.25.77",
    instances=3,
    clipped_share=0.0,
    changed_share=0.9,
    mean_shift=float("nan"),
)
MEASURED = {"residual_deviation": 0.9, "residual_mean": 0.01, "highest_score": 3.0}
MEASURED |= {"clamped_share": 0.0, "residual_correlation": 0.2, "edge_correlation": -0.1}
OUTCOME = SeriesOutcome(
    series_instance_uid="1.2.3",
    status="derived",
    modality="CT",
    slices=3,
    unit="HU",
    noise_before=20.0,
    noise_after=5.0,
    seconds=1.23456,
    verdict=Verdict("accept with clamp", ("<b>edges</b>",), MEASURED),
    warnings=("a gap after slice 2",),
    derived=DERIVED,  # type: ignore[arg-type]
    provenance=Provenance("0.1", "ct", "ab" * 32, "student", 0.75, "torch", "float32", "cpu"),
)

WITNESS = (Witness("flat places", 21.0, True),)
REPEATS = RepeatCheck(slices=8, confirmed_share=0.48, before=6.39, after=6.01)

SLICE = {"position": 1.5, "slope": 1.0, "intercept": 0.0, "planes": 1, "sigma": 0.0, "spread": 0.0}
SLICE |= {"map": 1, "noise": [20.0, None], "signal": None}


def page_of(tmp_path: Path, outcome: SeriesOutcome, **slices: object) -> str:
    display = Display((-3.0, 3.0), False, 1.0, {"bone": (0.0, 9.0)})
    facts = {"slices": [SLICE] * 3, "display": display, "shape": (2, 2), "full": (2, 2)} | slices
    write_series_page(tmp_path / "a.html", outcome, SliceTexts(BytesIO(b"A B  "), **facts))
    return (tmp_path / "a.html").read_text()


def words_of(page: str) -> str:
    return re.sub(r"<[^>]+>", " ", page)


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    for page in (page_of(tmp_path, OUTCOME), index_page([OUTCOME], [])):
        references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
        assert set(references) <= {"2.25.77.html"}
        assert "default-src 'none'" in page
        assert "unsafe-inline" not in page
        assert " style=" not in page
        assert " on" not in "".join(re.findall(r"<[a-z]+( on\w+)=", page))


def test_a_policy_permits_the_page_its_own_script_and_style() -> None:
    policy = policy_of("<style>a</style><script type='text/plain'>b</script><script>c</script>")
    digests = {text: b64encode(sha256(text.encode()).digest()).decode() for text in "abc"}
    assert f"style-src 'sha256-{digests['a']}';" in policy
    assert f"script-src 'sha256-{digests['c']}';" in policy
    assert digests["b"] not in policy
    assert "script-src 'none'" in policy_of("<p>")


def test_a_page_shows_the_numbers_and_the_name(tmp_path: Path) -> None:
    named = replace(OUTCOME, name=SeriesName(4, "t<1>", "HEAD", "2024-01-31"))
    page = page_of(tmp_path, named)
    for text in ("20<small> HU", "5<small> HU", "\u221275 %", "2.25.77", "a gap after slice 2"):
        assert text in page
    for text in ("4: t&lt;1&gt;", "CT, 3 slices, head, 2024-01-31"):
        assert text in page
        assert text in index_page([named], [])
    assert "<h1>CT series</h1>" in page_of(tmp_path, OUTCOME)
    assert "averaged" not in page


def test_a_page_states_the_contrast_that_stays(tmp_path: Path) -> None:
    """1 - 0.75 exp(-25 / 18) = 0.81, 1 - 0.75 exp(-64 / 18) = 0.98 for s = 1.5 mm."""
    assert "Contrast that stays" not in page_of(tmp_path, OUTCOME)
    passing = replace(OUTCOME.provenance, pass_through_mm=1.5)
    page = page_of(tmp_path, replace(OUTCOME, provenance=passing, error_change=-0.2))
    assert "at the centre of a disc of 5 mm 81 %, of 8 mm 98 %" in page
    assert "\u221220 %" in page


def test_a_page_in_reduced_size_says_so(tmp_path: Path) -> None:
    assert "noise looks smaller" not in page_of(tmp_path, OUTCOME)
    assert "2 x 2 pixels are shown as their mean" in page_of(tmp_path, OUTCOME, factor=2)


@pytest.mark.parametrize("topic", sorted(explanations()))
def test_every_criterion_is_explained(tmp_path: Path, topic: str) -> None:
    every = replace(OUTCOME, repeats=REPEATS, witnesses=WITNESS)
    assert topic in {each.topic for each in criteria(every)}
    assert explanations()[topic][:60] in html.unescape(words_of(page_of(tmp_path, every)))


@pytest.mark.parametrize(
    ("measured", "light", "sentence"),
    [
        ({"residual_deviation": 0.9}, "within", "was 0.90 times the measured noise; the limit is"),
        (
            {"residual_deviation": 1.14},
            "look",
            "1.14 times the measured noise; the limit is 1.05; it was scaled down.",
        ),
        ({"clamped_share": 0.021}, "look", "2.1 % of the worst slice was put back; the limit is"),
        ({"residual_mean": 0.2}, "look", "at most 0.200 times the noise; the limit is 0.1."),
    ],
)
def test_a_measurement_is_a_sentence_with_its_limit(measured, light, sentence) -> None:
    verdict = replace(OUTCOME.verdict, measurements=MEASURED | measured)
    found = criteria(replace(OUTCOME, verdict=verdict))
    assert [each.light for each in found if sentence in each.sentence] == [light]


def test_what_was_not_measured_is_called_so() -> None:
    nothing = replace(OUTCOME, noise_before=None, noise_after=None, verdict=Verdict("accept"))
    lights = {each.topic: (each.light, each.sentence) for each in criteria(nothing)}
    assert lights["Noise"] == ("unknown", "The noise of the series: not measured.")
    assert lights["Size of the correction"][0] == "unknown"
    only_before = criteria(replace(OUTCOME, noise_after=None))[0]
    assert only_before.sentence == (
        "Standard deviation of the noise: 20 HU before, after: not measured."
    )


def test_noise_is_also_a_signal_to_noise_ratio() -> None:
    found = {each.topic: each.sentence for each in criteria(OUTCOME)}
    assert "water against air: 50 before, 200 after" in found["Signal-to-noise ratio"]
    other = replace(OUTCOME, unit="1", signal=400.0)
    found = {each.topic: each.sentence for each in criteria(other)}
    assert "bright half of the images: 20 before, 80 after" in found["Signal-to-noise ratio"]


def test_a_summary_says_what_happened_and_what_to_check() -> None:
    said = summary(replace(OUTCOME, verdict=Verdict("accept with clamp", ("change-drawn-back",))))
    assert "the whole correction was scaled down" in said
    assert "put back" in said
    good = summary(replace(OUTCOME, verdict=Verdict("accept")))
    assert good.startswith("Derived; its noise changed by \u221275 %.")
    assert "Page through what was removed" in good
    control = replace(OUTCOME, provenance=replace(OUTCOME.provenance, mode="identity"))
    assert summary(control).startswith("Control without noise reduction")
    assert "removed" not in summary(replace(OUTCOME, verdict=None)), "a map removes nothing"


def test_the_list_of_a_run_tells_derived_refused_and_skipped() -> None:
    no = refused("1.2.4", [Path("a.dcm")], InputError("Rows <differ>"), name=SeriesName(7))
    page = index_page([no, OUTCOME], [SkippedFile("notes.txt", "not-dicom", "no DICOM")])
    words = " ".join(html.unescape(words_of(page)).split())
    assert "refused series 7 1 slice a.dcm: Rows <differ> Reason code: bad-input" in words
    assert words.index("CT series") < words.index("series 7")
    assert 'href="2.25.77.html"' in page
    assert "notes.txt not-dicom: no DICOM" in words


def test_a_partly_confirmed_correction_gives_a_warning() -> None:
    assert "confirm 48 % of the correction" in REPEATS.warning
    assert replace(REPEATS, confirmed_share=1.0).warning == ""
    found = {each.topic: each for each in criteria(replace(OUTCOME, repeats=REPEATS))}
    assert found["Repeated acquisitions"].light == "look"
    assert "6.39 HU before, 6.01 HU after (\u22126 %)" in found["Repeated acquisitions"].sentence


def test_page_says_what_it_is_for(tmp_path: Path) -> None:
    page = page_of(tmp_path, OUTCOME)
    assert "For research and evaluation. Not a cleared medical device." in page
    assert "read together with the original" in page


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

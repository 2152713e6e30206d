"""S5: no word about the patient in messages, logs, reports, exceptions or file names."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from typer.testing import CliRunner

from stillscan.app.cli import app
from stillscan.app.settings import DEFAULT_SETTINGS
from tests.series_factory import make_series

CANARY = "CaNaRy"
TEXTS = (
    *("PatientName", "PatientID", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName"),
    *("PatientAddress", "PatientMotherBirthName", "PatientTelephoneNumbers", "PatientComments"),
    *("EthnicGroup", "Occupation", "MilitaryRank", "BranchOfService", "CountryOfResidence"),
    *("RegionOfResidence", "PatientReligiousPreference", "AdditionalPatientHistory", "Allergies"),
    *("MedicalAlerts", "AdmissionID", "AccessionNumber", "StudyID", "StudyDescription"),
    *("ReferringPhysicianName", "PhysiciansOfRecord", "PerformingPhysicianName", "OperatorsName"),
    *("RequestingPhysician", "InstitutionName", "InstitutionAddress", "StationName"),
    *("InstitutionalDepartmentName", "SeriesDescription", "ProtocolName", "ImageComments"),
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription", "DeviceSerialNumber"),
)
DESCRIPTION = re.compile(rf"{CANARY}{TEXTS.index('SeriesDescription')}\b")  # `output.names`
# values that do not fit their representation: libraries like to quote them in warnings
BROKEN = {
    "PatientBirthDate": CANARY,
    "PatientAge": CANARY + "123456789",
    "PatientSize": CANARY,
    "IssuerOfPatientID": CANARY * 20,
    "StudyDate": CANARY,
    "AcquisitionTime": CANARY,
}


def write_canaries(path: Path) -> None:
    """Put canaries into an instance, as bytes that no library checks on the way."""
    dataset = dcmread(path)
    for number, keyword in enumerate(TEXTS):
        _set(dataset, keyword, f"{CANARY}{number}")
    for keyword, value in BROKEN.items():
        _set(dataset, keyword, value)
    private = dataset.private_block(0x0099, CANARY, create=True)
    private.add_new(0x01, "LO", CANARY)
    dataset.save_as(path)


def _set(dataset: Dataset, keyword: str, value: str) -> None:
    tag = Tag(tag_for_keyword(keyword))
    data = value.encode() + b" " * (len(value) % 2)
    dataset[tag] = RawDataElement(
        tag, dictionary_VR(tag), len(data), data, 0, is_implicit_VR=False, is_little_endian=True
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good series and one of many kinds that cannot be processed, all full of canaries."""
    folder = tmp_path_factory.mktemp("source")
    for seed, attributes in enumerate(
        (
            {},
            {"modality": "CT"},
            {"RescaleSlope": 0},
            {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            {"BurnedInAnnotation": "YES"},
            {"PatientID": lambda index: f"{CANARY}-{index}"},
            {"Rows": lambda index: 64 if index else 63},
        )
    ):
        files = make_series(folder, seed=seed, slices=2, **attributes)
        for file in files:
            write_canaries(file)
    for index, file in enumerate(make_series(folder, seed=50, slices=2)):
        write_canaries(file)
        dataset = dcmread(file)
        dataset.PatientID = f"{CANARY}{index}"  # the identity conflict
        dataset.save_as(file)
    (broken,) = make_series(folder, seed=60, slices=1)
    write_canaries(broken)
    broken.write_bytes(broken.read_bytes()[:-700])
    (header,) = make_series(folder, seed=61, slices=1)
    write_canaries(header)
    header.write_bytes(header.read_bytes()[:900])
    return folder


def leaks(*texts: str) -> list[str]:
    return [line for text in texts for line in text.splitlines() if re.search(CANARY, line, re.I)]


def test_canaries_are_in_the_source(source: Path) -> None:
    for file in source.iterdir():
        assert CANARY.encode() in file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("verbose", [[], ["--verbose"]])
@pytest.mark.parametrize("shown", [True, False])
def test_nothing_that_is_said_or_written_names_the_patient(
    stillscan: Callable, source: Path, tmp_path: Path, verbose: list[str], shown: bool
) -> None:
    out = tmp_path / "out"
    settings = DEFAULT_SETTINGS.read_text().replace(
        "  names: true", f"  names: {str(shown).lower()}"
    )
    (tmp_path / "site.yaml").write_text(settings)
    config = ("--config", tmp_path / "site.yaml")
    done = stillscan("denoise", source, out, "--mode", "identity", *config, *verbose)
    assert done.returncode == 5, done.stderr
    assert leaks(done.stdout, done.stderr) == []
    assert "identity-conflict" in done.stderr
    report = "".join(path.read_text() for path in (out / "report").iterdir())
    assert bool(DESCRIPTION.search(report)) == shown
    assert leaks(DESCRIPTION.sub("", report)) == []
    assert leaks(*(str(path.relative_to(out)) for path in out.rglob("*"))) == []
    derived = next(out.rglob("*.dcm"))
    assert str(dcmread(derived).PatientName).startswith(CANARY), "the series itself keeps them"


def test_inspect_does_not_name_the_patient(stillscan: Callable, source: Path) -> None:
    done = stillscan("inspect", source, "--mode", "identity", "--verbose")
    assert done.returncode == 0
    assert leaks(done.stdout, done.stderr) == []


@pytest.mark.parametrize(
    "place",
    [
        "stillscan.operators.graph.stages.plan_series",
        "stillscan.operators.graph.stages.estimate_block",
        "stillscan.operators.graph.stages.judge_block",
        "stillscan.operators.writing.derive_series.SeriesWriter.add",
        "stillscan.operators.graph.stages.write_series_page",
        "stillscan.app.pipeline.survey.find_series",
    ],
)
def test_an_unexpected_exception_does_not_name_the_patient(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    words = [CANARY, "in an exception"]

    def bug(*arguments: object, **options: object) -> None:
        raise LookupError(" ".join(words))

    monkeypatch.setattr(place, bug)
    arguments = ["denoise", str(source), str(tmp_path / "out"), "--mode", "identity", "-v"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "internal-fault: LookupError" in result.stderr
    assert leaks(result.output) == []
    assert list((tmp_path / "out").iterdir()) == []

"""Maps and measurements through the real command: beside the series, listed, silent."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from stillscan.app.cli import app
from tests.app.test_no_patient_data import CANARY, DESCRIPTION, write_canaries
from tests.enhanced_factory import make_enhanced
from tests.series_factory import make_series

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def settings_with_objects(identity_settings: Path) -> Path:
    text = identity_settings.read_text()
    for key in ("uncertainty-map", "noise-map", "measurements"):
        assert f"{key}: false" in text
        text = text.replace(f"{key}: false", f"{key}: true")
    identity_settings.write_text(text)
    return identity_settings


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_series, make_enhanced], ids=["classic", "enhanced"])
def test_objects_lie_beside_their_series_and_are_listed(
    make: Callable[..., list[Path]], settings_with_objects: Path, tmp_path: Path
) -> None:
    make(tmp_path / "in", modality="MR")
    out = tmp_path / "out"
    command = ["denoise", tmp_path / "in", out, "--config", settings_with_objects]
    done = CliRunner().invoke(app, [str(each) for each in command])
    assert done.exit_code == 0, done.output
    (series,) = json.loads((out / "report" / "result.json").read_text())["series"]
    kinds = {each["kind"]: out / each["series_instance_uid"] for each in series["objects"]}
    assert kinds.keys() == {"noise", "measurements"}
    assert any("no uncertainty map" in warning for warning in series["warnings"])
    folders = {out / series["derived"]["folder"], out / "report", *kinds.values()}
    assert {*out.iterdir()} == folders
    for folder in kinds.values():
        for file in folder.iterdir():
            assert dcmread(file).SeriesInstanceUID == folder.name


@pytest.mark.slow
def test_objects_of_broken_headers_are_silent_of_the_patient(
    stillscan: Run, settings_with_objects: Path, tmp_path: Path
) -> None:
    for file in make_series(tmp_path / "in", modality="MR"):
        write_canaries(file)
    out = tmp_path / "out"
    done = stillscan("denoise", tmp_path / "in", out, "--config", settings_with_objects)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    (series,) = json.loads((out / "report" / "result.json").read_text())["series"]
    assert len(series["objects"]) == 2
    for report in (out / "report").iterdir():
        assert CANARY not in DESCRIPTION.sub("", report.read_text())
    for each in series["objects"]:
        for file in (out / each["series_instance_uid"]).iterdir():
            assert dcmread(file).get_item("PatientName").value.startswith(CANARY.encode())

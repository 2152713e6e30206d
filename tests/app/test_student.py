"""The shipped bundles through the real command."""

import json
import shutil
import sys
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner, Result

from stillscan.app.bundles.choice import DEFAULT_BUNDLES, load_methods, warnings_of
from stillscan.app.cli import app
from stillscan.app.settings import DEFAULT_SETTINGS, load_settings
from stillscan.app.training.release import Release
from stillscan.models.bundle import METADATA, read_info
from tests.series_factory import make_series


def denoise(source: Path, out: Path, *options: str) -> tuple[Result, dict]:
    result = CliRunner().invoke(app, ["denoise", str(source), str(out), *options])
    assert result.exit_code == 0, result.output
    (series,) = json.loads((out / "report" / "result.json").read_text())["series"]
    return result, series


@pytest.mark.slow
@pytest.mark.data
def test_a_real_series_is_quieter_and_says_by_what(stillscan_data: Path, tmp_path: Path) -> None:
    source = stillscan_data / "dev" / "dicom" / "mr_ge_hdxt_fruit_irspgr"
    _, series = denoise(source, tmp_path)
    assert series["noise"]["after"] < series["noise"]["before"]
    assert series["verdict"]["decision"].startswith("accept")
    assert series["method"]["bundle"] == "mr"
    assert series["method"]["strength"] == 1.0
    assert len(series["method"]["model_sha256"]) == 64


@pytest.mark.slow
@pytest.mark.data
def test_time_points_of_a_real_series_judge_the_correction(
    stillscan_data: Path, tmp_path: Path
) -> None:
    """Four volumes of a brain with little noise: about half of the correction is confirmed."""
    settings = tmp_path / "app.yaml"
    text = DEFAULT_SETTINGS.read_text()
    settings.write_text(text.replace("measurements: false", "measurements: true"))
    source = stillscan_data / "dev" / "dicom" / "mr_siemens_xa30_enhanced_bold4"
    result, series = denoise(source, tmp_path / "out", "--config", str(settings))
    repeats = series["repeats"]
    assert repeats["slices"] == 8
    assert 0.3 < repeats["confirmed_share"] < 0.7
    assert repeats["difference_after"] < repeats["difference_before"]
    assert series["method"]["confirmed_share"] == repeats["confirmed_share"]
    warning = f"repeated acquisitions confirm {100 * repeats['confirmed_share']:.0f} %"
    assert warning in result.stderr
    file = min((tmp_path / "out" / series["derived"]["folder"]).iterdir())
    frame = pydicom.dcmread(file).PerFrameFunctionalGroupsSequence[0]
    assert "that the series confirms" in frame.DerivationImageSequence[0].DerivationDescription
    (report,) = (tmp_path / "out" / series["objects"][0]["series_instance_uid"]).iterdir()
    assert "CONFIRMED_SHARE" in str(pydicom.dcmread(report))


@pytest.mark.slow
@pytest.mark.data
def test_a_lower_strength_leaves_more_of_the_noise(stillscan_data: Path, tmp_path: Path) -> None:
    source = stillscan_data / "dev" / "dicom" / "mr_ge_snr_pair"
    file = min(source.rglob("*"))
    left = [
        denoise(file, tmp_path / strength, "--strength", strength)[1]["noise"]["after"]
        for strength in ("high", "medium", "low")
    ]
    assert left == sorted(left)
    assert left[0] < left[2]


def test_a_preliminary_bundle_says_so(tmp_path: Path) -> None:
    make_series(tmp_path / "in", modality="CT", rows=128, columns=128)
    result, series = denoise(tmp_path / "in", tmp_path / "out")
    assert any("bundle ct is preliminary" in each for each in series["warnings"])
    assert "bundle ct is preliminary" in result.stderr


@pytest.fixture
def refused_bundle(tmp_path: Path) -> Path:
    """The student for MR as a fine-tune that was not released."""
    folder = tmp_path / "site" / ".training" / "refused"
    shutil.copytree(DEFAULT_BUNDLES / "mr", folder)
    metadata = json.loads((folder / METADATA).read_text())
    reasons = ("simulated noise: worse, -2.00 dB", "nothing gained")
    found = Release(False, reasons, ())
    metadata["stillscan"]["release"] = found.for_metadata({"name": "mr"})
    (folder / METADATA).write_text(json.dumps(metadata))
    return folder


def test_a_bundle_that_was_refused_runs_and_says_so(refused_bundle: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    result, series = denoise(tmp_path / "in", tmp_path / "out", "--models", str(refused_bundle))
    said = (
        "bundle refused was refused by its own release check (release-refused): "
        "simulated noise: worse, -2.00 dB; nothing gained"
    )
    assert series["warnings"][0] == said
    assert result.stderr.startswith(f"stillscan: {said}")
    for page in (tmp_path / "out" / "report").glob("*.html"):
        assert said in page.read_text()
    arguments = ["inspect", str(tmp_path / "in"), "--models", str(refused_bundle)]
    asked = CliRunner().invoke(app, arguments)
    assert "with bundle refused (refused by its own release check)" in asked.stdout


def test_loading_a_bundle_that_was_refused_is_logged(
    refused_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For runs in which no series gets so far as to have a report."""
    load_methods({"MR": read_info(refused_bundle)}, load_settings())
    assert "(release-refused): simulated noise: worse, -2.00 dB" in caplog.text


def test_a_released_bundle_has_nothing_to_say(refused_bundle: Path) -> None:
    metadata = json.loads((refused_bundle / METADATA).read_text())
    metadata["stillscan"]["release"]["released"] = True
    (refused_bundle / METADATA).write_text(json.dumps(metadata))
    assert warnings_of(read_info(refused_bundle)) == ()


def test_a_modality_without_a_bundle_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "in", modality="PT")
    result = CliRunner().invoke(app, ["denoise", str(tmp_path / "in"), str(tmp_path / "out")])
    assert result.exit_code == 4
    assert "no-bundle-for-modality" in result.stderr
    assert "Modality is PT" in result.stderr


def test_a_bundle_may_be_chosen_by_name(tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    arguments = ["denoise", str(tmp_path / "in"), str(tmp_path / "out"), "--model"]
    unknown = CliRunner().invoke(app, [*arguments, "none"])
    assert unknown.exit_code == 2
    assert "no bundle is called 'none'; available: ct, mr, xray" in unknown.stderr
    other = CliRunner().invoke(app, [*arguments, "ct"])
    assert other.exit_code == 4
    assert "no-bundle-for-modality" in other.stderr


def test_bundles_are_found_beside_the_package() -> None:
    assert (DEFAULT_BUNDLES / "mr" / "configs" / "metadata.json").is_file()


def test_a_device_that_is_not_there_is_a_model_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    make_series(tmp_path / "in")
    arguments = ["denoise", str(tmp_path / "in"), str(tmp_path / "out"), "--device", "cuda"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 6
    assert "device-missing" in result.stderr


def test_an_engine_that_is_not_there_is_a_model_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    make_series(tmp_path / "in")
    arguments = ["denoise", str(tmp_path / "in"), str(tmp_path / "out"), "--engine", "openvino"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 6
    assert "engine-missing" in result.stderr


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_result_says_which_engine_computed(tmp_path: Path, engine: str) -> None:
    make_series(tmp_path / "in")
    _, series = denoise(tmp_path / "in", tmp_path / "out", "--engine", engine)
    assert series["method"]["engine"] == engine

"""`stillscan train`: what it says before it starts, what it refuses, and what it leaves behind."""

import csv
import json
import re
import sys
import types
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.cli import app
from stillscan.app.training.curves import open_logs
from stillscan.app.training.errors import OutputHoldsRunError, RunDiffersError, UnknownModalityError
from stillscan.app.training.release import Release, Row
from stillscan.models.bundle import METADATA, find_bundles, load_bundle, load_teacher
from stillscan.models.noise.profile import NoiseProfile
from stillscan.operators.errors import ExitCode, ModelError, SettingsError
from tests.app.training.tiny_training import TINY, noisy_stack, request_for, train_tiny
from tests.series_factory import make_series


def invoke(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "a.npz", noisy_stack(5))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Data and bundle of a tiny run on two formats, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    make_series(folder / "data" / "dicom", rows=128, columns=128, PatientName="Secret^Name")
    stack = noisy_stack(5)
    stack[1] = 3.0
    np.savez(folder / "data" / "secret.npz", good=stack, small=stack[:, :8, :8])
    said = StringIO()
    console = Console(file=said, width=120)
    request = request_for(folder / "data", folder / "bundle", modalities=())
    assert train_tiny(request, console) == ExitCode.DERIVED
    return folder / "data", folder / "bundle", said.getvalue()


@pytest.mark.slow
def test_the_bundle_denoises(trained):
    _, folder, _ = trained
    (info,) = find_bundles(folder)
    assert info.modalities == ("MR",)
    low, high = info.noise_range
    assert 0 < low < high
    denoiser = load_bundle(folder, precision="float32").denoiser
    white = np.zeros((9, 9))
    white[4, 4] = 1
    noise = NoiseProfile(0.02, (0.5,), (0.02,), white, "gaussian")
    estimate = denoiser.denoise(torch.rand(1, 1, 40, 40), noise)
    assert estimate.mean.isfinite().all()
    assert estimate.spread is not None
    assert (estimate.spread > 0).all()


@pytest.mark.slow
def test_the_bundle_carries_its_teacher(trained):
    _, folder, _ = trained
    blind_spot, diffusion, _ = load_teacher(folder)
    assert blind_spot.radius == max(
        each["radius"]
        for each in json.loads((folder / METADATA).read_text())["stillscan"]["training"]["images"][
            "series"
        ]
    )
    assert diffusion.widths == TINY.widths


@pytest.mark.slow
def test_the_metadata_hold_what_the_bundle_learned_from_and_no_names(trained):
    _, folder, _ = trained
    text = (folder / METADATA).read_text()
    ours = json.loads(text)["stillscan"]
    assert ours["preliminary"]
    assert ours["training"]["profile"] == "tiny"
    assert ours["training"]["teacher"] in [
        line["name"] for line in ours["figures"]["clean_free"]["candidates"]
    ]
    assert [each["slices"] for each in ours["training"]["images"]["series"]] == [4, 4]
    for where in (text, (folder / "docs" / "README.md").read_text()):
        assert "secret" not in where.lower()


@pytest.mark.slow
def test_the_metadata_have_what_shipped_bundles_have(trained):
    _, folder, _ = trained
    ours = json.loads((folder / METADATA).read_text())
    theirs = json.loads((DEFAULT_BUNDLES / "mr" / METADATA).read_text())
    assert theirs.keys() <= ours.keys()
    assert theirs["stillscan"].keys() <= ours["stillscan"].keys()


@pytest.mark.slow
def test_it_says_what_it_found_and_what_it_left_out(trained):
    _, _, said = trained
    assert "secret.npz[good]" in said
    assert "left out of secret.npz[good]: constant slices 1" in said
    assert "not used (image-too-small): secret.npz[small]" in said
    assert "2 series of 2 subjects, 8 slices" in said
    assert "teacher" in said
    assert "Secret^Name" not in said


@pytest.mark.slow
def test_a_terminal_shows_the_same_as_a_table_and_bars(data, tmp_path):
    said = StringIO()
    console = Console(file=said, width=140, force_terminal=True, color_system=None)
    train_tiny(request_for(data, tmp_path / "out"), console)
    assert re.search(
        r"a\.npz\[arr_0\] +MR +5 +128 x 128 +\d\.\d+/255 +0 +gaussian", said.getvalue()
    )
    assert "whole run" in said.getvalue()


@pytest.mark.slow
def test_the_curves_are_in_files(trained):
    _, folder, _ = trained
    with (folder / ".training" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    stages = ("blind spot", "diffusion", "one step", "student", "second student")
    assert tuple(dict.fromkeys(row["stage"] for row in rows)) == stages
    assert all(np.isfinite(float(row["value"])) for row in rows)
    assert list((folder / ".training" / "tensorboard").glob("events*"))


class MlflowError(Exception):
    """What MLflow raises."""


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for MLflow that notes its calls."""
    flow = types.ModuleType("mlflow")
    flow.__spec__ = types.SimpleNamespace()
    flow.calls = []
    run = types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

    def noting(name, answer=None):
        def call(*arguments, **named):
            flow.calls.append((name, *arguments, *named.values()))
            return answer

        setattr(flow, name, call)

    for name in ("set_tracking_uri", "set_experiment", "log_params", "log_metrics", "end_run"):
        noting(name)
    noting("start_run", run)
    exceptions = types.ModuleType("mlflow.exceptions")
    exceptions.MlflowException = MlflowError
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", exceptions)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return flow


def write_some(folder, times=1):
    with open_logs(folder, {"seed": 1}) as logs:
        for _ in range(times):
            for log in logs:
                log.write("one step", 50, {"loss": 0.5})


def test_mlflow_gets_the_curves_where_it_is_installed(tmp_path, mlflow):
    write_some(tmp_path)
    write_some(tmp_path)
    starts = [call for call in mlflow.calls if call[0] == "start_run"]
    assert starts == [("start_run",), ("start_run", "r1")]
    assert mlflow.calls.count(("log_metrics", {"one_step.loss": 0.5}, 50)) == 2
    assert mlflow.calls.count(("log_params", {"seed": 1})) == 1
    assert mlflow.calls.count(("end_run",)) == 2


def test_a_run_goes_on_where_mlflow_fails(tmp_path, mlflow):
    tries = []

    def broken(*arguments, **named):
        tries.append(arguments)
        raise MlflowError

    mlflow.log_metrics = broken
    write_some(tmp_path, times=3)
    assert len(tries) == 1
    mlflow.start_run = broken
    write_some(tmp_path, times=3)
    assert (tmp_path / "log.csv").read_text().count("one step,50,loss,0.5") == 6


@pytest.mark.slow
def test_a_run_is_not_begun_twice_by_mistake(trained):
    data, folder, _ = trained
    with pytest.raises(OutputHoldsRunError, match="--resume"):
        train_tiny(request_for(data, folder))


@pytest.mark.slow
def test_a_finished_run_may_be_resumed(trained):
    data, folder, _ = trained
    before = (folder / METADATA).read_bytes()
    assert train_tiny(request_for(data, folder, modalities=(), resume=True)) == ExitCode.DERIVED
    assert (folder / METADATA).read_bytes() == before


@pytest.mark.slow
def test_a_run_is_resumed_with_its_own_images_profile_and_seed_only(trained, data):
    own, folder, _ = trained
    with pytest.raises(RunDiffersError, match="other images"):
        train_tiny(request_for(data, folder, resume=True))
    with pytest.raises(RunDiffersError, match="other seed"):
        train_tiny(request_for(own, folder, resume=True, seed=1))


@pytest.mark.slow
def test_a_bundle_is_not_overwritten(data, trained, tmp_path):
    _, folder, _ = trained
    (tmp_path / "out" / "configs").mkdir(parents=True)
    (tmp_path / "out" / METADATA).write_bytes((folder / METADATA).read_bytes())
    with pytest.raises(OutputHoldsRunError, match="bundle already"):
        train_tiny(request_for(data, tmp_path / "out"))


def test_the_modality_must_be_known(data, tmp_path):
    with pytest.raises(UnknownModalityError, match="--modality"):
        train_tiny(request_for(data, tmp_path / "out", modalities=()))
    assert not (tmp_path / "out").exists()
    result = invoke(data, "--out", tmp_path / "out", "--modality", "US")
    assert result.exit_code == ExitCode.USAGE
    assert "modality-unknown" in result.stderr


@pytest.mark.slow
def test_the_student_can_begin_with_a_bundle(trained, data, tmp_path, monkeypatch):
    better = Release(True, ("better",), (Row("noise", 1, 1.0, (0.5, 1.5)),))
    monkeypatch.setattr(
        "stillscan.app.training.command.judge", lambda *_: better
    )  # see test_adaptation.py
    _, folder, _ = trained
    request = request_for(data, tmp_path / "out", start=folder)
    assert train_tiny(request) == ExitCode.DERIVED
    said = json.loads((tmp_path / "out" / METADATA).read_text())["stillscan"]
    assert said["training"]["first_weights"] == load_bundle(folder).sha256
    assert said["network"]["widths"] == list(TINY.student_widths)


def test_first_weights_must_be_a_bundle(data, tmp_path):
    with pytest.raises(ModelError, match="is not readable"):
        train_tiny(request_for(data, tmp_path / "out", start=tmp_path))


def test_output_and_images_are_apart(data):
    with pytest.raises(SettingsError, match="lies inside"):
        train_tiny(request_for(data, data / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "code", "reason"),
    [
        (lambda folder: folder.rmdir(), ExitCode.USAGE, "bad-settings"),
        (lambda folder: None, ExitCode.NOTHING_TO_DO, "no-training-images"),
        (
            lambda folder: np.savez(folder / "a.npz", np.zeros((9, 8, 8))),
            ExitCode.BAD_INPUT,
            "every-series-refused",
        ),
        (
            lambda folder: np.savez(folder / "a.npz", noisy_stack(2, 64)),
            ExitCode.BAD_INPUT,
            "too-few-images",
        ),
    ],
    ids=["no folder", "empty folder", "tiny images", "too few"],
)
def test_what_cannot_be_trained_on_is_said_before_anything_is_written(tmp_path, make, code, reason):
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    result = invoke(folder, "--out", tmp_path / "out", "--modality", "MR")
    assert result.exit_code == code
    assert reason in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_said(data, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke(data, "--out", tmp_path / "file" / "out", "--modality", "MR", "--device", "cpu")
    assert result.exit_code == ExitCode.OUTPUT_FAULT


def test_help_says_what_the_exit_codes_mean():
    result = CliRunner().invoke(app, ["train", "--help"])
    assert result.exit_code == 0
    for word in ("--resume", "--from", "--profile", "torchrun", "Exit codes"):
        assert word in result.output

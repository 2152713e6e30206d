"""`python app`: what a MONAI Deploy platform starts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillscan.app.__main__ import denoise, parse_arguments
from stillscan.app.pipeline.output_folder import staging_in
from stillscan.operators.errors import ExitCode
from tests.app.conftest import ROOT
from tests.series_factory import make_series


def test_paths_come_from_arguments(
    python_app: Callable, identity_settings: Path, tmp_path: Path
) -> None:
    make_series(tmp_path / "in")
    done = python_app("-i", tmp_path / "in", "-o", tmp_path / "out", "-c", identity_settings)
    assert done.returncode == 0, done.stderr
    (series,) = (tmp_path / "out").iterdir()
    assert {path.suffix for path in series.iterdir()} == {".dcm"}
    assert done.stdout == ""
    assert "derived" in done.stderr


def test_paths_come_from_the_environment(identity_settings: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    environment = {
        "HOLOSCAN_INPUT_PATH": tmp_path / "in",
        "HOLOSCAN_OUTPUT_PATH": tmp_path / "out",
        "HOLOSCAN_MODEL_PATH": tmp_path / "models-of-no-use-in-identity-mode",
        "HOLOSCAN_CONFIG_PATH": identity_settings,
    }
    arguments = parse_arguments([], {name: str(path) for name, path in environment.items()})
    assert denoise(arguments) == ExitCode.DERIVED
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.slow
def test_arguments_win_over_the_environment(
    python_app: Callable, identity_settings: Path, tmp_path: Path
) -> None:
    make_series(tmp_path / "in")
    done = python_app(
        "--input",
        tmp_path / "in",
        environment={
            "HOLOSCAN_INPUT_PATH": tmp_path / "none",
            "HOLOSCAN_OUTPUT_PATH": tmp_path / "out",
            "HOLOSCAN_CONFIG_PATH": identity_settings,
        },
    )
    assert done.returncode == 0, done.stderr


def test_missing_paths_are_a_usage_error(python_app: Callable) -> None:
    done = python_app()
    assert done.returncode == 2
    assert "HOLOSCAN_INPUT_PATH" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_models_are_a_model_fault(python_app: Callable, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    done = python_app("-i", tmp_path / "in", "-o", tmp_path / "out", "-m", tmp_path / "none")
    assert done.returncode == 6
    assert list((tmp_path / "out").iterdir()) == []


def test_it_also_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "-i", tmp_path / "none", "-o", tmp_path / "out"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "does not exist" in done.stderr


@pytest.mark.slow
def test_a_file_system_that_takes_no_more_is_an_output_fault(
    identity_settings: Path, tmp_path: Path
) -> None:
    make_series(tmp_path / "in")
    # no file may become larger than 4 KiB: the kernel itself refuses the first image
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash"]
    paths = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-c", str(identity_settings)]
    done = subprocess.run(
        [*limited, sys.executable, str(ROOT / "app"), *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "could not write an image" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture(scope="module")
def long_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a series that takes long enough to be stopped in the middle."""
    folder = tmp_path_factory.mktemp("long")
    make_series(folder, slices=40, rows=512, columns=512)
    return folder


@pytest.fixture
def staging_process(
    long_series: Path, identity_settings: Path, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """A run in a session of its own that has begun to stage instances below `tmp_path/out`."""
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "app"), "-i", str(long_series), "-o", str(out)]
    with subprocess.Popen(
        [*command, "-c", str(identity_settings)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob(".stillscan-*/*/*.dcm")) and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_removes_what_is_staged(
    number: signal.Signals, staging_process: subprocess.Popen[str], tmp_path: Path
) -> None:
    os.killpg(staging_process.pid, number)  # as a terminal does: the reading child gets it too
    _, said = staging_process.communicate(timeout=60)
    assert staging_process.returncode == 128 + number, said
    assert said.splitlines()[-1] == (f"stillscan: stopped by {number.name}; nothing was written")
    assert "Traceback" not in said
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_staged(
    staging_process: subprocess.Popen[str], tmp_path: Path
) -> None:
    (left,) = (tmp_path / "out").iterdir()
    with staging_in(tmp_path / "out"):
        assert left.exists()
    staging_process.kill()
    staging_process.communicate(timeout=60)
    assert left.exists()
    with staging_in(tmp_path / "out"):
        assert not left.exists()

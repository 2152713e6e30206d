"""The image as a site starts it: read-only, no capabilities, no network, any user."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillscan.models.networks.precision import computes_bfloat16
from tests.deploy.image.conftest import Image
from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parents[3]
# loaded at the start of every Python of the container: ends the application while it writes
CRASH = """
import os, pathlib, sys, threading, time
def wait():
    while not any(pathlib.Path("/var/holoscan/output").rglob("*.dcm")):
        time.sleep(0.001)
    os.abort()
if b"/opt/holoscan/app" in open("/proc/self/cmdline", "rb").read().split(b"\\0"):
    threading.Thread(target=wait, daemon=True).start()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def one_shot(source: Path, output: Path) -> None:
    """With the engine that the image takes: another engine's pixels have other UIDs."""
    engine = "openvino" if computes_bfloat16("cpu") else "ncnn"
    settings = output.with_name("engine.yaml")
    shipped = (ROOT / "app" / "app.yaml").read_text(encoding="utf-8")
    settings.write_text(shipped.replace("engine: auto", f"engine: {engine}"), encoding="utf-8")
    command = [sys.executable, ROOT / "app", "-i", source, "-o", output]
    environment = {"PATH": "/usr/bin:/bin", "HOLOSCAN_CONFIG_PATH": str(settings)}
    subprocess.run(command, env=environment, capture_output=True, check=True)


@pytest.mark.data
def test_output_is_the_one_shot_runs_bit_for_bit(
    image: Image, stillscan_data: Path, output: Path, tmp_path: Path
) -> None:
    source = stillscan_data / "dev" / "dicom" / "mr_ge_artist_acr_t1"
    done = image.run(source=source, output=output)
    assert done.returncode == 0, done.stderr
    one_shot(source, tmp_path / "one-shot")
    assert contents(output) == contents(tmp_path / "one-shot")
    assert len(contents(output)) == len(list(source.iterdir()))


def test_every_modality_and_object_is_made_in_the_container(
    image: Image, output: Path, tmp_path: Path
) -> None:
    for modality in ("MR", "CT", "CR"):
        make_series(tmp_path / "in", modality=modality, slices=1, rows=96, columns=96)
    settings = tmp_path / "app.yaml"
    text = (ROOT / "app/app.yaml").read_text()
    for each in ("uncertainty-map", "noise-map", "measurements", "report"):
        text = text.replace(f"{each}: false", f"{each}: true")
    settings.write_text(text)
    volume = f"--volume={settings}:/var/holoscan/app.yaml:ro"
    done = image.run(source=tmp_path / "in", output=output, options=(volume,))
    assert done.returncode == 0, done.stderr
    # a projection has no place in space: it gets measurements and no maps
    assert len(contents(output)) == 4 + 4 + 2
    assert (output / "report" / "result.json").exists()


def test_bad_input_leaves_an_empty_output(image: Image, output: Path, tmp_path: Path) -> None:
    for file in make_series(tmp_path / "in", slices=2):
        file.write_bytes(file.read_bytes()[:-1000])
    done = image.run(source=tmp_path / "in", output=output)
    assert done.returncode == 4, done.stderr
    assert list(output.iterdir()) == []


def test_an_empty_input_is_nothing_to_do(image: Image, output: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert image.run(source=tmp_path / "in", output=output).returncode == 3


def test_a_crash_leaves_an_empty_output(
    image: Image, source: Path, output: Path, tmp_path: Path
) -> None:
    (tmp_path / "crash").mkdir()
    (tmp_path / "crash" / "sitecustomize.py").write_text(CRASH)
    done = image.run(
        source=source,
        output=output,
        environment={"PYTHONPATH": "/crash:/opt/stillscan:/opt/stillscan/site-packages"},
        options=(f"--volume={tmp_path / 'crash'}:/crash:ro",),
    )
    assert done.returncode == 128 + signal.SIGABRT, done.stderr
    assert list(output.iterdir()) == []


def test_a_full_disk_leaves_an_empty_output(image: Image, source: Path, full_disk: Path) -> None:
    done = image.run(source=source, output=full_disk)
    assert done.returncode == 7, done.stderr
    assert list(full_disk.iterdir()) == []


def test_an_output_that_may_not_be_written_is_an_output_fault(
    image: Image, source: Path, output: Path
) -> None:
    output.chmod(0o755)
    assert image.run(source=source, output=output).returncode == 7


def test_wrong_arguments_are_a_usage_fault(image: Image) -> None:
    assert image.run("--no-such-option").returncode == 2
    assert image.run("no-such-command").returncode == 2


def test_it_needs_no_folder_for_temporary_files(image: Image, source: Path, output: Path) -> None:
    command = [word for word in image.command(source=source, output=output) if "tmpfs" not in word]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stop_reaches_the_application(image: Image, output: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=48, rows=256, columns=256)
    command = image.command(source=tmp_path / "in", output=output)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(output.rglob("*.dcm")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, errors
    assert "stopped by SIGTERM" in errors
    assert list(output.iterdir()) == []


def test_show_prints_the_manifests(image: Image) -> None:
    application = json.loads(image.run("show", "app").stdout)
    package = json.loads(image.run("show", "pkg").stdout)
    assert json.loads(image.run("show").stdout) == {"app": application, "pkg": package}
    assert json.loads(application["command"]) == ["python3", "/opt/holoscan/app"]
    assert set(package["models"]) == {"ct", "mr", "xray"}


def test_env_prints_the_environment(image: Image) -> None:
    lines = image.run("env").stdout.splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    assert lines == sorted(lines)
    assert variables["HOLOSCAN_INPUT_PATH"] == "/var/holoscan/input"
    assert variables["HOLOSCAN_CONFIG_PATH"] == "/var/holoscan/app.yaml"


def exported(image: Image, folder: Path) -> set[str]:
    done = image.run("extract", options=(f"--volume={folder}:/var/run/holoscan/export",))
    assert done.returncode == 0, done.stderr
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_extract_copies_everything(image: Image, output: Path) -> None:
    files = exported(image, output)
    assert {"config/app.json", "config/pkg.json", "config/app.yaml"} <= files
    assert {"app/__main__.py", "docs/LICENSE", "docs/sbom.cdx.json"} <= files
    assert "models/mr/models/model.safetensors" in files


def test_extract_copies_only_what_a_folder_is_there_for(image: Image, output: Path) -> None:
    (output / "config").mkdir()
    (output / "config").chmod(0o777)
    assert exported(image, output) == {"config/app.json", "config/pkg.json", "config/app.yaml"}


def test_extract_without_a_mount_is_a_usage_fault(image: Image) -> None:
    assert image.run("extract").returncode == 2


def test_its_default_user_is_not_root(image: Image) -> None:
    command = [*image.podman, "image", "inspect", "--format={{.Config.User}}", image.name]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "1000:1000"


def test_commands_of_the_project_are_there(image: Image) -> None:
    words = image.command("--version", options=("--entrypoint=stillscan",))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Stillscan "), done.stderr

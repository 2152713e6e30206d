"""The image's entry point, without an image."""

import fcntl
import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import yaml

from stillscan.deploy.image.entry_point import enter, extract, supervise
from stillscan.deploy.image.mercure import MercureTask, merge, task_of
from stillscan.operators.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of an image whose application is the program of the test."""
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "app.json").write_text(json.dumps({"command": json.dumps([sys.executable, "-c"])}))
    (tmp_path / "pkg.json").write_text("{}")
    return {
        "HOLOSCAN_APP_MANIFEST_PATH": str(tmp_path / "app.json"),
        "HOLOSCAN_PKG_MANIFEST_PATH": str(tmp_path / "pkg.json"),
        "HOLOSCAN_CONFIG_PATH": str(ROOT / "app/app.yaml"),
        "HOLOSCAN_APPLICATION": str(ROOT / "deploy/image"),
        "HOLOSCAN_MODEL_PATH": str(ROOT / "models/bundles"),
        "HOLOSCAN_DOCS_PATH": str(ROOT / "docs"),
        "HOLOSCAN_INPUT_PATH": str(tmp_path / "in"),
        "HOLOSCAN_OUTPUT_PATH": str(tmp_path / "out"),
    }


@pytest.fixture
def mercure(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same, started by Mercure."""
    folders = {"MERCURE_IN_DIR": str(tmp_path / "in"), "MERCURE_OUT_DIR": str(tmp_path / "out")}
    return environment | folders


def test_the_exit_code_is_the_applications(environment: dict[str, str]) -> None:
    assert enter(["run", "raise SystemExit(4)"], environment) == 4


def test_a_killed_application_is_told_apart(environment: dict[str, str], tmp_path: Path) -> None:
    program = f"""
import os, pathlib, signal
pathlib.Path({str(tmp_path / "out")!r}, ".stillscan-half").mkdir()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert enter(["run", program], environment) == 128 + signal.SIGKILL
    assert list((tmp_path / "out").iterdir()) == []


def test_staging_of_another_run_stays(tmp_path: Path) -> None:
    (tmp_path / ".stillscan-other").mkdir()
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    supervise([sys.executable, "-c", program], {}, tmp_path)
    assert (tmp_path / ".stillscan-other").exists()


def test_staging_of_a_run_that_began_later_and_lives_stays(tmp_path: Path) -> None:
    other = tmp_path / ".stillscan-later"
    program = f"""
import os, pathlib, signal
folder = pathlib.Path({str(other)!r})
folder.mkdir()
os.link({str(tmp_path / "lock")!r}, folder / "writer.lock")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with (tmp_path / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        supervise([sys.executable, "-c", program], {}, tmp_path)
        assert other.exists()
    shutil.rmtree(other)
    supervise([sys.executable, "-c", program], {}, tmp_path)
    assert not other.exists()


def test_what_begins_with_a_dash_is_for_the_application(environment: dict[str, str]) -> None:
    Path(environment["HOLOSCAN_APP_MANIFEST_PATH"]).write_text(
        json.dumps({"command": json.dumps([sys.executable])})
    )
    assert enter(["-c", "raise SystemExit(3)"], environment) == 3


@pytest.mark.parametrize("arguments", [["start"], ["show", "everything"]])
def test_an_unknown_command_is_a_usage_fault(
    environment: dict[str, str], arguments: list[str]
) -> None:
    assert enter(arguments, environment) == ExitCode.USAGE


def test_extract_needs_a_mount(environment: dict[str, str], tmp_path: Path) -> None:
    assert extract(environment, tmp_path / "nothing") == ExitCode.USAGE


def test_extract_says_what_cannot_be_written(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/config").mkdir()
    (tmp_path / "export/config/app.json").mkdir()
    assert extract(environment, tmp_path / "export") == ExitCode.OUTPUT_FAULT
    assert "cannot be written" in capsys.readouterr().err


def test_only_mercure_starts_a_task(environment: dict[str, str], mercure: dict[str, str]) -> None:
    assert task_of(environment) is None
    task = task_of(mercure)
    assert task is not None
    assert str(task.output) == mercure["MERCURE_OUT_DIR"]


def write_task(folder: Path, settings: object) -> None:
    (folder / "task.json").write_text(json.dumps({"process": {"settings": settings}}))


def test_settings_of_a_task_win_over_the_shipped_ones(tmp_path: Path) -> None:
    write_task(tmp_path, {"denoise": {"strength": "low"}})
    task = MercureTask(tmp_path, tmp_path)
    with task.settings_file(ROOT / "app/app.yaml") as file:
        settings = yaml.safe_load(file.read_text())
    assert not file.exists()
    shipped = yaml.safe_load((ROOT / "app/app.yaml").read_text())
    assert settings == merge(shipped, {"denoise": {"strength": "low"}, "output": {"report": True}})


@pytest.mark.parametrize("settings", [{"application": {}}, ["low"], "low"])
def test_settings_that_are_none_are_a_usage_fault(
    mercure: dict[str, str], tmp_path: Path, settings: object
) -> None:
    write_task(tmp_path / "in", settings)
    assert enter(["run", "raise SystemExit(0)"], mercure) == ExitCode.USAGE
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"process": 1}'])
def test_a_task_that_is_none_is_a_usage_fault(
    mercure: dict[str, str], tmp_path: Path, text: str
) -> None:
    (tmp_path / "in/task.json").write_text(text)
    assert enter(["run", "raise SystemExit(0)"], mercure) == ExitCode.USAGE


REPORT = """
import json, os, pathlib
folder = pathlib.Path(os.environ["HOLOSCAN_OUTPUT_PATH"], "report")
folder.mkdir()
(folder / "page.html").write_text("")
series = [{"status": "derived", "reason": None}, {"status": "refused", "reason": "mean-moved"}]
(folder / "result.json").write_text(json.dumps({"series": series}))
"""


def test_a_partly_derived_task_is_a_success_with_a_notification(
    mercure: dict[str, str], tmp_path: Path
) -> None:
    assert enter(["run", f"{REPORT}\nraise SystemExit(5)"], mercure) == ExitCode.DERIVED
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["result.json"]
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["__mercure_notification"] == {
        "text": "Stillscan refused 1 of 2 series: mean-moved"
    }


def test_a_report_stays_where_the_task_asks_for_it(mercure: dict[str, str], tmp_path: Path) -> None:
    write_task(tmp_path / "in", {"output": {"report": True}})
    assert enter(["run", REPORT], mercure) == ExitCode.DERIVED
    assert (tmp_path / "out/report/page.html").exists()


def test_a_result_that_cannot_be_written_leaves_an_empty_output(
    mercure: dict[str, str], tmp_path: Path
) -> None:
    program = f"import os\nos.mkdir({str(tmp_path / 'out/result.json')!r})\n{REPORT}"
    assert enter(["run", program], mercure) == ExitCode.OUTPUT_FAULT
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_task_has_no_result(mercure: dict[str, str], tmp_path: Path) -> None:
    assert enter(["run", "raise SystemExit(4)"], mercure) == ExitCode.BAD_INPUT
    assert list((tmp_path / "out").iterdir()) == []


def test_an_output_that_is_not_there_is_an_output_fault(mercure: dict[str, str]) -> None:
    Path(mercure["MERCURE_OUT_DIR"]).rmdir()
    assert enter(["run", "raise SystemExit(0)"], mercure) == ExitCode.OUTPUT_FAULT

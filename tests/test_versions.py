"""`pyproject.toml` decides the version; every other place states the same."""

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stillscan
from stillscan.app import cli
from stillscan.app.bundles.choice import identity_method
from stillscan.app.settings import parse_settings
from stillscan.deploy.image.context import copy_application

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = PROJECT["version"]
PRINT_VERSION = "import stillscan; print(stillscan.__version__)"


def load_script(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


versions = load_script(ROOT / ".ci/set_version.py")


def version_seen_from(folder: Path) -> str:
    """What a program says that imports the package from `folder` and from nowhere else."""
    # -S: without the site-packages, where this checkout is installed
    words = [sys.executable, "-S", "-c", PRINT_VERSION]
    done = subprocess.run(
        words,
        env={"PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_place_states_the_version():
    wrong = {place: version for place, version in versions.stated() if version != VERSION}
    assert not wrong


@pytest.mark.parametrize(("pattern", "around"), versions.PLACES)
def test_every_pattern_of_a_place_finds_one(pattern, around, monkeypatch):
    monkeypatch.setattr(versions, "PLACES", ((pattern, around),))
    assert list(versions.stated())


def test_a_release_changes_every_place(tmp_path):
    places = [place for place, _ in versions.stated()]
    for place in places:
        file = Path(place.partition(":")[0])
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, tmp_path / file)
    versions.set_version("12.0.34", tmp_path)
    assert list(versions.stated(tmp_path)) == [(place, "12.0.34") for place in places]


def test_a_release_needs_three_numbers(tmp_path):
    with pytest.raises(ValueError, match="three numbers"):
        versions.set_version("v0.3", tmp_path)


def test_the_first_section_of_the_changelog_is_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.split("\n## ")[1].splitlines()[0] == VERSION


def test_a_checkout_knows_its_version():
    assert stillscan.__version__ == VERSION
    assert version_seen_from(ROOT) == VERSION


def test_an_installed_wheel_knows_its_version(tmp_path):
    (tmp_path / "stillscan").mkdir()
    shutil.copyfile(ROOT / "stillscan/__init__.py", tmp_path / "stillscan/__init__.py")
    metadata = tmp_path / "stillscan-9.8.7.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: stillscan\nVersion: 9.8.7\n")
    assert version_seen_from(tmp_path) == "9.8.7"
    # a file that another project left among the packages says nothing of this one
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\nversion = "1.0.0"\n')
    assert version_seen_from(tmp_path) == "9.8.7"


def test_the_image_knows_its_version(tmp_path):
    copy_application(tmp_path)
    assert version_seen_from(tmp_path / "opt/stillscan") == VERSION


def test_the_command_line_shows_the_version():
    assert CliRunner().invoke(cli.app, ["--version"]).stdout == f"Stillscan {VERSION}\n"


def test_derived_series_name_the_program_whatever_a_settings_file_says():
    settings = parse_settings({"application": {"title": "Stillscan", "version": "0.0.1"}})
    assert identity_method(settings).provenance.version == VERSION


@pytest.mark.parametrize("name", ["mr", "ct", "xray"])
def test_bundles_state_a_version_that_they_work_with(name):
    file = ROOT / f"models/bundles/{name}/configs/metadata.json"
    metadata = json.loads(file.read_text(encoding="utf-8"))
    wanted = metadata["required_packages_version"]["stillscan"]
    assert as_numbers("0.2.0") <= as_numbers(wanted) <= as_numbers(VERSION)


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))

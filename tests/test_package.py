"""The wheel: one name in the environment, and nothing of other people's names in its way."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOREIGN = ("app.py", "models/__init__.py", "operators/__init__.py", "deploy/__init__.py")

pytestmark = pytest.mark.slow


def run(*command: object, where: Path, packages: Path) -> str:
    """Output of a command in a folder, with these packages before all others."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=where,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, ROOT], check=True)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel was installed into; its scripts are in `bin`."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of somebody whose modules have the names of our layers."""
    folder = tmp_path / "foreign"
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('raise RuntimeError("foreign")')
    return folder


def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"stillscan", f"stillscan-{PROJECT['version']}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


def test_every_file_of_the_layers_is_in_the_wheel(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "app", "models", "operators", "deploy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(listed) > 200
    assert not {f"stillscan/{name}" for name in listed} - set(zipfile.ZipFile(wheel).namelist())


def test_it_is_imported_beside_other_peoples_modules(installed: Path, foreign: Path) -> None:
    code = (
        "import stillscan; print(stillscan.__file__, stillscan.__version__); "
        "print(*(getattr(stillscan, name).__module__ for name in stillscan.__all__))"
    )
    first, modules = run(sys.executable, "-c", code, where=foreign, packages=installed).splitlines()
    assert first == f"{installed / 'stillscan/__init__.py'} {PROJECT['version']}"
    assert {name.partition(".")[0] for name in modules.split()} == {"stillscan"}


def test_a_series_is_denoised_beside_other_peoples_modules(installed: Path, foreign: Path) -> None:
    make_series(foreign / "in", slices=2)
    run(installed / "bin/stillscan", "denoise", "in", "out", where=foreign, packages=installed)
    assert len(list((foreign / "out").glob("*/*.dcm"))) == 2


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"]))
def test_every_console_script_runs(installed: Path, foreign: Path, script: str) -> None:
    said = run(installed / "bin" / script, "--help", where=foreign, packages=installed)
    assert script in said

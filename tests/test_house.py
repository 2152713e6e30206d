"""The house keeps its order: imports run one way, nothing hides the standard library."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("models", "operators", "app", "deploy")  # each imports only what stands before it
DICOM = {"pydicom", "pynetdicom", "highdicom", "gdcm", "openjpeg", "pylibjpeg", "jpeg_ls"}
MODULES = sorted(
    path
    for folder in (*LAYERS, "bench")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_modules_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} >= {
        "models",
        "operators",
        "app",
        "bench",
    }


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_run_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    later = {"bench", "tests"} - {folder}
    if folder in LAYERS:
        later |= set(LAYERS[LAYERS.index(folder) + 1 :])
    assert not packages(path) & later


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_models_know_no_dicom(path):
    if path.relative_to(ROOT).parts[0] == "models":
        assert not packages(path) & DICOM


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_only_operators_and_the_graph_import_holoscan(path):
    folder = path.relative_to(ROOT).parts[0]
    is_door = folder == "operators" and path.stem.endswith("_operator")
    if not is_door and folder not in ("app", "deploy"):
        assert "holoscan" not in packages(path)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_module_is_named_like_one_of_the_standard_library(path):
    # the MAP packager puts folders on PYTHONPATH, where such a module would hide the real one
    name = path.parent.name if path.stem == "__init__" else path.stem
    assert name == "__main__" or name not in sys.stdlib_module_names


def test_installed_packages_are_the_layers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tuple(sorted(LAYERS)) == tuple(
        sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    )


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    wanted = [*project["dependencies"], *extras]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin and "+" not in pin for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    names = {requirement_name(each) for each in wanted} - {project["name"]}
    assert names <= pinned


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    settings = yaml.safe_load((ROOT / "app/app.yaml").read_text(encoding="utf-8"))
    assert settings["application"]["version"] == project["version"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def requirement_name(requirement: str) -> str:
    for separator in "=<>~! [;":
        requirement = requirement.partition(separator)[0]
    return requirement.lower().replace("_", "-")

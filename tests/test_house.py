"""The house keeps its order; who may import whom is checked by `make lint` (import-linter)."""

import sys
import tomllib
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("models", "operators", "app", "deploy")
MOST_FILES = 15  # of one folder, without __init__.py
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_no_folder_is_crowded():
    modules = [
        path
        for folder in (*LAYERS, "bench")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert len(modules) > 200
    crowded = {
        str(folder.relative_to(ROOT)): files
        for folder, files in Counter(path.parent for path in modules).items()
        if files > MOST_FILES
    }
    assert not crowded


def test_nothing_at_the_top_of_a_layer_hides_the_standard_library():
    """The MAP packager puts the folder `app` itself on PYTHONPATH."""
    found = {path.stem for layer in LAYERS for path in (ROOT / layer).iterdir()}
    assert not (found - {"__init__", "__main__"}) & sys.stdlib_module_names


def test_the_package_is_the_layers_and_nothing_else():
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["stillscan"]
    folders = {path.name: path for path in (ROOT / "stillscan").iterdir() if path.is_dir()}
    assert set(folders) - {"__pycache__"} == set(LAYERS)
    assert all(folders[layer].resolve() == ROOT / layer for layer in LAYERS)


def test_every_dependency_is_pinned():
    project = PYPROJECT["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    wanted = [*project["dependencies"], *extras]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin and "+" not in pin for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    names = {requirement_name(each) for each in wanted} - {project["name"]}
    assert names <= pinned


def test_versions_agree():
    version = PYPROJECT["project"]["version"]
    settings = yaml.safe_load((ROOT / "app/app.yaml").read_text(encoding="utf-8"))
    assert settings["application"]["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def requirement_name(requirement: str) -> str:
    for separator in "=<>~! [;":
        requirement = requirement.partition(separator)[0]
    return requirement.lower().replace("_", "-")

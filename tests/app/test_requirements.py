import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOT_IN_A_MAP = {"nibabel>=5.3"}  # it takes DICOM


def test_requirements_of_the_map_are_those_of_the_project_and_its_runtime() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "app" / "requirements.txt").read_text().splitlines()
    needed = {*project["dependencies"], *project["optional-dependencies"]["deploy"]}
    assert {line for line in lines if line and not line.startswith("#")} == needed - NOT_IN_A_MAP

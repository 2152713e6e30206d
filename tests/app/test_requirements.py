import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_requirements_of_the_map_are_the_dependencies_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "app" / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == project["dependencies"]

"""Files for those who work on the project say what is so: contributing, CI, hooks, templates."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.docs.test_links import LINK, anchors, prose

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
FIELDS = {"markdown", "input", "textarea", "dropdown", "checkboxes"}


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_lead_to_files_and_headings(name):
    document = ROOT / name
    for target in LINK.findall(prose(document)):
        path, _, anchor = target.partition("#")
        leads_to = ROOT / path if path else document
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), target


def test_examples_of_style_are_quoted_from_the_code():
    quoted = re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert len(quoted) == CONTRIBUTING.count("```python")
    for file, code in quoted:
        assert code in (ROOT / file).read_text(encoding="utf-8"), file


def test_every_make_target_that_is_named_exists():
    steps = [
        step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step
    ]
    named = re.findall(r"(?:^|`)make ([a-z-]+)", "\n".join([CONTRIBUTING, *steps]), re.MULTILINE)
    assert {"env", "lint", "test-fast"} <= set(named) <= targets()


def test_ci_tries_every_python_that_is_supported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, above = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    tried = WORKFLOW["jobs"]["fast"]["strategy"]["matrix"]["python"]
    assert tried == [f"3.{minor}" for minor in range(least, above)]


def test_hooks_run_what_make_lint_runs():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repository,) = yaml.safe_load(text)["repos"]
    hooks = [each["entry"].replace(" --force-exclude", "") for each in repository["hooks"]]
    linted = re.search(r"^lint: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    for line in linted[1].replace("$(VENV)", ".venv").splitlines():
        assert line.strip().removesuffix(" .").replace("check --check", "check") in hooks


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_templates_have_what_the_forms_need(file):
    form = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.stem == "config":
        return
    assert form["name"]
    assert form["description"]
    assert {each["type"] for each in form["body"]} <= FIELDS
    ids = [each["id"] for each in form["body"] if each["type"] != "markdown"]
    assert len(set(ids)) == len(ids) > 0
    assert all(each["attributes"]["label"] for each in form["body"] if "id" in each)


def test_the_citation_names_the_project_and_no_person():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == [{"name": "The Stillscan developers"}]


def test_every_room_is_in_the_table():
    drawing = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rooms = {
        path.parent.relative_to(ROOT)
        for layer in ("models", "operators", "app", "deploy")
        for path in (ROOT / layer).rglob("__init__.py")
    }
    # rooms inside these are named beside them
    inside = (Path("deploy/gateway"), Path("deploy/monailabel"))
    for room in rooms:
        within = next((each for each in inside if each in room.parents), None)
        assert f"`{room.name if within else room.as_posix()}`" in drawing or len(room.parts) == 1, (
            room
        )


def test_every_name_of_the_api_pages_is_defined_where_they_say():
    for page in (ROOT / "docs/api").glob("*.md"):
        for path in re.findall(
            r"^::: stillscan\.(\S+)", page.read_text(encoding="utf-8"), re.MULTILINE
        ):
            module, _, name = path.rpartition(".")
            tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
            defined = {getattr(node, "name", None) for node in tree.body}
            assert name in defined, f"{page.name}: {path}"

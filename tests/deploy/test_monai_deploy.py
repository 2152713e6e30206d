"""Workflows and configuration for MONAI Deploy: valid, consistent, and they run in no circle."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.cli import app
from stillscan.app.settings import load_settings
from stillscan.models.bundle import find_bundles
from stillscan.operators.reading.selection import MULTI_FRAME_SOP_CLASSES, SOP_CLASSES
from tests.series_factory import make_series

FOLDER = Path(__file__).resolve().parents[2] / "deploy/monai-deploy"
GATEWAY_FILES = {"ae-title.json": "ae-title", "source.json": "source"}
GATEWAY_FILES["destination.json"] = "destination"

Workflow = dict[str, Any]


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


@pytest.fixture(params=["workflow-docker.json", "workflow-argo.json"])
def workflow(request: pytest.FixtureRequest) -> Workflow:
    return read(request.param)


def task(workflow: Workflow, name: str) -> dict[str, Any]:
    return next(each for each in workflow["tasks"] if each["id"] == name)


def test_a_workflow_follows_the_documented_fields(workflow: Workflow) -> None:
    schema = read("schemas/workflow.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(workflow, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tasks.1.args.task_timeout_minutes", 60),  # not a text
        ("tasks.1.args.timeout", "60"),  # no such argument
        ("tasks.1.id", "still scan"),
        ("tasks.2.export_destinations", []),
        ("informatics_gateway.ae_title", "SIXTEEN_LETTERS_"),
        ("tasks.1.artifacts.input.0.value", "context.input.dicom"),
    ],
)
def test_the_schema_refuses_what_the_validator_would(path: str, value: object) -> None:
    broken = read("workflow-docker.json")
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    node = broken
    for key in way:
        node = node[key]
    node[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, read("schemas/workflow.json"))


@pytest.mark.parametrize(("name", "part"), GATEWAY_FILES.items())
def test_configuration_of_the_informatics_gateway_is_valid(name: str, part: str) -> None:
    schema = read("schemas/informatics-gateway.json")
    jsonschema.validate(read(name), {**schema, "$ref": f"#/$defs/{part}"})


def test_tasks_form_a_tree_from_the_first(workflow: Workflow) -> None:
    names = [each["id"] for each in workflow["tasks"]]
    reached = [
        destination["name"]
        for each in workflow["tasks"]
        for destination in each.get("task_destinations", [])
    ]
    assert sorted(reached) == sorted(names[1:])


def test_destinations_and_artefacts_are_of_one_piece(workflow: Workflow) -> None:
    gateway, export = workflow["informatics_gateway"], task(workflow, "export")
    assert {each["name"] for each in export["export_destinations"]} <= set(
        gateway["export_destinations"]
    )
    made = {each["name"] for each in task(workflow, "stillscan")["artifacts"]["output"]}
    (sent,) = export["artifacts"]["input"]
    name = re.fullmatch(
        r"\{\{ context\.executions\.stillscan\.artifacts\.(\S+) \}\}", sent["value"]
    )
    assert name is not None
    assert name[1] in made
    assert gateway["ae_title"] == read("ae-title.json")["aeTitle"]
    assert read("source.json")["name"] in gateway["data_origins"]
    assert read("destination.json")["name"] in gateway["export_destinations"]


def test_artefacts_of_the_docker_task_are_mounted_and_told() -> None:
    docker = task(read("workflow-docker.json"), "stillscan")
    for artefact in docker["artifacts"]["input"] + docker["artifacts"]["output"]:
        assert artefact["name"] in docker["args"]
        assert artefact["name"].startswith("env_HOLOSCAN_")
        assert artefact["name"].count("env_") == 1  # all of them are taken out of the key
        assert artefact["mandatory"]
    assert int(docker["args"]["task_timeout_minutes"]) == docker["timeout_minutes"]


def test_artefacts_of_the_argo_task_are_those_of_the_template() -> None:
    argo = task(read("workflow-argo.json"), "stillscan")
    template = yaml.safe_load((FOLDER / "argo-template.yaml").read_text())
    assert template["metadata"]["name"] == argo["args"]["workflow_template_name"]
    assert template["metadata"]["namespace"] == argo["args"]["namespace"]
    steps, denoise = template["spec"]["templates"]
    assert template["spec"]["entrypoint"] == steps["name"]
    for way in ("input", "output"):
        names = {each["name"] for each in denoise[f"{way}s"]["artifacts"]}
        assert names == {each["name"] for each in argo["artifacts"][way]}
    assert int(argo["args"]["timeoutSeconds"]) == 60 * argo["timeout_minutes"]
    volumes = {each["name"] for each in denoise["volumes"]}
    assert {each["name"] for each in denoise["container"]["volumeMounts"]} == volumes


def test_images_are_of_this_version() -> None:
    tag = f"localhost/stillscan:{load_settings().application.version}-cpu"
    template = yaml.safe_load((FOLDER / "argo-template.yaml").read_text())
    assert template["spec"]["templates"][1]["container"]["image"] == tag
    assert task(read("workflow-docker.json"), "stillscan")["args"]["container_image"] == tag
    module = json.loads((FOLDER.parent / "mercure/module.json").read_text())
    assert module["modules"]["stillscan"]["docker_tag"] == tag


def test_the_ae_title_takes_what_can_be_read_one_series_at_a_time() -> None:
    title = read("ae-title.json")
    assert set(title["allowedSopClasses"]) <= {*SOP_CLASSES, *MULTI_FRAME_SOP_CLASSES}
    assert title["grouping"] == "0020,000E"


# The router's conditions, evaluated as the Workflow Manager's guidelines for conditionals say.


def resolve(match: re.Match[str], dataset: Dataset) -> str:
    """The value of a tag as it stands in a resolved condition."""
    value = dataset.get(int(match[1] + match[2], 16))
    if value is None or value.VM == 0:
        return "'NULL'"
    return f"[{', '.join(value.value)}]" if value.VM > 1 else f"'{value.value}'"


def holds(condition: str, dataset: Dataset) -> bool:
    """Evaluate terms with CONTAINS and NOT_CONTAINS, joined by AND."""
    tag = r"\{\{ context\.dicom\.series\.any\('(\w{4})','(\w{4})'\) \}\}"
    resolved = re.sub(tag, lambda match: resolve(match, dataset), condition)

    def items(text: str) -> set[str]:
        return {each.strip(" '\"") for each in text.strip("[] ").split(",")}

    for term in resolved.split(" AND "):
        left, operator, right = re.fullmatch(r"(.+) (CONTAINS|NOT_CONTAINS) (.+)", term).groups()  # type: ignore[union-attr]
        if (operator == "CONTAINS") != bool(items(left) & items(right)):
            return False
    return True


def passes(workflow: Workflow, dataset: Dataset) -> bool:
    (destination,) = workflow["tasks"][0]["task_destinations"]
    return all(holds(each, dataset) for each in destination["conditions"])


@pytest.mark.parametrize("modality", ["MR", "CR", "DX", "PT"])
def test_the_router_lets_originals_through_that_a_bundle_is_for(
    workflow: Workflow, modality: str, tmp_path: Path
) -> None:
    (file,) = make_series(tmp_path, modality=modality, slices=1)
    known = {each for bundle in find_bundles(DEFAULT_BUNDLES) for each in bundle.modalities}
    assert passes(workflow, dcmread(file)) == (modality in known)


def test_the_router_stops_our_own_series(workflow: Workflow, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=1)
    done = CliRunner().invoke(app, ["denoise", str(tmp_path / "in"), str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "out").glob("*/*.dcm")
    assert not passes(workflow, dcmread(file))

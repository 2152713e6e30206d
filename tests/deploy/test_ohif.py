"""The hanging protocol for OHIF has the form of OHIF's type, and tells derived from original."""

import json

import jsonschema
import pytest

from stillscan.operators.writing.derived_header import OutputOptions, labelled
from tests.conftest import ROOT

PROTOCOL = json.loads((ROOT / "deploy" / "ohif" / "side-by-side.json").read_text(encoding="utf-8"))


def record(needed, /, **properties):
    return {
        "type": "object",
        "required": needed,
        "properties": properties,
        "additionalProperties": False,
    }


def listed(item):
    return {"type": "array", "items": item}


TEXT, FLAG, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}
VALUE = {"anyOf": [{"type": ["string", "number", "boolean"]}, record(["value"], value={})]}
COMPARISONS = ("equals", "notEquals", "contains", "doesNotContain", "greaterThan")
RULE = record(
    ["attribute"],
    id=TEXT,
    weight=NUMBER,
    attribute=TEXT,
    constraint=record([], containsI=TEXT, **dict.fromkeys(COMPARISONS, VALUE)),
    required=FLAG,
)
SYNC = record(
    ["type", "id"],
    type={"enum": ["cameraPosition", "imageSlice", "voi", "zoompan", "hydrateseg"]},
    id=TEXT,
    source=FLAG,
    target=FLAG,
)
VIEWPORT = record(
    ["viewportOptions", "displaySets"],
    viewportOptions=record(
        [],
        viewportId=TEXT,
        viewportType={"enum": ["stack", "volume", "volume3d"]},
        toolGroupId=TEXT,
        syncGroups=listed(SYNC),
    ),
    displaySets=listed(record(["id"], id=TEXT, matchedDisplaySetsIndex=NUMBER)),
)
ACTIVATION = record([], minViewportsMatched=NUMBER, displaySetSelectorsMatched=listed(TEXT))
STAGE = record(
    ["name", "viewportStructure", "viewports"],
    id=TEXT,
    name=TEXT,
    stageActivation=record([], enabled=ACTIVATION, passive=ACTIVATION),
    viewportStructure=record(
        ["layoutType", "properties"],
        layoutType={"const": "grid"},
        properties=record(["rows", "columns"], rows=NUMBER, columns=NUMBER),
    ),
    viewports=listed(VIEWPORT),
)
SELECTOR = record(
    ["seriesMatchingRules"], allowUnmatchedView=FLAG, seriesMatchingRules=listed(RULE)
)
# `Protocol` of platform/core/src/types/HangingProtocol.ts in OHIF 3: what of it is used
SCHEMA = record(
    ["id", "displaySetSelectors", "stages"],
    id=TEXT,
    name=TEXT,
    description=TEXT,
    numberOfPriorsReferenced=NUMBER,
    protocolMatchingRules=listed(RULE),
    toolGroupIds=listed(TEXT),
    displaySetSelectors={"type": "object", "additionalProperties": SELECTOR},
    stages=listed(STAGE),
)


def test_it_has_the_form_of_ohifs_type():
    jsonschema.validate(PROTOCOL, SCHEMA)


def test_every_viewport_shows_a_selector_that_exists_and_the_grid_is_full():
    (stage,) = PROTOCOL["stages"]
    shown = [each["id"] for viewport in stage["viewports"] for each in viewport["displaySets"]]
    assert shown == ["original", "denoised"]
    assert set(shown) == set(PROTOCOL["displaySetSelectors"])
    grid = stage["viewportStructure"]["properties"]
    assert grid["rows"] * grid["columns"] == len(shown)
    groups = [viewport["viewportOptions"]["syncGroups"] for viewport in stage["viewports"]]
    assert groups[0] == groups[1]


@pytest.mark.parametrize(
    ("description", "selector"),
    [
        ("T1 axial", "original"),
        (labelled("T1 axial", OutputOptions().suffix), "denoised"),
        (labelled("x" * 80, OutputOptions().suffix), "denoised"),
    ],
)
def test_each_series_is_chosen_by_one_selector(description, selector):
    series = {"SeriesDescription": description, "numImageFrames": 4, "isDisplaySetFromUrl": False}
    chosen = [
        name
        for name, each in PROTOCOL["displaySetSelectors"].items()
        if all(passes(series, rule) for rule in each["seriesMatchingRules"] if rule.get("required"))
    ]
    assert chosen == [selector]


def passes(series, rule):
    """As OHIF's validators decide; `doesNotContain` reads `value` of an object alone."""
    found = series[rule["attribute"]]
    ((comparison, wanted),) = rule["constraint"].items()
    value = wanted["value"]
    if comparison == "greaterThan":
        return found > value
    return (value in found) == (comparison == "contains")

"""The module description for Mercure: fields that it knows, a rule that runs in no circle."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stillscan.app.settings import parse_settings
from stillscan.deploy.image.mercure import SECTIONS, merge

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = json.loads((ROOT / "deploy/mercure/module.json").read_text())
MODULE, RULE = CONFIGURATION["modules"]["stillscan"], CONFIGURATION["rules"]["stillscan"]
# of `Module` and `Rule` in Mercure's common/types.py
TEXTS = ("docker_tag", "additional_volumes", "environment", "docker_arguments")
TEXTS += ("contact", "comment", "constraints", "resources")
FLAGS = ("requires_root", "requires_persistence", "network_enabled")


def test_fields_are_those_that_mercure_knows() -> None:
    assert set(MODULE) == {*TEXTS, *FLAGS, "settings"}
    assert all(isinstance(MODULE[name], str) for name in TEXTS)
    assert RULE["action"] in ("route", "both", "process", "discard", "notification")
    assert RULE["action_trigger"] in ("series", "study")
    assert RULE["processing_module"] in CONFIGURATION["modules"]


def test_it_asks_for_neither_root_nor_network() -> None:
    assert not any(MODULE[name] for name in FLAGS)
    assert json.loads(MODULE["docker_arguments"])["read_only"] is True


def test_its_settings_are_ours() -> None:
    assert set(MODULE["settings"]) <= set(SECTIONS)
    shipped = yaml.safe_load((ROOT / "app/app.yaml").read_text())
    parse_settings(merge(shipped, MODULE["settings"]))


@pytest.mark.parametrize(
    ("modality", "image_type", "chosen"),
    [
        ("MR", r"ORIGINAL\PRIMARY\M", True),
        ("MR", r"DERIVED\PRIMARY\M", False),
        ("CR", "ORIGINAL", True),
        ("PT", "ORIGINAL", False),
    ],
)
def test_the_rule_chooses_originals(modality: str, image_type: str, chosen: bool) -> None:
    tags = SimpleNamespace(Modality=modality, ImageType=image_type)
    assert eval(RULE["rule"], {"__builtins__": {}}, {"tags": tags}) is chosen

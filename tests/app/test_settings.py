import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from holoscan_cli.packager.config_reader import ApplicationConfiguration

from stillscan.app.settings import DEFAULT_SETTINGS, Settings, load_settings, parse_settings
from stillscan.operators.errors import ExitCode, SettingsError
from stillscan.operators.reading.selection import SelectionRules

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = {"application": {"title": "T", "version": "1"}}


def test_shipped_settings_load() -> None:
    settings = load_settings()
    assert settings.application.title == "Stillscan"
    assert settings.denoise.mode == "student"
    assert settings.output.report is False


def test_what_the_file_leaves_out_has_a_default() -> None:
    assert parse_settings(MINIMAL).selection == SelectionRules()


def test_shipped_settings_are_the_defaults_of_the_code() -> None:
    shipped = load_settings()
    assert shipped == replace(
        parse_settings(MINIMAL), application=shipped.application, resources=shipped.resources
    )


def test_packager_reads_formats_and_resources_from_the_shipped_file() -> None:
    document = yaml.safe_load(DEFAULT_SETTINGS.read_text())
    assert document["application"]["input-formats"]
    assert document["application"]["output-formats"]
    assert {"cpu", "gpu", "memory", "gpuMemory"} <= document["resources"].keys()


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("denoise", "strenght"),
        ("selection", "modality"),
        ("output", "png"),
        ("gate", "limit"),
        ("resources", "gpu-memory"),
    ],
)
def test_unknown_key_is_an_error_that_names_it(section: str, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"unknown key '{section}\.{key}'"):
        parse_settings(MINIMAL | {section: {key: 1}})


def test_unknown_section_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match="unknown key 'denoising'; known here: application"):
        parse_settings(MINIMAL | {"denoising": {}})


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("denoise", "strength", "extreme", "one of low, medium, high"),
        ("denoise", "mode", 1, "one of student"),
        ("output", "report", "maybe", "true or false"),
        ("output", "report", 1, "true or false"),
        ("selection", "min-matrix", "32", "a whole number"),
        ("selection", "min-matrix", True, "a whole number"),
        ("selection", "modalities", "MR", "a list"),
        ("selection", "modalities", [1], "a text"),
        ("gate", "residual-deviation", "high", "a finite number"),
        ("output", "series", [], "a mapping"),
    ],
)
def test_wrong_type_is_an_error_with_found_and_expected(
    section: str, key: str, value: object, expected: str
) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        parse_settings(MINIMAL | {section: {key: value}})
    assert f"'{section}.{key}" in str(caught.value)


def test_whole_number_may_stand_for_a_number() -> None:
    settings = parse_settings(MINIMAL | {"gate": {"residual-deviation": 2}})
    assert settings.gate.residual_deviation == 2.0


def test_missing_key_is_named() -> None:
    with pytest.raises(SettingsError, match=r"'application\.version' is missing"):
        parse_settings({"application": {"title": "T"}})


def test_range_that_an_option_checks_itself_is_named() -> None:
    with pytest.raises(SettingsError, match=r"output\.series: series_number_factor"):
        parse_settings(MINIMAL | {"output": {"series": {"series-number-factor": 0}}})


def test_file_that_is_no_yaml_is_a_settings_error(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("a: [1, 2")
    with pytest.raises(SettingsError, match="not YAML"):
        load_settings(path)


def test_missing_file_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file") as caught:
        load_settings(tmp_path / "none.yaml")
    assert caught.value.exit_code == ExitCode.USAGE


def test_settings_are_frozen() -> None:
    settings: Settings = load_settings()
    with pytest.raises(AttributeError):
        settings.denoise.mode = "identity"  # type: ignore[misc]


def test_official_packager_reads_the_shipped_file() -> None:
    config = ApplicationConfiguration()
    config.read(DEFAULT_SETTINGS)
    assert config.title() == "Stillscan"


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert load_settings().application.version == project["version"]


@pytest.mark.parametrize(("written", "share"), [("low", 0.5), (1, 1.0), (0.3, 0.3)])
def test_a_strength_is_a_word_or_a_number(written, share):
    document = yaml.safe_load(DEFAULT_SETTINGS.read_text(encoding="utf-8"))
    document["denoise"]["strength"] = written
    assert parse_settings(document).denoise.share == share


@pytest.mark.parametrize("written", [1.1, -0.1, "hihg", True, [0.5]])
def test_another_strength_is_refused(written):
    document = yaml.safe_load(DEFAULT_SETTINGS.read_text(encoding="utf-8"))
    document["denoise"]["strength"] = written
    with pytest.raises(SettingsError, match="strength"):
        parse_settings(document)

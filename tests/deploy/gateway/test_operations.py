"""What `docs/operations.md` says is so, and the files beside it fit together."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command

from stillscan.deploy.gateway import cli
from stillscan.deploy.gateway.planner.rules import require_known_keywords
from stillscan.deploy.gateway.record.overview import DeliveryState, JobState
from stillscan.deploy.gateway.settings import GatewaySettings, Tls, parse_gateway_settings
from stillscan.deploy.gateway.web.metrics import PREFIX
from tests.deploy.gateway.serving import TOKEN, serving
from tests.deploy.gateway.test_stow import multipart
from tests.series_factory import make_series

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
IN_WORDS = ("data", "application", "models", "destinations", "rules")  # defaults that are no value


def section(heading: str) -> str:
    return GUIDE.split(f"# {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    table = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def documented_settings() -> dict[str, str]:
    return {row[0].strip("`"): row[1] for row in rows(section("Every setting"))}


def settings_of(kind: type, before: str = "") -> Iterator[tuple[str, object]]:
    """Every key that a settings file may have, with its default."""
    hints = get_type_hints(kind)
    for each in fields(kind):
        key = before + each.name.replace("_", "-")
        inner = (hints[each.name], *get_args(hints[each.name]))
        section = next((hint for hint in inner if is_dataclass(hint)), None)
        is_section = section is not None and section is hints[each.name]
        if not is_section:
            yield key, each.default
        if section is not None and section is not Tls:
            yield from settings_of(section, f"{key}.")


def test_every_setting_is_documented_and_no_other():
    assert documented_settings().keys() == {key for key, _ in settings_of(GatewaySettings)}


def test_the_defaults_are_the_documented_ones():
    documented = documented_settings()
    for key, default in settings_of(GatewaySettings):
        shown = documented[key].strip("`")
        if isinstance(default, bool):
            assert shown == str(default).lower(), key
        elif isinstance(default, int | float):
            assert float(shown) == default, key
        elif isinstance(default, str) and default:
            assert shown == default, key
        elif default is None and key not in IN_WORDS:
            assert not shown or shown.startswith(("none", "by modality", "of `app.yaml")), key
        elif default is MISSING:
            assert not shown or key in IN_WORDS or shown == "everything", key


def test_the_example_is_a_settings_file():
    example = re.search(r"A whole example:\n\n```yaml\n(.*?)```", GUIDE, re.DOTALL)
    settings = parse_gateway_settings(yaml.safe_load(example[1]))
    require_known_keywords(settings.rules)
    assert [rule.name for rule in settings.rules] == ["no scouts", "emergency", "medium strength"]


def test_every_outcome_is_documented():
    documented = set(re.findall(r"`([a-z-]+)`", "".join(row[0] for row in rows(section("Watch")))))
    assert {*get_args(JobState), *get_args(DeliveryState)} <= documented


def test_every_metric_is_documented_and_no_other(tmp_path):
    with serving(tmp_path) as web:
        text = web.ask("/metrics").body.decode()
    there = {
        family.name.removeprefix(PREFIX) + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
    }
    watch = section("Watch")
    table = watch.split("| metric", 1)[1].split("\n\n", 1)[0]
    names = re.findall(r"`([a-z_]+)(?:\{[a-z]+\})?`", table.split("|---|---|", 1)[1])
    assert set(names) == there
    alarmed = re.findall(rf"{PREFIX}([a-z_]+)", watch.split("```yaml")[1])
    assert set(alarmed) <= there


def test_every_command_exists():
    known = get_command(cli.app).commands
    named = set(re.findall(r"stillscan-gateway ([a-z]+)", GUIDE))
    assert named == known.keys()


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", GUIDE):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.tools
def test_the_stow_request_of_the_guide_is_taken(tmp_path, tool):
    (command,) = re.findall(r"```sh\n(curl .*?)```", GUIDE, re.DOTALL)
    (file,) = make_series(tmp_path / "series", slices=1)
    body = multipart(file.read_bytes()).replace(b"3d6b6a416f9b5", b"B")
    (tmp_path / "request").write_bytes(body)
    (tmp_path / "token").write_text(TOKEN)
    with serving(tmp_path) as web:
        here = command.replace("127.0.0.1:8080", f"127.0.0.1:{web.port}")
        here = here.replace("curl", f"{tool('curl')} --fail --silent")
        subprocess.run(["bash", "-c", here], check=True, cwd=tmp_path, capture_output=True)
        assert len(list(web.places.incoming.glob("*.dcm"))) == 1


@pytest.mark.tools
def test_systemd_takes_the_unit(tmp_path, tool):
    unit = (DEPLOY / "systemd" / "stillscan-gateway.service").read_text()
    for line in unit.splitlines():
        if line.startswith("ExecStart"):
            _, subcommand, *_ = line.split("=", 1)[1].split()
            assert subcommand in get_command(cli.app).commands
    runnable = unit.replace("/opt/stillscan/.venv/bin/stillscan-gateway", "/usr/bin/true")
    file = tmp_path / "stillscan-gateway.service"
    file.write_text(re.sub("Documentation=.*", "", runnable))
    verify = [tool("systemd-analyze"), "verify", "--man=no", str(file)]
    done = subprocess.run(verify, check=False, capture_output=True, text=True)
    about_it = [line for line in done.stderr.splitlines() if "stillscan" in line]
    assert not about_it


class TestCompose:
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    gateway, orthanc = composed["services"]["gateway"], composed["services"]["orthanc"]
    settings = parse_gateway_settings(
        yaml.safe_load((DEPLOY / "orthanc" / "gateway.yaml").read_text())
    )
    pacs = yaml.safe_load((DEPLOY / "orthanc" / "orthanc.json").read_text())  # JSON is YAML

    def test_what_is_mounted_is_there(self):
        for service in (self.gateway, self.orthanc):
            for volume in service["volumes"]:
                source = volume.split(":")[0]
                known = source in self.composed["volumes"] or (DEPLOY / source).is_file()
                assert known, source

    def test_settings_lie_where_the_services_look_for_them(self):
        mounted = {
            volume.split(":")[0]: volume.split(":")[1]
            for volume in self.gateway["volumes"] + self.orthanc["volumes"]
        }
        assert mounted["./orthanc/gateway.yaml"] in self.gateway["command"]
        assert mounted["./orthanc/stillscan.lua"] in self.pacs["LuaScripts"]
        assert mounted["stillscan"] == str(self.settings.data)
        assert mounted["orthanc"] == self.pacs["StorageDirectory"]
        (secret,) = self.gateway["secrets"]
        assert str(self.settings.web.token_file) == f"/run/secrets/{secret}"

    def test_orthanc_is_that_of_a_digest(self):
        image = r"\S+:(\d+)\.(\d+)\.(\d+)@sha256:[0-9a-f]{64}"
        version = re.fullmatch(image, self.orthanc["image"]).groups()
        assert tuple(map(int, version)) >= (1, 12, 11)

    def test_gateway_and_pacs_know_each_other(self):
        (name, host, port), title = self.pacs["DicomModalities"]["stillscan"], "STILLSCAN"
        assert (name, host, port) == (title, "gateway", self.settings.receiver.port)
        assert self.settings.receiver.ae_title == title
        assert self.settings.receiver.peers[0].ae_title == self.pacs["DicomAet"]
        (destination,) = self.settings.destinations
        assert destination.host in self.composed["services"]
        assert destination.port == self.pacs["DicomPort"]
        assert destination.ae_title == self.pacs["DicomAet"]

    def test_nothing_is_published_beyond_this_machine(self):
        for service in (self.gateway, self.orthanc):
            for port in service["ports"]:
                assert port.startswith("127.0.0.1:")

    def test_the_gateway_has_no_more_rights_than_it_needs(self):
        assert self.gateway["cap_drop"] == ["ALL"]
        assert self.gateway["read_only"] is True
        assert not self.gateway["user"].startswith("0")

    def test_the_health_check_is_a_program(self):
        *_, program = self.gateway["healthcheck"]["test"]
        compile(program, "healthcheck", "exec")
        assert f":{self.settings.web.port}/healthz" in program

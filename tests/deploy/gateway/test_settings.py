"""gateway.yaml becomes settings: an unknown key, a wrong value, a rule to nowhere are errors."""

from pathlib import Path

import pytest

from stillscan.deploy.gateway.planner.rules import require_known_keywords
from stillscan.deploy.gateway.settings import (
    GatewaySettings,
    Rule,
    load_gateway_settings,
    parse_gateway_settings,
    token_of,
)
from stillscan.operators.errors import SettingsError

FOLDER = {"name": "out", "kind": "folder", "folder": "out"}


def test_without_a_file_everything_listens_on_loopback():
    settings = load_gateway_settings(None)
    assert settings == GatewaySettings()
    assert {settings.receiver.host, settings.web.host} == {"127.0.0.1"}


def test_a_file_is_read(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "data: /srv/quiet\n"
        "receiver: {port: 104, peers: [{ae-title: MR1, hosts: [10.0.0.5]}]}\n"
        "destinations: [{name: pacs, kind: c-store, host: pacs, ae-title: PACS}]\n"
        "rules: [{name: heads, match: {BodyPartExamined: HEAD}, destinations: [pacs]}]\n"
    )
    settings = load_gateway_settings(file)
    assert settings.data == Path("/srv/quiet")
    assert settings.receiver.peers[0].hosts == ("10.0.0.5",)
    assert settings.destinations[0].port == 104
    assert settings.rules[0].match == {"BodyPartExamined": "HEAD"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"receivers": {}}, "unknown key 'receivers'"),
        ({"receiver": {"prot": 1}}, "unknown key 'receiver.prot'"),
        ({"receiver": {"port": "104"}}, "'receiver.port' is '104'"),
        ({"destinations": [{"name": "a"}]}, "key 'destinations.0.kind' is missing"),
        ({"destinations": [{"name": "a", "kind": "c-store"}]}, "needs 'host'"),
        ({"destinations": [{"name": "a", "kind": "stow-rs", "url": "pacs"}]}, "must begin with"),
        ({"destinations": [FOLDER, FOLDER]}, "two destinations have the same name"),
        ({"rules": [{"name": "a", "destinations": ["b"]}]}, "not among the destinations"),
        ({"rules": [{"name": "a", "mode": "loud"}]}, "expected one of"),
        ({"rules": [{"name": "a", "match": ["Modality"]}]}, "expected a mapping"),
        ({"storage": {"most-used": 1.5}}, "expected a share"),
        ({"receiver": {"tls": {"certificate": "a.pem"}}}, "belong together"),
    ],
)
def test_what_is_wrong_is_named(document, said):
    with pytest.raises(SettingsError, match=r"gateway\.yaml") as error:
        parse_gateway_settings(document, "gateway.yaml")
    assert said in str(error.value)


def test_a_rule_for_an_attribute_that_does_not_exist_is_an_error():
    with pytest.raises(SettingsError, match="'Modalty', which is neither"):
        require_known_keywords([Rule("a", {"Modalty": "MR"})])
    require_known_keywords([Rule("a", {"Modality": "MR", "calling-ae-title": "MR*"})])


def test_a_token_file_has_to_hold_something(tmp_path):
    assert token_of(None) is None
    (tmp_path / "token").write_text(" secret\n")
    assert token_of(tmp_path / "token") == "secret"
    (tmp_path / "empty").write_text("\n")
    for name in ("empty", "missing"):
        with pytest.raises(SettingsError):
            token_of(tmp_path / name)

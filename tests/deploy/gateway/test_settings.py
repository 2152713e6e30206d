"""gateway.yaml becomes settings: an unknown key, a wrong value, a rule to nowhere are errors."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from stillscan.deploy.gateway.planner.rules import require_known_keywords
from stillscan.deploy.gateway.settings import (
    GatewaySettings,
    Rule,
    load_gateway_settings,
    parse_gateway_settings,
    token_of,
    users_of,
)
from stillscan.deploy.gateway.usable_settings import usable_settings
from stillscan.operators.errors import SettingsError

FOLDER = {"name": "out", "kind": "folder", "folder": "out"}
WEB = {"name": "web", "kind": "stow-rs", "url": "http://pacs"}


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


NAN, FAR = float("nan"), 10**400
A_PORT, SOME_S = "expected a number from 1 to 65535", "expected a number from 0 to 31536000"
LIMIT_S = "expected a number from 0.05 to 31536000"
COUNT = "expected a number from 1 to 10000"
TITLE = "expected 1 to 16 printable ASCII characters"
NAME = "expected 1 to 64 characters, no control characters"
HOST = "expected an IP address or the name of a host, without a port"
URL = "expected an address that begins with http:// or https://, without '/studies'"
# key: wrong values, and what the message says is allowed
WRONG: dict[str, tuple[list[object], str]] = {
    "receiver.port": ([0, -1, 65536, FAR], A_PORT),
    "web.port": ([0, 99999], A_PORT),
    "destinations.0.port": ([0, -104, 70000], A_PORT),
    "receiver.host": (["", " ", "0.0.0.0:104", "http://pacs", "a b", "-x"], HOST),
    "web.host": (["", "127.0.0.1:8080", "::1]"], HOST),
    "destinations.0.host": (["", "pacs:104", "pacs/x", "dicom://pacs"], HOST),
    "receiver.ae-title": (["", " ", "A" * 17, "A\\\\B", "\u00c4RZTE", " STILLSCAN", "A\nB"], TITLE),
    "destinations.0.ae-title": (["", "A" * 17, "PACS "], TITLE),
    "destinations.0.calling-ae-title": (["", "\tX"], TITLE),
    "receiver.peers.0.ae-title": (["", "A" * 20], TITLE),
    "receiver.peers.0.hosts.0": (
        ["10.0.0.0/8", "10.0.0", "pacs.example.org", "", "10.0.0.1:104", "256.1.1.1"],
        "expected the IP address of one host, no range, no name",
    ),
    "receiver.max-pdu": ([0, 4095, 2**20 + 1, -1], "expected a number from 4096 to 1048576"),
    "receiver.max-associations": ([0, -5, 10_001], COUNT),
    "receiver.max-associations-per-host": ([0], COUNT),
    "receiver.negotiation-s": ([0, -1.0, NAN, float("inf")], ""),
    "receiver.idle-s": ([0.0, 1e12], LIMIT_S),
    "receiver.association-s": ([0, -3], LIMIT_S),
    "receiver.max-instance-mb": ([0, -1, 65_537], "expected a number from 1 to 65536"),
    "receiver.drain-s": ([-1], SOME_S),
    "web.max-request-mb": ([0], "expected a number from 1 to 65536"),
    "storage.most-used": ([0, -0.5, 1.5, NAN], ""),
    "storage.retention-h": ([0, -72, 1e9], "expected a number from 0.1 to 87600"),
    "storage.history-days": ([0, -1], "expected a number from 0.1 to 36500"),
    "completeness.quiet-s": ([-1, NAN], ""),
    "completeness.settled-s": ([-0.5], SOME_S),
    "completeness.patience-s": ([-1, 1e10], SOME_S),
    "completeness.missing": (["ignore", True], "expected one of refuse, process"),
    "worker.timeout-s": ([0, -1], LIMIT_S),
    "worker.attempts": ([0, -1], COUNT),
    "worker.backoff-s": ([-10], SOME_S),
    "worker.memory-mb": ([0, 63, -1], "expected a number from 64 to 1048576"),
    "worker.drain-s": ([-60], SOME_S),
    "sender.attempts": ([0], COUNT),
    "sender.backoff-s": ([-1], SOME_S),
    "sender.timeout-s": ([0], LIMIT_S),
    "sender.drain-s": ([float("-inf")], "expected a finite number"),
    "destinations.0.name": (["", "a\nb", "x" * 65, " a"], NAME),
    "destinations.0.kind": (["c-find", 1], "expected one of c-store, stow-rs, folder"),
    "destinations.1.url": (
        ["", "pacs", "ftp://p", "http://", "http://pacs:99999", "http://a b/", "http://u:p@pacs"]
        + [f"http://pacs/{rest}" for rest in ("studies", "?x=1", "#x")],
        URL,
    ),
    "rules.0.name": (["", "\0", "y" * 100], NAME),
    "rules.0.match.Modality": (["", "M" * 65], NAME),
    "rules.0.mode": (["loud"], "expected one of student"),
    "rules.0.strength": (["strong"], "expected one of low, medium, high"),
    "rules.0.priority": ([2**70, -(10**9), 1.5], ""),
    "rules.0.bundle": ([""], NAME),
    "rules.0.process": (["no"], "expected true or false"),
    "web.stow": ([1, "yes"], "expected true or false"),
    "data": ([7, ""], "expected a path"),
}
SINGLE = [(key, value, said) for key, (values, said) in WRONG.items() for value in values]


def document_with(key: str, value: object) -> dict[str, object]:
    """A sound settings document with another value of one key."""
    document: dict[str, object] = {
        "receiver": {"peers": [{"ae-title": "MR1", "hosts": ["10.0.0.1"]}]},
        "destinations": [
            {"name": "pacs", "kind": "c-store", "host": "pacs", "ae-title": "PACS"},
            {"name": "web", "kind": "stow-rs", "url": "https://pacs/dicom-web"},
        ],
        "rules": [{"name": "all", "match": {"Modality": "MR"}, "destinations": ["web"]}],
    }
    at: Any = document
    *path, last = (int(each) if each.isdigit() else each for each in key.split("."))
    for each in path:
        at = at.setdefault(each, {}) if isinstance(at, dict) else at[each]
    at[last] = value
    return document


def test_a_hundred_wrong_values_and_more_are_tried():
    assert len(SINGLE) >= 100
    parse_gateway_settings(document_with("receiver.port", 104))


@pytest.mark.parametrize(("key", "value", "allowed"), SINGLE)
def test_a_wrong_value_is_refused_with_key_value_and_what_is_allowed(key, value, allowed):
    with pytest.raises(SettingsError) as error:
        parse_gateway_settings(document_with(key, value), "gateway.yaml")
    said = str(error.value)
    assert said.startswith(f"gateway.yaml: '{key}' is {value!r}")
    assert f"expected {allowed.removeprefix('expected ')}" in said


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"receivers": {}}, "unknown key 'receivers'"),
        ({"receiver": {"prot": 1}}, "unknown key 'receiver.prot'"),
        ({"receiver": {"port": "104"}}, "'receiver.port' is '104'"),
        ({"destinations": [{"name": "a"}]}, "key 'destinations.0.kind' is missing"),
        ({"destinations": [{"name": "a", "kind": "c-store"}]}, "needs 'host'"),
        ({"destinations": [FOLDER, FOLDER]}, "two destinations have the same name"),
        ({"destinations": [FOLDER | {"port": 105}]}, "'port' is '105'; a destination of kind"),
        ({"destinations": [WEB | {"tls": {"authority": "a"}}]}, "expected https://"),
        ({"rules": [{"name": "a", "destinations": ["b"]}]}, "not among the destinations"),
        ({"rules": [{"name": "a", "match": ["Modality"]}]}, "expected a mapping"),
        ({"receiver": {"tls": {"certificate": "a.pem"}}}, "belong together"),
        ({"web": {"port": 11112}}, "expected another port than 'receiver.port'"),
        ({"receiver": {"max-associations": 2}}, "expected at most 'max-associations', 2"),
        ({"sender": {"backoff-most-s": 1}}, "expected at least 'backoff-s', 30"),
        ({"completeness": {"patience-s": 1}}, "expected at least 'settled-s', 5"),
    ],
)
def test_what_is_wrong_is_named(document, said):
    with pytest.raises(SettingsError, match=r"gateway\.yaml") as error:
        parse_gateway_settings(document, "gateway.yaml")
    assert said in str(error.value)


def test_a_key_that_is_there_twice_is_an_error(tmp_path):
    (tmp_path / "gateway.yaml").write_text("web: {port: 81}\nrules: []\nweb: {port: 82}\n")
    with pytest.raises(SettingsError, match="key 'web' is there twice, again in line 3"):
        load_gateway_settings(tmp_path / "gateway.yaml")


@pytest.mark.tools
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("web: {token-file: missing}", "'web.token-file': token file 'missing' cannot be read"),
        ("web: {token-file: empty}", "token file 'empty' is empty"),
        ("web: {token-file: lines}", "expected one token"),
        ("receiver: {tls: {}}", "'receiver.tls' has no 'certificate'"),
        ("web: {tls: {certificate: missing, key: key}}", "'web.tls' names 'missing', 'key'"),
        ("web: {tls: {certificate: good, key: empty}}", "expected PEM files"),
        ("web: {tls: {certificate: good, key: other}}", "the key being that of the certificate"),
        ("receiver: {tls: {certificate: old, key: key}}", "'old', which expired on 2020-01-02"),
        ("receiver: {tls: {certificate: good, key: key, authority: key}}", "'receiver.tls' names"),
        ("data: empty", "'data' is 'empty'; expected a folder"),
        ("data: empty/deeper", "'data' is 'empty/deeper'; expected a folder"),
        ("models: missing", "'models' is 'missing'; expected a folder of bundles"),
        ("rules: [{name: a, bundle: brains}]", "'rules.a.bundle' is 'brains'; expected one of"),
        ("rules: [{name: a, match: {Modalty: MR}}]", "'Modalty', which is neither"),
        ("application: missing", "missing cannot be read"),
        ("destinations: [{name: o, kind: folder, folder: key}]", "'destinations.o.folder' is"),
    ],
)
def test_what_the_settings_point_to_is_checked(
    tmp_path, monkeypatch, certificate_files, text, said
):
    shutil.copytree(certificate_files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    Path("gateway.yaml").write_text(text)
    with pytest.raises(SettingsError) as error:
        usable_settings(Path("gateway.yaml"))
    assert said in str(error.value)


@pytest.fixture(scope="module")
def certificate_files(tmp_path_factory, tool) -> Path:
    """Certificates: one that is valid, one that has expired; keys: theirs and another."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "empty").touch()
    (folder / "lines").write_text("one\ntwo\n")
    openssl = tool("openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("key", "other"):
        run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name)
    subject = ("-new", "-key", "key", "-subj", "/CN=gateway")
    run("req", *subject, "-x509", "-days", "2", "-out", "good")
    run("req", *subject, "-out", "request")
    (folder / "ca").write_text(
        "[ca]\ndefault_ca=x\n[x]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    (folder / "index").touch()
    (folder / "serial").write_text("01")
    dates = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
    sign = ("-selfsign", "-keyfile", "key", "-in", "request", "-out", "old", "-batch")
    run("ca", "-config", "ca", *sign, *dates)
    return folder


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("secret\n", {"operator": "secret"}),
        ("miller one\n\nmeyer  two\n", {"miller": "one", "meyer": "two"}),
        ("\n", None),
        ("miller one\ntwo\n", None),
        ("miller one\nmiller two\n", None),
        ("miller one\nmeyer one\n", None),
        ("miller one two\n", None),
    ],
)
def test_each_user_has_a_token(tmp_path, text, expected):
    (tmp_path / "token").write_text(text)
    if expected is None:
        with pytest.raises(SettingsError, match="USER TOKEN"):
            users_of(tmp_path / "token")
    else:
        assert users_of(tmp_path / "token") == expected

"""Addresses and credentials: nobody else gets to see them."""

import pickle
from pathlib import Path

import pytest

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint, authorization_from
from stillscan.app.dicomweb.store import store
from stillscan.operators.errors import SettingsError
from tests.app.dicomweb.answering import Answer, answering

SECRET = "s3cr3t-canary"


@pytest.mark.parametrize(
    "url",
    ["", "pacs", "ftp://pacs/x", "http://", "http://a:b@pacs/", "http://pacs/?q=1", "http://p:x/"],
)
def test_addresses_that_are_refused(url: str):
    with pytest.raises(SettingsError):
        Endpoint(url)


def test_a_secret_in_an_address_is_not_repeated():
    with pytest.raises(SettingsError) as caught:
        Endpoint(f"http://user:{SECRET}@pacs/")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({"X_TOKEN": "abc"}, "Bearer abc"),
        ({"X_USER": "Aladdin", "X_PASSWORD": "open sesame"}, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    ],
)
def test_credentials_come_from_the_environment(environment: dict[str, str], header: str | None):
    assert authorization_from(environment, "X") == header


@pytest.mark.parametrize("environment", [{"X_TOKEN": "a", "X_USER": "b"}, {"X_USER": "b"}])
def test_half_credentials_are_refused(environment: dict[str, str]):
    with pytest.raises(SettingsError):
        authorization_from(environment, "X")


def test_credentials_are_sent_and_not_shown(tmp_path: Path):
    file = tmp_path / "1.dcm"
    file.write_bytes(b"content")
    with answering(lambda _: Answer(status=401)) as archive:
        endpoint = Endpoint(archive.url, f"Bearer {SECRET}")
        with pytest.raises(DicomWebError) as caught:
            store(endpoint, [file])
    assert archive.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert caught.value.reason == "http-401"
    assert SECRET not in repr(endpoint) + str(caught.value)


@pytest.mark.parametrize("header", ["Bearer a\r\nX: b", "Bearer a\n"])
def test_credentials_add_no_header(header: str):
    with pytest.raises(SettingsError):
        Endpoint("http://pacs/", header)


def test_nobody_there_has_a_code(tmp_path: Path):
    with answering(lambda _: Answer()) as archive:
        pass  # its port is closed again
    with pytest.raises(DicomWebError) as caught:
        store(Endpoint(archive.url), [])
    assert caught.value.reason == "unreachable"


def test_an_error_keeps_its_code_from_process_to_process():
    error = pickle.loads(pickle.dumps(DicomWebError("no-answer", "nothing")))
    assert (error.reason, str(error)) == ("no-answer", "nothing")

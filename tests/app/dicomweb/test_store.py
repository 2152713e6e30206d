"""Storing succeeds only where every instance is named as stored."""

import json
from pathlib import Path

import pytest

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.dicomweb.store import store
from tests.app.dicomweb.answering import Answer, answering


def stored(count: int, failed: int = 0) -> bytes:
    answer: dict[str, object] = {"00081199": {"vr": "SQ", "Value": [{}] * count}}
    if failed:
        reason = {"00081197": {"vr": "US", "Value": [0xA700]}}
        answer["00081198"] = {"vr": "SQ", "Value": [reason] * failed}
    return json.dumps(answer).encode()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.dcm" for number in range(3)]
    for number, file in enumerate(found):
        file.write_bytes(b"%d" % number * 2_000_000)
    return found


def test_all_files_go_in_one_message(files: list[Path]):
    with answering(lambda _: Answer(stored(3))) as archive:
        store(Endpoint(archive.url), files)
    (asked,) = archive.asked
    assert (asked.method, asked.path) == ("POST", "/dicom-web/studies")
    assert all(file.read_bytes() in asked.body for file in files)


@pytest.mark.parametrize(
    ("answer", "reason", "message"),
    [
        (Answer(stored(2)), "stow-failed", "2 of 3"),
        (Answer(stored(2, failed=1)), "stow-failed", "0xA700"),
        (Answer(stored(0, failed=3), status=409), "http-409", "0xA700"),
        (Answer(b"<html>"), "stow-failed", "DICOM JSON"),
        (Answer(b"<html>", status=503), "http-503", "503"),
        (Answer(b""), "stow-failed", "0 of 3"),
    ],
)
def test_anything_else_is_a_failure(answer: Answer, reason: str, message: str, files: list[Path]):
    with answering(lambda _: answer) as archive, pytest.raises(DicomWebError) as caught:
        store(Endpoint(archive.url), files)
    assert caught.value.reason == reason
    assert message in str(caught.value)

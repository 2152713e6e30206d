"""A series is fetched whole, one file per instance, or refused."""

from pathlib import Path

import pytest

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.dicomweb.retrieve import retrieve
from tests.app.dicomweb.answering import Answer, answering
from tests.app.dicomweb.test_multipart import BOUNDARY, message

TYPE = {"Content-Type": f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'}
LONG = "b" * 73  # as Orthanc sends


def test_the_boundary_may_be_as_long_as_archives_send_it(tmp_path: Path):
    headers = {"Content-Type": f"multipart/related; boundary={LONG}"}
    body = message([b"one"]).replace(BOUNDARY.encode(), LONG.encode())
    with answering(lambda _: Answer(body, headers=headers)) as archive:
        assert retrieve(Endpoint(archive.url), "/studies/1/series/2", tmp_path) == 1


def test_instances_become_files(tmp_path: Path):
    sent = [b"a" * 3_000_000, b"", b"c"]
    with answering(lambda _: Answer(message(sent), headers=TYPE)) as archive:
        assert retrieve(Endpoint(archive.url), "/studies/1/series/2", tmp_path) == 3
    assert [file.read_bytes() for file in sorted(tmp_path.iterdir())] == sent
    assert archive.asked[0].path == "/dicom-web/studies/1/series/2"
    assert "transfer-syntax=*" in archive.asked[0].headers["Accept"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=404), "http-404"),
        (Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}), "http-302"),
        (Answer(b"<html>", headers={"Content-Type": "text/html"}), "not-dicomweb"),
        (Answer(b"x", headers={"Content-Type": "multipart/related"}), "not-dicomweb"),
        (Answer(message([b"one"])[:-20], headers=TYPE, length=500), "broken-off"),
    ],
)
def test_what_is_no_series_is_refused_with_a_code(answer: Answer, reason: str, tmp_path: Path):
    with answering(lambda _: answer) as archive, pytest.raises(DicomWebError) as caught:
        retrieve(Endpoint(archive.url), "/studies/1/series/2", tmp_path)
    assert caught.value.reason == reason

"""A series comes as a multipart message of any size, and is whole or refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.dicomweb.retrieve import Parts, retrieve
from tests.app.dicomweb.answering import Answer, answering

BOUNDARY = "b-17"
TYPE = {"Content-Type": f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'}


def message(parts: list[bytes]) -> bytes:
    head = b"Content-Type: application/dicom\r\n\r\n"
    begun = b"".join(b"\r\n--b-17\r\n" + head + part for part in parts)
    return begun.removeprefix(b"\r\n") + b"\r\n--b-17--\r\n"


class Dripping:
    """Gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        self._content = content
        self._size = size

    def read(self, size: int, /) -> bytes:
        piece, self._content = self._content[: self._size], self._content[self._size :]
        return piece


def read_all(content: bytes, size: int) -> list[bytes]:
    parts = Parts(Dripping(content, size), BOUNDARY)
    found = []
    while parts.begin():
        found.append(b"".join(parts.body()))
    return found


@given(
    st.lists(st.lists(st.sampled_from([b"\r\n", b"--", b"b-17", b"x"])).map(b"".join), min_size=1),
    st.integers(1, 50),
)
def test_parts_are_what_was_sent_however_they_drip_in(parts: list[bytes], size: int):
    clean = [part.replace(b"\r\n--b-17", b"") for part in parts]
    clean = [b"" if b"\r\n--b-17" in b"\r\n" + part + b"\r\n--b" else part for part in clean]
    assert read_all(message(clean), size) == clean


@given(st.integers(0, 70))
def test_a_message_that_breaks_off_anywhere_is_refused(kept: int):
    content = message([b"one", b"two"])
    with pytest.raises(DicomWebError, match="broke off"):
        read_all(content[: min(kept, len(content) - 4)], 7)


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

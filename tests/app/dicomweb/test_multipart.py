"""A multipart message of any size, in pieces of any size: its parts are whole, or it is refused."""

from collections.abc import Callable
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillscan.app.dicomweb.multipart import (
    MOST_PART_HEAD,
    BrokenOffError,
    MultipartError,
    boundary_of,
    parts,
)

BOUNDARY = "b-17"


def message(contents: list[bytes]) -> bytes:
    head = b"Content-Type: application/dicom\r\n\r\n"
    begun = b"".join(b"\r\n--b-17\r\n" + head + content for content in contents)
    return begun.removeprefix(b"\r\n") + b"\r\n--b-17--\r\n"


def dripping(content: bytes, size: int) -> Callable[[], bytes]:
    pieces = iter([content[at : at + size] for at in range(0, len(content), size)])
    return lambda: next(pieces, b"")


def read_all(content: bytes, size: int) -> list[bytes]:
    return [b"".join(part.pieces) for part in parts(dripping(content, size), BOUNDARY.encode())]


@given(
    st.lists(st.lists(st.sampled_from([b"\r\n", b"--", b"b-17", b"x"])).map(b"".join), min_size=1),
    st.integers(1, 50),
)
def test_parts_are_what_was_sent_however_they_drip_in(contents: list[bytes], size: int):
    clean = [part.replace(b"\r\n--b-17", b"") for part in contents]
    clean = [b"" if b"\r\n--b-17" in b"\r\n" + part + b"\r\n--b" else part for part in clean]
    assert read_all(message(clean), size) == clean


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_what_stands_around_the_parts_is_left_out(size: int):
    sent = message([b"one", b"two\r\n--b-1"])
    assert read_all(b"a preamble\r\n" + sent + b"an epilogue", size) == [b"one", b"two\r\n--b-1"]


@given(st.integers(0, 70))
def test_a_message_that_breaks_off_anywhere_is_refused(kept: int):
    content = message([b"one", b"two"])
    with pytest.raises(BrokenOffError):
        read_all(content[: min(kept, len(content) - 4)], 7)


def test_a_part_that_is_not_read_does_not_keep_the_next_from_coming():
    found = [part.content_type for part in parts(dripping(message([b"one", b"two"]), 5), b"b-17")]
    assert found == ["application/dicom"] * 2


def test_a_head_without_end_is_refused():
    content = b"--b-17\r\nX: " + b"x" * (2 * MOST_PART_HEAD)
    with pytest.raises(MultipartError, match="head"):
        read_all(content, 4096)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/related; boundary=b-17", b"b-17"),
        ('multipart/related; type="application/dicom"; boundary="b 17"', b"b 17"),
        (f"multipart/related; boundary={'b' * 200}", b"b" * 200),
        (f"multipart/related; boundary={'b' * 201}", None),
        ("multipart/related; boundary=", None),
        ("multipart/related", None),
        ("multipart/related; boundary=\N{LATIN SMALL LETTER A WITH DIAERESIS}", None),
    ],
)
def test_a_boundary_is_one_or_is_refused(content_type: str, boundary: bytes | None):
    headers = Message()
    headers["Content-Type"] = content_type
    if boundary is not None:
        assert boundary_of(headers) == boundary
        return
    with pytest.raises(MultipartError, match="boundary"):
        boundary_of(headers)

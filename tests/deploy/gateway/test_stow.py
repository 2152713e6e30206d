"""STOW-RS: parts go into the spool as they come, and the answer says what became of each."""

import random
import socket
import struct
import threading
from contextlib import suppress

import pytest
from pydicom import dcmread

from bench.robustness.network_abuse import broken
from stillscan.deploy.gateway.settings import StorageSection
from stillscan.deploy.gateway.web import stow
from tests.deploy.gateway.listening import connect, encoded, everything_said
from tests.deploy.gateway.serving import TOKEN, serving
from tests.series_factory import make_series

MUTANTS = 300
BOUNDARY = "3d6b6a416f9b5"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def multipart(*files: bytes, kind: str = "application/dicom") -> bytes:
    head = f"\r\n--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode()
    return b"".join(head + file for file in files) + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(web, body, content_type=RELATED, token=TOKEN, path="/studies"):
    return web.ask(path, "POST", body, {"Content-Type": content_type}, token)


def uids(answer, sequence):
    return {item["00081155"]["Value"][0] for item in answer.json[sequence]["Value"]}


def reasons(answer):
    return [item["00081197"]["Value"][0] for item in answer.json["00081198"]["Value"]]


def spooled(web):
    return sorted(web.places.incoming.glob("[!.]*"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_series(tmp_path_factory.mktemp("series"), slices=3)


def test_instances_are_stored_byte_for_byte(tmp_path, files):
    with serving(tmp_path) as web:
        answer = post(web, multipart(*(file.read_bytes() for file in files)))
        kept = {dcmread(file).SOPInstanceUID: file.read_bytes() for file in spooled(web)}
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/dicom+json"
    assert uids(answer, "00081199") == {str(dcmread(file).SOPInstanceUID) for file in files}
    for file in files:
        assert encoded(kept[dcmread(file).SOPInstanceUID]) == encoded(file.read_bytes())
    assert web.counts["instances_acknowledged"] == 3


def test_a_body_in_chunks_of_any_size_is_the_same_body(tmp_path, files):
    body = multipart(*(file.read_bytes() for file in files))
    for size in (997, 65536):
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        with serving(tmp_path / str(size)) as web:
            assert post(web, chunks).status == 200  # urllib sends an iterable in chunks
            assert len(spooled(web)) == 3


def test_what_is_no_dicom_fails_and_the_rest_is_stored(tmp_path, files):
    junk = [b"", b"hello", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 400]
    with serving(tmp_path) as web:
        answer = post(web, multipart(*junk[1:], files[0].read_bytes()))
        assert answer.status == 202
        assert reasons(answer) == [0xC000] * 3
        assert uids(answer, "00081199") == {str(dcmread(files[0]).SOPInstanceUID)}
        assert post(web, multipart(*junk[1:])).status == 409
        assert len(spooled(web)) == 1


def test_a_full_disk_is_said(tmp_path, files):
    with serving(tmp_path, storage=StorageSection(most_used=1e-9)) as web:
        answer = post(web, multipart(files[0].read_bytes()))
        assert answer.status == 507
        assert reasons(answer) == [0xA700]
        assert not list(web.places.incoming.iterdir())


def test_path_like_uids_are_refused(tmp_path, files):
    file = files[0].read_bytes()
    uid = str(dcmread(files[0]).SOPInstanceUID).encode()
    path = b"../" * (len(uid) // 3) + b"." * (len(uid) % 3)
    with serving(tmp_path / "data") as web:
        answer = post(web, multipart(file.replace(uid, path)))
        assert answer.status == 409
        assert reasons(answer) == [0xA900]
        assert not list(web.places.incoming.iterdir())
    assert {each.name for each in tmp_path.iterdir()} == {"data"}


def test_only_who_has_the_token_may_store(tmp_path, files):
    body = multipart(files[0].read_bytes())
    with serving(tmp_path / "a") as web:
        assert post(web, body, token="wrong").status == 401
        assert post(web, body, token=None).status == 401
        assert post(web, body).status == 200
    with serving(tmp_path / "b", token=None) as web:
        assert post(web, body, token=TOKEN).status == 403
    with serving(tmp_path / "c", stow=False) as web:
        assert post(web, body).status == 404


@pytest.mark.parametrize(
    ("content_type", "kind", "status"),
    [
        ("application/dicom", "application/dicom", 415),
        ("multipart/related; type=application/dicom", "application/dicom", 400),
        (f"multipart/related; boundary={'b' * 201}", "application/dicom", 400),
        (
            f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}',
            "application/dicom",
            415,
        ),
        (RELATED, "application/octet-stream", 415),
    ],
)
def test_what_is_no_dicom_request_is_refused(tmp_path, files, content_type, kind, status):
    with serving(tmp_path) as web:
        body = multipart(files[0].read_bytes(), kind=kind)
        assert post(web, body, content_type).status == status
        assert not list(web.places.incoming.iterdir())


def test_a_body_that_ends_early_leaves_nothing_of_its_last_part(tmp_path, files):
    body = multipart(files[0].read_bytes(), files[1].read_bytes())
    with serving(tmp_path) as web:
        assert post(web, body[: len(body) - 500]).status == 400
        assert len(spooled(web)) == 1
        assert not list(web.places.incoming.glob(".*.part"))


def test_a_request_is_no_larger_than_the_limit(tmp_path, files):
    body = multipart(*[files[0].read_bytes() + bytes(700_000)] * 2)
    with serving(tmp_path, max_request_mb=1) as web:
        assert post(web, body).status == 413
        chunks = (body[at : at + 65536] for at in range(0, len(body), 65536))
        assert post(web, chunks).status == 413


def test_a_chunk_that_says_it_is_endless_is_read_up_to_the_limit(tmp_path, files):
    body = multipart(files[0].read_bytes() + bytes(3 * 2**20))
    head = b"POST /studies HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += b"Authorization: Bearer %s\r\nContent-Type: %s\r\n\r\n" % (
        TOKEN.encode(),
        RELATED.encode(),
    )
    with serving(tmp_path, max_request_mb=1) as web:
        said = everything_said(connect(web.port, head + b"ffffffffffffffff\r\n" + body))
        assert said.startswith(b"HTTP/1.1 413 ")
        assert not list(web.places.incoming.iterdir())


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 99999999999999999999",
        b"Content-Length: -1",
        b"Content-Length: x",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked",
    ],
)
def test_lengths_that_make_no_sense_are_refused_without_reading(tmp_path, head):
    with serving(tmp_path) as web:
        request = b"POST /studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n" % (
            TOKEN.encode()
        )
        request += b"Content-Type: %s\r\n%s\r\n\r\nfffffffffffffffffffff\r\nx" % (
            RELATED.encode(),
            head,
        )
        status = everything_said(connect(web.port, request)).split(b" ")[1]
        assert status in (b"400", b"413", b"501")


def test_file_meta_with_lengths_that_lie_is_no_file(tmp_path):
    for length in (2**32 - 1, 2**16 + 1, 24, 200):
        meta = struct.pack("<HH2sHL", 2, 0, b"UL", 4, length) + b"\x02\x00\x10\x00UI\xff\xff" * 3
        with pytest.raises(ValueError, match=r"damaged|large|short"):
            stow._file_meta(iter([b"\0" * 128 + b"DICM" + meta]))


def test_mutated_requests_are_answered_or_dropped(tmp_path, files, monkeypatch):
    broke = []
    monkeypatch.setattr(threading, "excepthook", lambda fault: broke.append(fault.exc_value))
    body = multipart(files[0].read_bytes())
    head = (
        f"POST /studies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: {RELATED}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    chance = random.Random(3)
    with serving(tmp_path) as web:
        for number in range(MUTANTS):
            if number % 2:
                request = broken(head, chance) + body
            else:
                request = head + broken(body[:900], chance) + body[900:]
            connection = connect(web.port, timeout_s=0.5)
            with suppress(OSError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(4096)
            connection.close()
        assert web.ask("/").status == 200
    assert not broke
    assert not list(web.places.incoming.glob(".*.part"))

"""A series goes to a folder, over STOW-RS or C-STORE: as a whole, or the attempt has failed."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, StoragePresentationContexts, evt

from stillscan.app.dicomweb.store import FAILED_SOPS, REFERENCED_SOPS
from stillscan.deploy.gateway.sender.deliver import deliver
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Destination, Tls
from tests.series_factory import make_series

TIMEOUT_S = 3.0

# pynetdicom does not close the sockets of associations that do not come about
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A derived series as it lies in the outbox."""
    made = make_series(tmp_path / "made", slices=3)
    folder = tmp_path / "outbox" / "1" / str(dcmread(made[0]).SeriesInstanceUID)
    folder.mkdir(parents=True)
    return [file.rename(folder / file.name) for file in made]


def failure(destination: Destination, files: list[Path]) -> DeliveryFailedError:
    with pytest.raises(DeliveryFailedError) as error:
        deliver(destination, files, TIMEOUT_S)
    return error.value


class TestFolder:
    """The series appears at once, under its UID."""

    def test_a_series_appears_under_its_uid(self, tmp_path, files):
        destination = Destination("out", "folder", folder=tmp_path / "out")
        for _ in range(2):  # again is the same
            assert deliver(destination, files, TIMEOUT_S) == ""
        copies = sorted((tmp_path / "out").rglob("*.dcm"))
        assert [each.read_bytes() for each in copies] == [each.read_bytes() for each in files]
        assert [each.name for each in (tmp_path / "out").iterdir()] == [files[0].parent.name]

    def test_what_cannot_be_written_is_a_failure(self, tmp_path, files):
        (tmp_path / "out").write_text("not a folder")
        destination = Destination("out", "folder", folder=tmp_path / "out")
        assert failure(destination, files).reason == "folder-fault"

    def test_nothing_to_send_is_a_failure(self, tmp_path):
        destination = Destination("out", "folder", folder=tmp_path / "out")
        assert failure(destination, []).reason == "nothing-to-send"


class Stow(BaseHTTPRequestHandler):
    """Answers every POST with what the server was told to."""

    def do_POST(self):
        self.server.seen = (self.path, dict(self.headers))
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = self.server.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def stow_server(answer: tuple[int, object]) -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Stow)
    server.answer = answer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def web(server: HTTPServer, **changes: object) -> Destination:
    url = f"http://127.0.0.1:{server.server_port}/dicom-web/"
    return Destination("web", "stow-rs", url=url, **changes)


def items(count: int, **members: object) -> dict[str, object]:
    return {"vr": "SQ", "Value": [members] * count}


class TestStow:
    """One request for the series; every instance has to be named as stored."""

    def test_all_files_are_in_one_request(self, tmp_path, files):
        (tmp_path / "token").write_text("Bearer abc\n")
        with stow_server((200, {REFERENCED_SOPS: items(3)})) as server:
            assert deliver(web(server, token_file=tmp_path / "token"), files, TIMEOUT_S) == ""
        path, headers = server.seen
        assert path == "/dicom-web/studies"
        assert headers["Authorization"] == "Bearer abc"
        assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
        for file in files:
            assert file.read_bytes() in server.body

    def test_a_warning_is_remarked(self, files):
        answer = {REFERENCED_SOPS: items(3, **{"00081196": {"vr": "US", "Value": [0xB000]}})}
        with stow_server((202, answer)) as server:
            assert "3 of 3" in deliver(web(server), files, TIMEOUT_S)

    @pytest.mark.parametrize(
        ("answer", "reason", "said"),
        [
            ((503, b""), "http-503", "503"),
            ((409, {FAILED_SOPS: items(1, **{"00081197": {"Value": [0xA700]}})}), "http-409", "A7"),
            ((200, {REFERENCED_SOPS: items(2)}), "stow-failed", "2 of 3"),
            ((202, {REFERENCED_SOPS: items(2), FAILED_SOPS: items(1)}), "stow-failed", "2 of 3"),
            ((200, b"<html>"), "stow-failed", "not DICOM JSON"),
            ((200, []), "stow-failed", "not DICOM JSON"),
            ((200, b""), "stow-failed", "0 of 3"),
        ],
    )
    def test_any_other_answer_is_a_failure(self, files, answer, reason, said):
        with stow_server(answer) as server:
            error = failure(web(server), files)
        assert error.reason == reason
        assert said in str(error)

    def test_nobody_there_is_a_failure(self, files):
        with stow_server((200, {})) as server:
            destination = web(server)
        assert failure(destination, files).reason == "unreachable"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory, tool) -> Path:
    """A certificate for 127.0.0.1 and one of somebody else, self-signed."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("pacs", "other"):
        command = [tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@contextmanager
def tls_pacs(certificates: Path, status: int = 0) -> Iterator[tuple[int, list[str]]]:
    """A C-STORE provider over TLS that wants to know who calls; its port and what it took."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "pacs.pem", certificates / "pacs.key")
    context.load_verify_locations(certificates / "pacs.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    taken: list[str] = []

    def store(event: evt.Event) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return status

    entity = AE("PACS")
    entity.supported_contexts = StoragePresentationContexts
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        ssl_context=context,
        evt_handlers=[(evt.EVT_C_STORE, store)],
    )
    try:
        yield server.server_address[1], taken
    finally:
        server.shutdown()


class TestCStoreOverTls:
    """Both ends prove who they are."""

    def destination(self, port: int, certificates: Path, ours: str, theirs: str) -> Destination:
        tls = Tls(certificates / f"{ours}.pem", certificates / f"{ours}.key", certificates / theirs)
        return Destination("pacs", "c-store", host="127.0.0.1", port=port, ae_title="PACS", tls=tls)

    def test_a_series_is_stored(self, files, certificates):
        with tls_pacs(certificates) as (port, taken):
            deliver(self.destination(port, certificates, "pacs", "pacs.pem"), files, TIMEOUT_S)
        assert len(taken) == 3

    @pytest.mark.parametrize(("ours", "theirs"), [("other", "pacs.pem"), ("pacs", "other.pem")])
    def test_a_wrong_certificate_on_either_side_stores_nothing(
        self, files, certificates, ours, theirs
    ):
        with tls_pacs(certificates) as (port, taken):
            failure(self.destination(port, certificates, ours, theirs), files)
        assert taken == []

    def test_a_certificate_of_ours_that_is_missing_is_named(self, files, certificates):
        destination = self.destination(1, certificates, "missing", "pacs.pem")
        assert failure(destination, files).reason == "bad-certificate"


def test_a_series_of_two_kinds_of_objects_goes_over_one_association(tmp_path, files, certificates):
    ct = make_series(tmp_path / "made", modality="CT", slices=2)
    with tls_pacs(certificates) as (port, taken):
        destination = TestCStoreOverTls().destination(port, certificates, "pacs", "pacs.pem")
        deliver(destination, [*files, *ct], TIMEOUT_S)
    assert len(taken) == 5


def test_the_library_does_not_take_the_answers_away(files, certificates, monkeypatch):
    # its reactor counts as paused while it is just coming out of a pause: a little longer here
    wait = threading.Event.wait

    def dawdle(self: threading.Event, timeout: float | None = None) -> bool:
        passed = wait(self, timeout)
        time.sleep(0.002)
        return passed

    with tls_pacs(certificates) as (port, taken):
        destination = TestCStoreOverTls().destination(port, certificates, "pacs", "pacs.pem")
        monkeypatch.setattr(threading.Event, "wait", dawdle)
        deliver(destination, files * 7, TIMEOUT_S)
        monkeypatch.undo()
    assert len(taken) == 21

"""A receiver in a thread of the test, and peers that call it."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.association import Association

from stillscan.deploy.gateway.receiver import listener
from stillscan.deploy.gateway.receiver.association import Report
from stillscan.deploy.gateway.receiver.receiver import Receiver
from stillscan.deploy.gateway.receiver.spool import Spool
from stillscan.deploy.gateway.settings import Places, ReceiverSection, StorageSection

HOST = "127.0.0.1"
VERIFICATION = "1.2.840.10008.1.1"


@dataclass
class Listening:
    """A receiver that runs."""

    port: int
    places: Places
    counts: Counter[str] = field(default_factory=Counter)

    def files(self) -> list[Path]:
        """What is in the spool."""
        return sorted(self.places.incoming.glob("[!.]*"))

    def instances(self) -> dict[str, Path]:
        """The same by SOPInstanceUID of the file meta information."""
        return {dcmread(f).file_meta.MediaStorageSOPInstanceUID: f for f in self.files()}


@contextmanager
def receiving(
    folder: Path,
    storage: StorageSection | None = None,
    report: Report = lambda encoded, syntax: False,
    **settings: object,
) -> Iterator[Listening]:
    """A receiver on a port of its own, until the block ends."""
    section = ReceiverSection(**{"port": 0, "drain_s": 0.2} | settings)  # type: ignore[arg-type]
    places = Places(folder)
    counts: Counter[str] = Counter()

    def count(name: str, increment: int) -> None:
        counts[name] += increment

    receiver = Receiver(
        section, Spool(places, storage or StorageSection(1.0)), count, report=report
    )
    with in_a_thread(receiver.serve):
        yield Listening(receiver.port, places, counts)


@contextmanager
def in_a_thread(serve: Callable[[threading.Event], None]) -> Iterator[None]:
    """Serve until the block ends; that it does is noticed at once."""
    stop = threading.Event()
    thread = threading.Thread(target=serve, args=(stop,))
    with mock.patch.object(listener, "TICK_S", 0.01):
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def call(
    port: int,
    contexts: Sequence[tuple[str, str | Sequence[str] | None]] = ((VERIFICATION, None),),
    *,
    calling: str = "SCANNER",
    called: str = "STILLSCAN",
    **options: object,
) -> Association:
    """Ask for an association with pynetdicom."""
    entity = AE(calling)
    for abstract, transfer in contexts:
        entity.add_requested_context(abstract, transfer)
    return entity.associate(HOST, port, ae_title=called, **options)  # type: ignore[arg-type]


def store(port: int, datasets: Sequence[Dataset], **options: object) -> list[Dataset]:
    """C-STORE data sets; the answers."""
    contexts = {(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in datasets}
    association = call(port, sorted(contexts), **options)  # type: ignore[arg-type]
    assert association.is_established
    answers = [association.send_c_store(each) for each in datasets]
    association.release()
    return answers


def encoded(file: bytes) -> bytes:
    """The data set of a DICOM file as it is encoded in there, without preamble and file meta."""
    assert file[128:132] == b"DICM"
    return file[144 + int.from_bytes(file[140:144], "little") :]


def connect(port: int, words: bytes = b"", timeout_s: float = 5.0) -> socket.socket:
    """A connection on which something was said."""
    connection = socket.create_connection((HOST, port), timeout=timeout_s)
    connection.sendall(words)
    return connection


def everything_said(connection: socket.socket) -> bytes:
    """What the other side says until it closes."""
    said = b""
    try:
        while piece := connection.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    connection.close()
    return said


@dataclass(frozen=True)
class Certificates:
    """An authority and what it signed, as PEM files."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, openssl: str, name: str) -> Certificates:
    """An authority of its own and a certificate for 127.0.0.1."""
    folder.mkdir(parents=True)

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-pkeyopt", "ec_paramgen_curve:prime256v1")
    new_key = ("req", "-newkey", "ec", *curve, "-nodes", "-subj")
    run(*new_key, f"/CN={name} authority", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca")
    run(*new_key, f"/CN={name}", "-keyout", "key", "-out", "request")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    sign = ("x509", "-req", "-in", "request", "-CA", "ca", "-CAkey", "ca.key", "-CAcreateserial")
    run(*sign, "-days", "2", "-extfile", "names", "-out", "certificate")
    return Certificates(folder / "ca", folder / "certificate", folder / "key")

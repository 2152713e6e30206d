"""Hostile network peers of the receiver: wrong lengths, slow and foreign protocols, broken PDUs.

    python -m bench.robustness.network_abuse [--mutants 10000] [--slow 200] [--pynetdicom]

Each kind of abuse goes on while a legitimate peer asks for an association and a C-ECHO again and
again; its slowest answer, and the processor time and peak memory of the receiver's process are what
is measured. It starts a receiver of its own on loopback, with `--pynetdicom` one that is made of
that library's acceptor; `abuse` does the same to one that runs already.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE

from stillscan.deploy.gateway.settings import GatewaySettings, ReceiverSection, StorageSection
from stillscan.deploy.gateway.supervisor import Part

LENGTHS = (0, 1, 2**31, 2**32 - 1)
KINDS = (*range(1, 8), 0, 9, 0x47)
CALLED, CALLING = "STILLSCAN", "ABUSER"
VERIFICATION, MR_STORAGE = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
ABUSER = "127.0.0.66"  # not the address of those who may send: each host has its limit
TOO_MANY = b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"  # A-ASSOCIATE-RJ, local limit exceeded
JUNK = bytes(range(256)) * 4096
MEMORY_LIMIT_MB, ECHO_LIMIT_S = 300.0, 2.0


@dataclass(frozen=True)
class Abused:
    """The effect of one kind of abuse.

    Attributes:
        echoes: legitimate associations that were served meanwhile.
        slowest_s: the longest of them, from connecting to the release.
        processor_s: processor time of the receiver meanwhile.
        peak_mb: resident memory of the receiver at its highest, since it began.
    """

    name: str
    echoes: int
    slowest_s: float
    processor_s: float
    peak_mb: float


class NotServedError(Exception):
    """A legitimate peer was not served."""


def abuse(port: int, process_id: int, mutants: int, slow: int, seed: int = 0) -> list[Abused]:
    """Abuse the receiver on a loopback port in every way.

    Args:
        port: of the receiver, whose AE title is `STILLSCAN` and which has no allow-list.
        process_id: of the receiver.
        mutants: how many broken conversations.
        slow: how many connections that say nothing or hardly anything.
        seed: of the mutations.

    Raises:
        NotServedError: if a legitimate peer is turned away, or the receiver ends.
    """
    kinds: dict[str, Callable[[], None]] = {
        "declared lengths": lambda: declare_lengths(port),
        "slow connections": lambda: connect_slowly(port, slow),
        "HTTP and junk": lambda: talk_of_something_else(port),
        "mutated PDUs": lambda: send_mutants(port, mutants, seed),
    }
    findings = []
    for name, act in kinds.items():
        before = processor_s(process_id)
        with echoing(port) as times:
            act()
        used = processor_s(process_id) - before
        findings.append(Abused(name, len(times), max(times), used, peak_mb(process_id)))
    return findings


def declare_lengths(port: int) -> None:
    """Send PDUs and data values with far too large or zero lengths, in and out of associations."""
    held = []
    for length in LENGTHS:
        for kind in KINDS:
            held.append(said(port, struct.pack(">BxL", kind, length) + JUNK[:4096]))
        with suppress(OSError):
            inside = associated(port)
            inside.sendall(struct.pack(">BxL", 4, length) + JUNK[:4096])
            held.append(inside)
        with suppress(OSError):
            inside = associated(port)
            inside.sendall(struct.pack(">BxLLBB", 4, 4096, length, 1, 0) + JUNK[:4090])
            held.append(inside)
    for connection in held:  # some more, as long as it is taken
        with suppress(OSError):
            connection.settimeout(0.2)
            connection.sendall(JUNK)
    for connection in held:
        connection.close()


def connect_slowly(port: int, count: int, seconds: float = 6.0) -> None:
    """Open connections that send nothing, or one byte at a time."""
    request = association_request()
    held = [said(port, b"") for _ in range(count)]
    began = time.monotonic()
    at = 0
    while time.monotonic() - began < seconds:
        for number, connection in enumerate(held):
            if number % 2:
                with suppress(OSError):
                    connection.sendall(request[at % len(request) :][:1])
        at += 1
        time.sleep(0.2)
    for connection in held:
        connection.close()


def talk_of_something_else(port: int) -> None:
    """Send HTTP, TLS, SSH and random bytes."""
    talk = random.Random(1)
    hello = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /studies HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        *(talk.randbytes(talk.randrange(1, 2000)) for _ in range(40)),
    )
    for words in hello:
        conversation(port, words)


def send_mutants(port: int, count: int, seed: int) -> None:
    """Send exchanges that are valid except for some bytes, each on its own connection."""
    for mutant in mutants(count, seed):
        while conversation(port, *mutant).startswith(TOO_MANY):
            time.sleep(0.05)  # all associations are in use; it has to be read nevertheless


def mutants(count: int, seed: int) -> Iterator[tuple[bytes, ...]]:
    """Yield broken exchanges: the bytes before and after the first answer.

    Half of them have a broken association request, half a right one and broken PDUs after it.
    """
    chance = random.Random(seed)
    request = association_request()
    for number in range(count):
        if number % 2:
            yield (broken(request, chance),)
        else:
            pdus = [*store_pdus(chance.randrange(1, 60)), release_request()]
            at = chance.randrange(len(pdus))
            pdus[at] = broken(pdus[at], chance)
            yield request, b"".join(pdus)


def broken(pdu: bytes, chance: random.Random) -> bytes:
    """Return the PDU with some bytes changed, removed or repeated, or with a wrong length."""
    changed = bytearray(pdu)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(changed))
        action = chance.randrange(5)
        if action == 0:
            changed[at] = chance.randrange(256)
        elif action == 1:
            changed[at] ^= 1 << chance.randrange(8)
        elif action == 2 and len(changed) > 20:
            del changed[at : at + chance.randrange(1, 12)]
        elif action == 3:
            changed[at:at] = changed[at : at + chance.randrange(1, 40)]
        else:
            struct.pack_into(">L", changed, min(at, len(changed) - 4), chance.choice(LENGTHS))
    return bytes(changed)


def conversation(port: int, *words: bytes) -> bytes:
    """Send the first part, wait for an answer, send the rest, close; return the answer."""
    connection = said(port, words[0])
    answer = b""
    with suppress(OSError):
        connection.settimeout(0.2 if len(words) > 1 else 0.005)
        answer = connection.recv(4096)
        for more in words[1:]:
            connection.sendall(more)
            connection.settimeout(0.005)
            connection.recv(4096)
    connection.close()
    return answer


def said(port: int, words: bytes) -> socket.socket:
    """Open a connection and send something."""
    connection = socket.create_connection(("127.0.0.1", port), 5, source_address=(ABUSER, 0))
    with suppress(OSError):
        connection.sendall(words)
    return connection


def associated(port: int, transfer_syntax: str = EXPLICIT_LE) -> socket.socket:
    """Open a connection with an association."""
    connection = said(port, association_request(transfer_syntax))
    kind, length = struct.unpack(">BxL", received(connection, 6))
    received(connection, length)
    if kind != 2:
        raise ConnectionRefusedError(f"PDU of type {kind}")
    return connection


def received(connection: socket.socket, count: int) -> bytes:
    """Receive exactly `count` bytes.

    Raises:
        ConnectionError: if the connection ends before.
    """
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("closed")
        data += piece
    return data


def association_request(
    transfer_syntax: str = EXPLICIT_LE, *, calling: str = CALLING, called: str = CALLED
) -> bytes:
    """Build an A-ASSOCIATE-RQ for MR storage (context 1) and verification (context 3)."""
    contexts = b"".join(
        _item(
            0x20,
            bytes((number, 0, 0, 0))
            + _item(0x30, abstract.encode())
            + _item(0x40, transfer_syntax.encode()),
        )
        for number, abstract in ((1, MR_STORAGE), (3, VERIFICATION))
    )
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.4")
    body = (
        struct.pack(">HH", 1, 0)
        + called.ljust(16).encode()
        + calling.ljust(16).encode()
        + bytes(32)
        + _item(0x10, b"1.2.840.10008.3.1.1.1")
        + contexts
        + _item(0x50, user)
    )
    return struct.pack(">BxL", 1, len(body)) + body


def store_pdus(
    number: int, sop_instance_uid: str | None = None, data_set: bytes = b"\0" * 600
) -> list[bytes]:
    """Build a C-STORE-RQ and its data set, in three PDUs."""
    uid = f"1.2.3.{number}" if sop_instance_uid is None else sop_instance_uid
    elements = (
        _command(0x0002, _even(MR_STORAGE))
        + _command(0x0100, struct.pack("<H", 1))
        + _command(0x0110, struct.pack("<H", number))
        + _command(0x0700, struct.pack("<H", 0))
        + _command(0x0800, struct.pack("<H", 1))
        + _command(0x1000, _even(uid))
    )
    command = _command(0, struct.pack("<L", len(elements))) + elements
    half = len(data_set) // 2
    return [_data(3, command), _data(0, data_set[:half]), _data(2, data_set[half:])]


def release_request() -> bytes:
    """Build an A-RELEASE-RQ."""
    return struct.pack(">BxL4x", 5, 4)


@contextmanager
def echoing(port: int) -> Iterator[list[float]]:
    """Run a legitimate peer that sends C-ECHO continuously; yield the durations in seconds."""
    times: list[float] = []
    failures: list[str] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set() or not times:
            began = time.monotonic()
            if failure := echo(port):
                failures.append(failure)
                return
            times.append(time.monotonic() - began)
            done.wait(0.02)

    peer = threading.Thread(target=call)
    peer.start()
    try:
        yield times
    finally:
        done.set()
        peer.join()
    if failures:
        raise NotServedError(failures[0])


def echo(port: int, calling: str = "GOODPEER") -> str:
    """Associate, C-ECHO, release; return what went wrong, or an empty text."""
    entity = AE(calling)
    entity.add_requested_context(VERIFICATION)
    association = entity.associate("127.0.0.1", port, ae_title=CALLED)
    if not association.is_established:
        return "no association"
    status = association.send_c_echo()
    association.release()
    return "" if status and status.Status == 0 else "no C-ECHO"


def peak_mb(process_id: int) -> float:
    """Highest resident memory of a process since it began.

    Raises:
        NotServedError: if there is no such process.
    """
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
        (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    except (OSError, ValueError):
        raise NotServedError("the receiver has ended") from None
    return int(peak) / 1024


def processor_s(process_id: int) -> float:
    """Processor time that a process has used since it began, in seconds.

    Raises:
        NotServedError: if there is no such process.
    """
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        raise NotServedError("the receiver has ended") from None
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def pynetdicom_receiver(folder: Path, port: int) -> Iterator[int]:
    """Run a receiver made of pynetdicom's acceptor; yield its process ID."""
    words = [sys.executable, "-m", "bench.robustness.pynetdicom_receiver", str(port), str(folder)]
    with subprocess.Popen(words) as process:
        try:
            deadline = time.monotonic() + 30
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotServedError("the receiver does not start")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.kill()


def running_receiver(folder: Path, settings: ReceiverSection) -> AbstractContextManager[int]:
    """Run a receiver in a process of its own; the context is its process ID."""
    whole = GatewaySettings(data=folder, receiver=settings, storage=StorageSection(1.0))
    return running_part("receiver", whole, settings.port)


@contextmanager
def running_part(name: str, settings: GatewaySettings, port: int) -> Iterator[int]:
    """Run a process of the gateway that listens on a port; yield its process ID."""
    part = Part(name, settings)
    part.start()
    process_id = part.process_id
    assert process_id is not None, "a part that was started has a process"
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            if part.has_ended() is not None or time.monotonic() > deadline:
                raise NotServedError(f"the process {name} does not start")
            time.sleep(0.05)
        yield process_id
    finally:
        part.stop()
        deadline = time.monotonic() + settings.receiver.drain_s + 5
        while part.process_id is not None and part.has_ended() is None:
            if time.monotonic() > deadline:
                part.kill()
            time.sleep(0.05)


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _command(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, number, len(value)) + value


def _even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _data(control: int, data: bytes) -> bytes:
    body = struct.pack(">LBB", len(data) + 2, 1, control) + data
    return struct.pack(">BxL", 4, len(body)) + body


def main() -> None:
    """Abuse a receiver and print the effect; the exit status tells whether it passed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.robustness.network_abuse", description=__doc__
    )
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=200)
    parser.add_argument(
        "--pynetdicom", action="store_true", help="abuse a receiver of pynetdicom instead"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("STILLSCAN_LOG_LEVEL", "error")  # it would log much
    settings = ReceiverSection(port=free_port(), drain_s=1.0)
    with tempfile.TemporaryDirectory() as folder:
        receiver = (
            pynetdicom_receiver(Path(folder), settings.port)
            if arguments.pynetdicom
            else running_receiver(Path(folder), settings)
        )
        with receiver as process_id:
            findings = abuse(settings.port, process_id, arguments.mutants, arguments.slow)
    print(f"{'abuse':<20}{'echoes':>8}{'slowest':>10}{'processor':>12}{'peak memory':>14}")
    for each in findings:
        print(
            f"{each.name:<20}{each.echoes:>8}{each.slowest_s:>8.2f} s{each.processor_s:>10.1f} s"
            f"{each.peak_mb:>11.0f} MB"
        )
    held = all(
        each.slowest_s < ECHO_LIMIT_S and each.peak_mb < MEMORY_LIMIT_MB for each in findings
    )
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()

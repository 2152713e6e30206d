"""Runs one reading process and exchanges messages with it over a socket.

Its answers are not trusted: lengths are bounded, types are checked, and a process whose answer is
not valid is ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import stillscan
from stillscan.operators.errors import InputError, input_error
from stillscan.operators.reading.limits import MAX_HEADER_BYTES

MAX_ANSWER_BYTES, MAX_MESSAGE = 2**25, 500  # 60,000 frames
CHILD = (
    "import json, sys; sys.path[:], limits = json.loads(sys.argv[1]); "
    "from stillscan.operators.reading.sandbox.main import serve; serve(**limits)"
)
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Limits:
    """The resources that the reading process may use for one file.

    Attributes:
        address_space: bytes; plus 16 times a frame, once the size of the frame is checked, and 16
            times the file where it is smaller than the largest header.
        cpu_s, wall_s: seconds; plus one for every `bytes_per_s` bytes of a file, up to the largest
            header, and of a decoded frame.
    """

    address_space: int = 768 * 2**20
    cpu_s: int = 8
    wall_s: float = 9.0
    bytes_per_s: int = 2**21  # JPEG 2000 decodes three times as fast on an idle machine


class Wanted(NamedTuple):
    """A request for a frame of a file, or, with None, for the attributes of the file."""

    path: Path
    frame: int | None
    with_header: bool


class SandboxMissingError(InputError):
    """The sandbox that reads DICOM needs an operating system with limits for processes."""

    reason = "sandbox-missing"


class ProcessLostError(Exception):
    """The reading process ended, takes too long or sent an answer that is not valid."""


@dataclass(frozen=True)
class Answer:
    """An answer about one file: a fault, its attributes, or a decoded frame."""

    fault: InputError | None = None
    content: dict[str, Any] | None = None
    sop_instance_uid: str = ""
    header: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)


class ReadingProcess:
    """A running `stillscan.operators.reading.sandbox.main`, and the socket to it."""

    def __init__(self, limits: Limits) -> None:
        """Start the process.

        Raises:
            SandboxMissingError: on Windows, which has neither limits nor sockets as standard input.
        """
        if os.name == "nt":
            raise SandboxMissingError(
                "DICOM is read on Linux and macOS; on Windows use WSL, or NIfTI and arrays"
            )
        self._socket, other_end = socket.socketpair()
        names = ("address_space", "cpu_s", "bytes_per_s")
        start = {name: getattr(limits, name) for name in names}
        root = str(Path(stillscan.__path__[0]).resolve().parent)
        path = [root, *(entry for entry in sys.path if entry)]
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        with other_end:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", CHILD, json.dumps([path, start])],
                stdin=other_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment, **ENVIRONMENT},
            )

    def request(self, frames: Sequence[Wanted]) -> None:
        """Request these frames; as many answers follow.

        Raises:
            ProcessLostError: if the process ended.
        """
        body = json.dumps([(os.fspath(each.path), *each[1:]) for each in frames]).encode()
        self._socket.settimeout(None)
        try:
            self._socket.sendall(len(body).to_bytes(4, "big") + body)
        except OSError as error:
            raise ProcessLostError(self._cause_of_end()) from error

    def answer(self, wall_s: float, frame_bytes: int) -> Answer:
        """Return the next answer.

        Raises:
            ProcessLostError: if no answer comes in time, or one that is not valid.
        """
        deadline = time.monotonic() + wall_s
        size = int.from_bytes(self._receive(4, deadline, wall_s), "big")
        if size > MAX_ANSWER_BYTES:
            raise ProcessLostError("the reading process sent an invalid answer")
        try:
            content = json.loads(self._receive(size, deadline, wall_s))
            fault = None if content["fault"] is None else _fault(*content["fault"])
        except (ValueError, KeyError, TypeError) as error:
            raise ProcessLostError("the reading process sent an invalid answer") from error
        if fault is not None or "header" not in content:
            return Answer(fault, content)
        header_bytes = content["header"]
        if type(header_bytes) is not int or not 0 <= header_bytes <= 2 * MAX_HEADER_BYTES:
            raise ProcessLostError("the reading process sent an invalid answer")
        if content.get("stored") != frame_bytes or "sop_instance_uid" not in content:
            raise ProcessLostError("the reading process sent an invalid answer")
        header = self._receive(header_bytes, deadline, wall_s)
        stored = self._receive(frame_bytes, deadline, wall_s)
        return Answer(None, content, str(content["sop_instance_uid"]), header, stored)

    def has_system_call_filter(self) -> bool:
        """Whether the system restricts the calls of the process; false before its first answer."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return False
        return "\nSeccomp:\t2\n" in status

    def end(self) -> None:
        """Close the socket, which ends the process; kill it if it does not end."""
        self._socket.close()
        self.process.kill()
        self.process.wait()

    def _receive(self, count: int, deadline: float, wall_s: float) -> bytearray:
        buffer = bytearray(count)
        rest = memoryview(buffer)
        while rest:
            left = deadline - time.monotonic()
            self._socket.settimeout(max(left, 0.001))
            try:
                received = self._socket.recv_into(rest)
            except TimeoutError as error:
                raise ProcessLostError(f"was not read within {wall_s:.0f} s") from error
            except OSError as error:
                raise ProcessLostError(self._cause_of_end()) from error
            if not received:
                raise ProcessLostError(self._cause_of_end())
            rest = rest[received:]
        return buffer

    def _cause_of_end(self) -> str:
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the reading process closed its connection"
        if code == -signal.SIGXCPU:
            return "took more processor time than is allowed for a file"
        if code < 0:
            return f"ended the reading process ({signal.Signals(-code).name})"
        return f"ended the reading process (exit status {code})"


def _fault(reason: str, message: str) -> InputError:
    return input_error(reason, message[:MAX_MESSAGE])

"""Files are parsed and decoded in a child process, so that a hostile one cannot hurt this one (S7).

with Decoder() as decoder:                  # starts the child: do it before importing torch
    for path, record in decoder.scan(files): ...
    headers, stored = decoder.read([(path, 0)])
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import pydicom.config
from pydicom import Dataset
from pydicom.filereader import read_dataset

from operators.errors import DecoderStoppedError, InputError, input_error
from operators.file_source import MAX_HEADER_BYTES, most_header_bytes
from operators.instance import FrameAttributes, Identification, ImageAttributes, Instance

# Values stay as the scanner wrote them, and what pydicom says of them could quote them (S5)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module=r"pydicom\.")

BATCH = 64  # files in one request
MAX_ANSWER_BYTES, MAX_MESSAGE = 2**25, 500  # 60,000 frames
CHILD = (
    "import json, sys; sys.path[:], limits = json.loads(sys.argv[1]); "
    "from operators.decoding_child import serve; serve(**limits)"
)
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Limits:
    """What the child may use for one file.

    Attributes:
        address_space: bytes; 16 times a frame come on top, once the frame's size is found true,
            and 16 times the file where it is smaller than the largest header.
        cpu_s, wall_s: seconds; one more for every `bytes_per_s` of a file, up to the largest
            header, and of a frame that is decoded.
    """

    address_space: int = 768 * 2**20
    cpu_s: int = 8
    wall_s: float = 9.0
    bytes_per_s: int = 2**21  # JPEG 2000 decodes three times as fast on a machine with nothing else


class Scanned(NamedTuple):
    """What is known of one file: all, or who it is and its fault, or its fault alone."""

    path: Path
    known: Identification | None
    image: ImageAttributes | None
    frames: tuple[FrameAttributes, ...]
    fault: InputError | None

    @property
    def instance(self) -> Instance | None:
        """The image that the file holds, None if something is wrong with it."""
        if self.known is None or self.image is None or self.fault is not None:
            return None
        return Instance(self.path, self.known, self.image, self.frames)


class DecodedFrame(NamedTuple):
    """One frame as the child decoded it.

    Attributes:
        sop_instance_uid: of its instance.
        header: the clean header of the instance in Explicit VR Little Endian, without pixel data;
            empty where the frame before has it, or who asks.
        stored: its stored values in little endian.
    """

    sop_instance_uid: str
    header: bytearray
    stored: bytearray

    def dataset(self) -> Dataset:
        """The header as a data set whose values stay raw bytes until somebody asks for them."""
        return read_dataset(BytesIO(self.header), is_implicit_VR=False, is_little_endian=True)


class Decoder:
    """Parses and decodes files in a limited child process; safe to use from several threads.

    A file that ends the child, or for which it takes too long, is reported as that file's fault;
    the child is started anew for the next.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Prepare a decoder; its child starts with the `with` block."""
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._closed = False

    def __enter__(self) -> Self:
        """Start the child."""
        with self._lock:
            self._running_child()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self.close()

    def close(self) -> None:
        """End the child; nothing can be read afterwards."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.end()
                self._child = None

    @property
    def process_id(self) -> int | None:
        """Of the child that runs now."""
        return None if self._child is None else self._child.process.pid

    def scan(self, paths: Iterable[Path]) -> Iterator[Scanned]:
        """What is known of each file, in the order given; no pixels are read."""
        remaining = iter(paths)
        while batch := list(islice(remaining, BATCH)):
            with self._lock:
                asked = self._ask([_Wanted(path, None, False) for path in batch], 0)
            answers = [_scanned(answer) for answer in asked]
            yield from (scanned._replace(path=p) for scanned, p in zip(answers, batch, strict=True))

    def read(
        self, frames: Sequence[tuple[Path, int]], frame_bytes: int, held: Path | None = None
    ) -> list[DecodedFrame]:
        """Headers and stored values of these frames, each `frame_bytes` long.

        Frames of one file that follow each other have one header, that of the first of them; it is
        left out for the file `held`, of which it is there already.

        Raises:
            InputError: the first that cannot be read, naming its file.
        """
        before = [held, *(path for path, _ in frames)]
        wanted = [
            _Wanted(path, frame, path != last)
            for (path, frame), last in zip(frames, before[:-1], strict=True)
        ]
        with self._lock:
            answers = self._ask(wanted, frame_bytes)
        for (path, _), answer in zip(frames, answers, strict=True):
            if answer.fault is not None:
                raise type(answer.fault)(f"{path.name}: {answer.fault}")
        return [DecodedFrame(each.sop_instance_uid, each.header, each.stored) for each in answers]

    def _ask(self, frames: Sequence[_Wanted], frame_bytes: int) -> list[_Answered]:
        """One answer for each file, also for those over which the child died."""
        answers: list[_Answered] = []
        while len(answers) < len(frames):
            child = self._running_child()
            try:
                child.request(frames[len(answers) :])
                while len(answers) < len(frames):
                    wall_s = self._wall_s(frames[len(answers)].path, frame_bytes)
                    answers.append(child.answer(wall_s, frame_bytes))
            except _ChildLostError as lost:
                child.end()
                self._child = None
                answers.append(_Answered(fault=DecoderStoppedError(str(lost))))
            except BaseException:
                child.end()  # answers to this request must not be taken for those to the next
                self._child = None
                raise
        return answers

    def _wall_s(self, path: Path, frame_bytes: int) -> float:
        size = most_header_bytes(os.fspath(path)) + frame_bytes
        return self.limits.wall_s + size / self.limits.bytes_per_s

    def _running_child(self) -> _Child:
        if self._closed:
            raise ValueError("the decoder is closed")
        if self._child is not None and self._child.process.poll() is not None:
            self._child.end()  # it died between two requests: no file is to blame
            self._child = None
        if self._child is None:
            self._child = _Child(self.limits)
        return self._child


class _Wanted(NamedTuple):
    """A frame of a file, or None for what is known of the file."""

    path: Path
    frame: int | None
    with_header: bool


class _ChildLostError(Exception):
    """The child died, or takes too long, or does not make sense."""


@dataclass(frozen=True)
class _Answered:
    fault: InputError | None = None
    content: dict[str, Any] | None = None
    sop_instance_uid: str = ""
    header: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)


class _Child:
    """One run of operators.decoding_child, and the socket to it."""

    def __init__(self, limits: Limits) -> None:
        self._socket, other_end = socket.socketpair()
        names = ("address_space", "cpu_s", "bytes_per_s")
        start = {name: getattr(limits, name) for name in names}
        root = str(Path(__file__).resolve().parent.parent)
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

    def request(self, frames: Sequence[_Wanted]) -> None:
        body = json.dumps([(os.fspath(each.path), *each[1:]) for each in frames]).encode()
        self._socket.settimeout(None)
        try:
            self._socket.sendall(len(body).to_bytes(4, "big") + body)
        except OSError as error:
            raise _ChildLostError(self._cause_of_death()) from error

    def answer(self, wall_s: float, frame_bytes: int) -> _Answered:
        deadline = time.monotonic() + wall_s
        size = int.from_bytes(self._receive(4, deadline, wall_s), "big")
        if size > MAX_ANSWER_BYTES:
            raise _ChildLostError("the reading process sent nonsense")
        try:
            content = json.loads(self._receive(size, deadline, wall_s))
            fault = None if content["fault"] is None else _fault(*content["fault"])
        except (ValueError, KeyError, TypeError) as error:
            raise _ChildLostError("the reading process sent nonsense") from error
        if fault is not None or "header" not in content:
            return _Answered(fault, content)
        header_bytes = content["header"]
        if type(header_bytes) is not int or not 0 <= header_bytes <= 2 * MAX_HEADER_BYTES:
            raise _ChildLostError("the reading process sent nonsense")
        if content.get("stored") != frame_bytes or "sop_instance_uid" not in content:
            raise _ChildLostError("the reading process sent nonsense")
        header = self._receive(header_bytes, deadline, wall_s)
        stored = self._receive(frame_bytes, deadline, wall_s)
        return _Answered(None, content, str(content["sop_instance_uid"]), header, stored)

    def end(self) -> None:
        """Close the socket, which ends the child; it is killed where it does not listen."""
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
                raise _ChildLostError(f"was not read within {wall_s:.0f} s") from error
            except OSError as error:
                raise _ChildLostError(self._cause_of_death()) from error
            if not received:
                raise _ChildLostError(self._cause_of_death())
            rest = rest[received:]
        return buffer

    def _cause_of_death(self) -> str:
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the reading process stopped speaking over it"
        if code == -signal.SIGXCPU:
            return "took more processor time than a file may"
        if code < 0:
            return f"ended the reading process ({signal.Signals(-code).name})"
        return f"ended the reading process (exit status {code})"


def _fault(reason: str, message: str) -> InputError:
    return input_error(reason, message[:MAX_MESSAGE])


def _scanned(answer: _Answered) -> Scanned:
    content = answer.content or {}
    known, image = content.get("known"), content.get("image")
    try:
        return Scanned(
            path=Path(),
            known=None if known is None else Identification.from_answer(known),
            image=None if image is None else ImageAttributes.from_answer(image),
            frames=tuple(map(FrameAttributes.from_answer, content.get("frames", ()))),
            fault=answer.fault,
        )
    except ValueError:
        nonsense = DecoderStoppedError("the reading process sent nonsense")
        return Scanned(Path(), None, None, (), nonsense)

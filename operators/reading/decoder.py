"""Parses and decodes files in a child process with limits, to isolate hostile files (S7).

with Decoder() as decoder:                  # starts the child process: before importing torch
    for path, record in decoder.scan(files): ...
    headers, stored = decoder.read([(path, 0)])
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pydicom.config
from pydicom import Dataset

from stillscan.operators.dicom.attributes import data_set
from stillscan.operators.errors import DecoderStoppedError, InputError
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.limits import most_header_bytes
from stillscan.operators.reading.records import (
    FrameAttributes,
    Identification,
    ImageAttributes,
    Instance,
)
from stillscan.operators.reading.sandbox_process import (
    Answer,
    Limits,
    ProcessLostError,
    ReadingProcess,
    Wanted,
)

# Values stay as the scanner wrote them, and what pydicom says of them could quote them (S5)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").propagate = False
warnings.filterwarnings("ignore", module=r"pydicom\.")

BATCH = 64  # files in one request
log = logging.getLogger("stillscan")


class Scanned(NamedTuple):
    """Result for one file: its attributes, or a fault (with its identification if it was read)."""

    path: Path
    known: Identification | None
    image: ImageAttributes | None
    frames: tuple[FrameAttributes, ...]
    fault: InputError | None

    @property
    def instance(self) -> Instance | None:
        """The image in the file; None if the file has a fault."""
        if self.known is None or self.image is None or self.fault is not None:
            return None
        return Instance(self.path, self.known, self.image, self.frames)


class DecodedFrame(NamedTuple):
    """One decoded frame.

    Attributes:
        sop_instance_uid: of its instance.
        header: header of the instance in Explicit VR Little Endian, without pixel data; empty if
            the preceding frame or the caller already has it.
        stored: stored values in little endian.
    """

    sop_instance_uid: str
    header: bytearray
    stored: bytearray

    def dataset(self) -> Dataset:
        """The header as a data set; values stay raw bytes until they are used."""
        return data_set(self.header)


class Decoder:
    """Parses and decodes files in a limited child process; safe to use from several threads.

    If a file crashes the child process or takes too long, that is reported as a fault of the file,
    and the child process is restarted for the next file.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Prepare a decoder; its child process starts with the `with` block."""
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._child: ReadingProcess | None = None
        self._confinement_known = False
        self._closed = False

    def __enter__(self) -> Self:
        """Start the child process."""
        with self._lock:
            self._running_process()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child process."""
        self.close()

    def close(self) -> None:
        """End the child process; nothing can be read afterwards."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.end()
                self._child = None

    @property
    def process_id(self) -> int | None:
        """Process ID of the child process."""
        return None if self._child is None else self._child.process.pid

    def scan(self, paths: Iterable[Path]) -> Iterator[Scanned]:
        """Read the attributes of each file, in the order given, without pixels."""
        remaining = iter(paths)
        while batch := list(islice(remaining, BATCH)):
            with self._lock:
                asked = self._ask([Wanted(path, None, False) for path in batch], 0)
            answers = [_scanned(answer) for answer in asked]
            yield from (scanned._replace(path=p) for scanned, p in zip(answers, batch, strict=True))

    def read(
        self, frames: Sequence[tuple[Path, int]], frame_bytes: int, held: Path | None = None
    ) -> list[DecodedFrame]:
        """Read headers and stored values of these frames, each `frame_bytes` long.

        Of consecutive frames of one file only the first has the header; for the file `held`, whose
        header the caller already has, none has.

        Raises:
            InputError: for the first frame that cannot be read, with the name of its file.
        """
        before = [held, *(path for path, _ in frames)]
        wanted = [
            Wanted(path, frame, path != last)
            for (path, frame), last in zip(frames, before[:-1], strict=True)
        ]
        with self._lock:
            answers = self._ask(wanted, frame_bytes)
        for (path, _), answer in zip(frames, answers, strict=True):
            if answer.fault is not None:
                raise type(answer.fault)(f"{shown(path)}: {answer.fault}")
        return [DecodedFrame(each.sop_instance_uid, each.header, each.stored) for each in answers]

    def _ask(self, frames: Sequence[Wanted], frame_bytes: int) -> list[Answer]:
        """Yield one answer per file, also for a file that crashed the child process."""
        answers: list[Answer] = []
        while len(answers) < len(frames):
            child = self._running_process()
            try:
                child.request(frames[len(answers) :])
                while len(answers) < len(frames):
                    wall_s = self._wall_s(frames[len(answers)].path, frame_bytes)
                    answers.append(child.answer(wall_s, frame_bytes))
                    self._tell_if_not_confined(child)
            except ProcessLostError as lost:
                child.end()
                self._child = None
                answers.append(Answer(fault=DecoderStoppedError(str(lost))))
            except BaseException:
                child.end()  # its remaining answers do not belong to the next request
                self._child = None
                raise
        return answers

    def _tell_if_not_confined(self, child: ReadingProcess) -> None:
        if not self._confinement_known and not child.has_system_call_filter():
            log.warning(
                "this system does not restrict the system calls of the reading process (seccomp, "
                "Linux on x86-64): it is limited in memory, time and size of files only"
            )
        self._confinement_known = True

    def _wall_s(self, path: Path, frame_bytes: int) -> float:
        size = most_header_bytes(os.fspath(path)) + frame_bytes
        return self.limits.wall_s + size / self.limits.bytes_per_s

    def _running_process(self) -> ReadingProcess:
        if self._closed:
            raise ValueError("the decoder is closed")
        if self._child is not None and self._child.process.poll() is not None:
            self._child.end()  # it ended between two requests: not the fault of a file
            self._child = None
        if self._child is None:
            self._child = ReadingProcess(self.limits)
        return self._child


def _scanned(answer: Answer) -> Scanned:
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
        nonsense = DecoderStoppedError("the reading process sent an invalid answer")
        return Scanned(Path(), None, None, (), nonsense)

"""WADO-RS (PS3.18 10.4): the instances of a series, streamed into files as they come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Protocol

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint, require_ok
from stillscan.operators.output_faults import naming_output_faults

CHUNK = 2**20
MAX_PART_HEADER = 2**14
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{1,70}", re.ASCII)  # RFC 2046 5.1.1
KEEP = "keep a fetched series"
ACCEPT = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


class Stream(Protocol):
    """What bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most so many; none at the end."""
        ...


def retrieve(endpoint: Endpoint, path: str, folder: Path) -> int:
    """Fetch what lies at a path (a series, an instance) into `folder`, one file per instance.

    Args:
        endpoint: of the archive.
        path: such as `/studies/1.2/series/1.2.3`.
        folder: is there; gets `000001.dcm`, ...

    Returns:
        How many instances came.

    Raises:
        DicomWebError: if the answer is no multipart message of DICOM, or breaks off.
        OutputError: if a file cannot be written.
    """
    number = 0
    with endpoint.request(path, ACCEPT) as answer:
        require_ok(answer, "fetching a series")
        parts = Parts(answer, _boundary(answer.headers.get("Content-Type", "")))
        while parts.begin():
            number += 1
            _write(parts, folder / f"{number:06d}.dcm")
    return number


def _write(parts: Parts, path: Path) -> None:
    """What the disk says is named as such; what the network says is for the request."""
    with naming_output_faults(KEEP):
        file = path.open("xb")
    with file:
        for piece in parts.body():
            with naming_output_faults(KEEP):
                file.write(piece)


def _boundary(content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if (
        message.get_content_type() != "multipart/related"
        or not isinstance(boundary, str)
        or not BOUNDARY.fullmatch(boundary)
    ):
        raise DicomWebError("not-dicomweb", "a series came that is no multipart message")
    return boundary


class Parts:
    """A multipart message (RFC 2046 5.1), a part after the other, never whole in memory."""

    def __init__(self, stream: Stream, boundary: str) -> None:
        """Nothing is read yet."""
        self._stream = stream
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._buffer = b"\r\n"  # so that the first delimiter looks like the others
        self._begun = False

    def begin(self) -> bool:
        """Go to the body of the next part; False where there is none any more.

        Raises:
            DicomWebError: if the message breaks off or makes no sense.
        """
        if not self._begun:
            self._begun = True
            for _ in self.body():
                pass  # a preamble is to be ignored
        while len(self._buffer) < 2:
            self._more()
        if self._buffer.startswith(b"--"):
            return False
        while b"\r\n\r\n" not in self._buffer:
            if len(self._buffer) > MAX_PART_HEADER + CHUNK:
                raise DicomWebError("not-dicomweb", "a part of a series has an endless header")
            self._more()
        _, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return True

    def body(self) -> Iterator[bytes]:
        """The bytes of this part.

        Raises:
            DicomWebError: if the message breaks off.
        """
        keep = len(self._delimiter) - 1
        while True:
            end = self._buffer.find(self._delimiter)
            if end >= 0:
                piece = self._buffer[:end]
                self._buffer = self._buffer[end + len(self._delimiter) :]
                yield piece
                return
            if len(self._buffer) > keep:
                piece, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
                yield piece
            self._more()

    def _more(self) -> None:
        piece = self._stream.read(CHUNK)
        if not piece:
            raise DicomWebError("broken-off", "a series broke off while it was fetched")
        self._buffer += piece

"""Multipart messages (RFC 2046 section 5.1), read part by part, never whole in memory.

Used for WADO-RS answers and for STOW-RS requests to the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser

MOST_BOUNDARY = 200  # characters; RFC 2046 says 70; Orthanc sends 73
MOST_PART_HEAD = 2**13  # bytes, largest head of a part


class MultipartError(Exception):
    """The message violates RFC 2046; its text contains no patient data."""


class BrokenOffError(MultipartError):
    """The message ends before its last delimiter."""


@dataclass(frozen=True)
class Part:
    """One part of a message; `pieces` yields its body until the next part is requested."""

    content_type: str
    pieces: Iterator[bytes]


def boundary_of(headers: Message) -> bytes:
    """Return the boundary from the field Content-Type.

    Raises:
        MultipartError: if it is missing or invalid.
    """
    boundary = headers.get_boundary("")
    if not boundary or len(boundary) > MOST_BOUNDARY or not boundary.isascii():
        raise MultipartError("boundary is missing or invalid")
    return boundary.encode("ascii")


def parts(read: Callable[[], bytes], boundary: bytes) -> Iterator[Part]:
    """Yield the parts of a message; preamble and epilogue are skipped.

    Args:
        read: returns the next piece of the message, an empty one at its end.
        boundary: boundary between the parts.

    Raises:
        BrokenOffError: if the message ends early.
        MultipartError: if the head of a part is too large.
    """
    body = _Body(read, b"\r\n--" + boundary)
    use_up(body.until_delimiter())
    while body.another_part():
        head = BytesHeaderParser().parsebytes(body.head())
        yield Part(head.get_content_type(), pieces := body.until_delimiter())
        use_up(pieces)


def use_up(pieces: Iterator[bytes]) -> None:
    """Read to the end and discard the data."""
    for _ in pieces:
        pass


class _Body:
    """A message whose parts are separated by a delimiter."""

    def __init__(self, read: Callable[[], bytes], delimiter: bytes) -> None:
        self._read = read
        self._delimiter = delimiter
        self._buffer = bytearray(b"\r\n")  # the message may begin with the first delimiter

    def until_delimiter(self) -> Iterator[bytes]:
        """Yield the data before the next delimiter, in pieces."""
        kept = len(self._delimiter) - 1
        while (at := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > kept:
                yield self._take(len(self._buffer) - kept)
            self._fill()
        yield self._take(at)
        del self._buffer[: len(self._delimiter)]

    def another_part(self) -> bool:
        """Return whether a part follows the delimiter just passed; otherwise the message ended."""
        while len(self._buffer) < 2:
            self._fill()
        return not self._buffer.startswith(b"--")

    def head(self) -> bytes:
        """Read the header fields of a part, with the empty line."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MOST_PART_HEAD:
                raise MultipartError("head of a part is too large")
            self._fill()
        return self._take(at + 4).lstrip(b" \t\r\n")

    def _take(self, count: int) -> bytes:
        piece = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return piece

    def _fill(self) -> None:
        piece = self._read()
        if not piece:
            raise BrokenOffError("the last part does not end")
        self._buffer += piece

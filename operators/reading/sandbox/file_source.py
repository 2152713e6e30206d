"""Reads one file ahead under limits; a deflated file is inflated as far as needed.

Runs in the reading process and imports the standard library alone.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator

from stillscan.operators.errors import (
    DamagedFileError,
    HeaderTooLargeError,
    TruncatedFileError,
    UnreadableFileError,
)
from stillscan.operators.reading.limits import MAX_HEADER_BYTES

FIRST_PIECE, LARGEST_PIECE = 2**15, 2**20  # read ahead as much as was needed so far


class FileSource:
    """A regular file, read ahead into `data` in pieces as the parser needs them."""

    def __init__(self, path: str) -> None:
        """Open `path` without blocking.

        Raises:
            UnreadableFileError: if it cannot be opened, or is a FIFO, a device or a folder.
        """
        try:
            self.file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise UnreadableFileError(f"cannot be opened ({error.strerror})") from error
        status = os.fstat(self.file)
        if not stat.S_ISREG(status.st_mode):
            os.close(self.file)
            raise UnreadableFileError("is not a regular file")
        self.size = status.st_size
        self.data = bytearray()
        self._inflater: zlib._Decompress | None = None
        self._packed_position = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)

    @property
    def inflated(self) -> bool:
        """Return whether `data` was inflated."""
        return self._inflater is not None

    def inflate_from(self, position: int) -> None:
        """Inflate the file from this position on (PS3.5 A.5); `data` then holds the result only."""
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._packed_position = position
        self.data = bytearray()

    def holds(self, stop: int) -> bool:
        """Read ahead to `stop` and return whether there are that many bytes."""
        while len(self.data) < stop:
            if not self._read_on(stop):
                return False
        return True

    def need(self, stop: int) -> None:
        """Read ahead to `stop`.

        Raises:
            TruncatedFileError: if the file ends before.
            HeaderTooLargeError: if `stop` is beyond the limit of a header.
        """
        if stop <= len(self.data):
            return
        if not self.inflated and stop > self.size:
            raise TruncatedFileError(f"ends at byte {self.size}, an element of it at byte {stop}")
        if stop > MAX_HEADER_BYTES:
            raise HeaderTooLargeError(f"has more than {MAX_HEADER_BYTES} bytes before its pixels")
        if not self.holds(stop):
            ended = len(self.data)
            raise TruncatedFileError(f"ends at byte {ended}, an element of it at byte {stop}")

    def value(self, start: int, length: int) -> bytes:
        """Return `length` bytes from `start`; the caller checks that the length is allowed.

        Raises:
            TruncatedFileError: if the file ends before.
        """
        if self.inflated:
            self.holds(start + length)
            value = bytes(memoryview(self.data)[start : start + length])
        else:
            value = b"".join(self._pieces(start, start + length))
        if len(value) != length:
            raise TruncatedFileError(
                f"ends {length - len(value)} bytes before the end of its pixel data"
            )
        return value

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop and (piece := os.pread(self.file, stop - start, start)):
            start += len(piece)
            yield piece

    def _read_on(self, stop: int) -> bool:
        ahead = min(max(len(self.data), FIRST_PIECE), LARGEST_PIECE)
        wanted = max(stop - len(self.data), ahead)
        if self._inflater is None:
            piece = os.pread(self.file, wanted, len(self.data))
        else:
            piece = self._inflate(self._inflater, wanted)
        self.data += piece
        return bool(piece)

    def _inflate(self, inflater: zlib._Decompress, wanted: int) -> bytes:
        """Return at least one byte and at most `wanted`; none at the end of the stream."""
        while not inflater.eof:
            packed = inflater.unconsumed_tail
            if not packed:
                packed = os.pread(self.file, FIRST_PIECE, self._packed_position)
                self._packed_position += len(packed)
            try:
                piece = inflater.decompress(packed, wanted)
            except zlib.error as error:
                raise DamagedFileError("declares a deflate stream and contains none") from error
            if piece:
                return piece
            if not packed and not inflater.eof:
                raise TruncatedFileError("ends inside its deflate stream")
        return b""

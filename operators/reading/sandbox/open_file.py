"""Opens the file whose frames are read, and keeps it open and parsed until the next file.

Runs in the reading process and imports the standard library alone.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stillscan.operators.dicom.elements import serialised, text_in
from stillscan.operators.errors import FileChangedError, UnreadableFileError
from stillscan.operators.reading.records import UIDS
from stillscan.operators.reading.sandbox.file_source import FileSource
from stillscan.operators.reading.sandbox.image_attributes import image_attributes
from stillscan.operators.reading.sandbox.parser import parse_file
from stillscan.operators.reading.sandbox.pixel_data import read_frame, require_pixel_data

Stamp = tuple[int, int, int, int]


class FrameFile:
    """A parsed file; its size is checked before anything is allocated for its frames."""

    def __init__(self, path: str) -> None:
        """Open and parse `path`.

        Raises:
            InputError: if it holds no image that can be decoded.
        """
        self.path = path
        self._source = FileSource(path)
        try:
            with no_garbage_collection():
                self._parsed = parse_file(self._source)
                tags = self._parsed.tags
                self._uid = text_in(tags, UIDS["SOPInstanceUID"])
                self.image = image_attributes(tags)
                self._pixel_data = require_pixel_data(self._parsed, self.image)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    @property
    def stamp(self) -> Stamp:
        """Return a value that changes when the file is written."""
        return _stamp(os.fstat(self._source.file))

    def read(self, frame: int, with_header: bool) -> tuple[dict[str, Any], list[bytes]]:
        """Return the stored values of one frame and, if requested, the clean header.

        Raises:
            InputError: if the frame does not exist or cannot be decoded.
        """
        if frame >= self.image.frames:
            raise FileChangedError(f"has {self.image.frames} frames now, and had {frame + 1}")
        stored = read_frame(self._parsed, self._pixel_data, self.image, frame)
        header = serialised(self._parsed.elements) if with_header else b""
        sizes = {"header": len(header), "stored": len(stored)}
        return {"sop_instance_uid": self._uid, **sizes, "fault": None}, [header, stored]


class HeldFile:
    """Keeps the last file open, and opens another one when it is requested."""

    def __init__(self) -> None:
        """Start without a file."""
        self._file: FrameFile | None = None
        self._stamp: Stamp | None = None

    def opened(self, path: str) -> FrameFile:
        """Return the file at `path` as it is now.

        Raises:
            InputError: if it holds no image that can be decoded.
        """
        if self._file is None or self._file.path != path or self._stamp != _stamp_at(path):
            self.close()
            self._file = FrameFile(path)
            self._stamp = self._file.stamp
        return self._file

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, as parsed data has no cycles; it takes 5 times the parsing."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _stamp_at(path: str) -> Stamp:
    try:
        return _stamp(Path(path).stat())
    except OSError as error:
        raise UnreadableFileError(f"cannot be opened ({error.strerror})") from error


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

"""Lists the files of an input folder: regular ones only, so that no FIFO or device is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stillscan.operators.errors import InputError, UnreadableFileError


@dataclass
class InputFiles:
    """The contents of a folder: files in a fixed order, and entries that are skipped."""

    files: list[Path] = field(default_factory=list)
    passed_over: list[tuple[Path, InputError]] = field(default_factory=list)


def input_files(source: Path) -> InputFiles:
    """Return all regular files under a folder, or `source` itself if it is a file.

    Links are followed (workflow engines hand over folders of links), each folder once.
    """
    found = InputFiles()
    for path, fault in walk(source):
        if fault is None:
            found.files.append(path)
        else:
            found.passed_over.append((path, fault))
    return found


def walk(source: Path) -> Iterator[tuple[Path, InputError | None]]:
    """Yield the regular files of `input_files`, and the skipped entries with their fault."""
    visited: set[tuple[int, int]] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) not in visited:
                    visited.add((status.st_dev, status.st_ino))
                    waiting += sorted((Path(entry) for entry in os.scandir(path)), reverse=True)
            elif stat.S_ISREG(status.st_mode):
                yield path, None
            else:
                yield path, UnreadableFileError("is not a regular file")
        except OSError as error:
            yield path, UnreadableFileError(f"cannot be read ({error.strerror})")

"""Writes files that survive a power failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def sync(path: Path) -> None:
    """Wait until the content of this file, or the names in this folder, are on the disk.

    Raises:
        OSError: if the file system reports an error.
    """
    if os.name == "nt" and path.is_dir():  # Windows opens no folders; it syncs names by itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file with `write` and wait until it is on the disk; its name needs `sync(folder)`.

    Raises:
        OSError: if the file system reports an error.
    """
    with path.open("wb") as file:
        write(file)
    sync(path)

"""Checks the free space of the file system of the spool."""

from __future__ import annotations

import os
from pathlib import Path

MEASURED_EVERY_BYTES = 2**24  # bytes written between two queries of the file system


class DiskGuard:
    """Tells whether the file system has room, without querying it for every instance."""

    def __init__(self, folder: Path, most_used: float) -> None:
        """`most_used` is the share of the file system that may be in use."""
        self._folder = folder
        self._most_used = most_used
        self._unmeasured = MEASURED_EVERY_BYTES
        self._full = False

    def has_room(self) -> bool:
        """Whether the used share is below the limit; while it is not, every call queries it."""
        if self._full or self._unmeasured >= MEASURED_EVERY_BYTES:
            self._unmeasured = 0
            self._full = used_share(self._folder) >= self._most_used
        return not self._full

    def has_room_now(self) -> bool:
        """The same, always with a query of the file system."""
        return used_share(self._folder) < self._most_used

    def wrote(self, count: int) -> None:
        """Count bytes towards the next measurement."""
        self._unmeasured += count


def used_share(folder: Path) -> float:
    """Used share of the file system as `df` counts it, or of its inodes if that is larger.

    A file system that cannot be queried counts as full.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1.0
    shares = [1 - found.f_bavail / max(found.f_blocks - found.f_bfree + found.f_bavail, 1)]
    if found.f_files:
        shares.append(1 - found.f_ffree / found.f_files)
    return max(shares)

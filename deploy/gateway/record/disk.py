"""How full the disk of the spool is."""

from __future__ import annotations

import os
from pathlib import Path

MEASURED_EVERY_BYTES = 2**24  # how much may be written before the file system is asked again


class DiskGuard:
    """Knows whether the file system has room; asks it seldom."""

    def __init__(self, folder: Path, most_used: float) -> None:
        """`most_used` is the share of the file system that may be in use."""
        self._folder = folder
        self._most_used = most_used
        self._unmeasured = MEASURED_EVERY_BYTES
        self._full = False

    def has_room(self) -> bool:
        """Whether less than the share is in use; a full file system is asked every time."""
        if self._full or self._unmeasured >= MEASURED_EVERY_BYTES:
            self._unmeasured = 0
            self._full = used_share(self._folder) >= self._most_used
        return not self._full

    def has_room_now(self) -> bool:
        """The same, asked of the file system itself."""
        return used_share(self._folder) < self._most_used

    def wrote(self, count: int) -> None:
        """Count bytes towards the next measurement."""
        self._unmeasured += count


def used_share(folder: Path) -> float:
    """Share of the file system that is in use, as `df` counts it; of its inodes where it is more.

    A file system that cannot be asked counts as full.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return 1.0
    shares = [1 - found.f_bavail / max(found.f_blocks - found.f_bfree + found.f_bavail, 1)]
    if found.f_files:
        shares.append(1 - found.f_ffree / found.f_files)
    return max(shares)

"""Limits for the size of a header."""

from __future__ import annotations

from pathlib import Path

MAX_HEADER_BYTES = 64 * 2**20  # maximum length of everything before the pixel data


def most_header_bytes(path: str) -> int:
    """Return the largest possible size in bytes of the header of this file; 0 without a file."""
    try:
        return min(Path(path).stat().st_size, MAX_HEADER_BYTES)
    except OSError:
        return 0

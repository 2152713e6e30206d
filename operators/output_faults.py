"""Converts errors of the file system to errors with a reason code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from stillscan.operators.errors import DiskFullError, NotWritableError, OutputError


@contextmanager
def naming_output_faults(what: str) -> Iterator[None]:
    """Convert an `OSError` inside the block to an `OutputError`; `what` describes the action."""
    try:
        yield
    except OSError as error:
        leaf: type[OutputError] = OutputError
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            leaf = DiskFullError
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            leaf = NotWritableError
        raise leaf(f"could not {what}: {error.strerror or error}") from error

"""Log set-up: one plain line per message on standard error, never with values of a header."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

log = logging.getLogger("stillscan")

LEVELS = ("debug", "info", "warning", "error")


def set_up_logging(level: str) -> None:
    """Send Stillscan's log to standard error from `level` on, and silence the libraries.

    pydicom's warnings quote header values, so a warning of a library is shown only by its class and
    place, at level debug.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("stillscan: %(message)s"))
    log.handlers = [handler]
    log.setLevel(level.upper())
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    logging.getLogger("pydicom").propagate = False
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    log.debug("%s at %s:%d", category.__name__, filename, lineno)

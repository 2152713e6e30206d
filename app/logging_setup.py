"""Where messages go: one plain line each on stderr; nothing that may quote a header."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

log = logging.getLogger("stillscan")

LEVELS = ("debug", "info", "warning", "error")


def set_up_logging(level: str) -> None:
    """Send our log to stderr from `level` on, and quieten the libraries.

    pydicom quotes values of the header in its warnings, so a warning of a library is shown as its
    kind and place only, and only at level debug.
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

"""The log of the gateway: one JSON object per line on stderr, no patient data.

    {"time": "2026-01-31T12:00:00.123+00:00", "level": "info", "part": "worker", "message": "..."}

Members besides these four are UIDs, numbers and codes: `log.info("job done", extra={"job": 3})`.
What libraries log is not shown: it may quote a header.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

log = logging.getLogger("stillscan")

QUIET = ("pydicom", "pynetdicom", "highdicom")
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def __init__(self, part: str) -> None:
        """`part` is the process that logs."""
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        """The line; frames of an exception are shown without its message, which may quote."""
        extra = {key: value for key, value in vars(record).items() if key not in STANDARD}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": self._part,
            "message": record.getMessage(),
            **extra,
        }
        return json.dumps(line, ensure_ascii=True, default=str)


def set_up_logging(part: str, level: str) -> None:
    """Send our log to stderr from `level` on, and keep libraries silent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(part))
    log.handlers = [handler]
    log.setLevel(level.upper())
    log.propagate = False
    for name in QUIET:
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    warnings.simplefilter("ignore")  # pydicom quotes values of the header in its warnings

"""The log of the gateway: one JSON object per line on standard error, without patient data.

    {"time": "2026-01-31T12:00:00.123+00:00", "level": "info", "part": "worker", "message": "..."}

Further members are UIDs, numbers and codes: `log.info("job ended", extra={"job": 3})`. Messages of
libraries are not logged: they may quote header values.
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
        """The line; exceptions are not included, since their messages may quote header values."""
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
    """Log to standard error from `level` upwards, and silence the loggers of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(part))
    log.handlers = [handler]
    log.setLevel(level.upper())
    log.propagate = False
    for name in QUIET:
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    warnings.simplefilter("ignore")  # pydicom quotes values of the header in its warnings

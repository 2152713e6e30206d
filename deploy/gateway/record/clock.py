"""Corrects times in the record when the wall clock was set, so that nothing waits too long.

Times in the record are wall-clock times. When the clock is set, the times of open series are
shifted by the same amount, and times that lie in the future are set to now.
"""

from __future__ import annotations

import time

from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.settings import GatewaySettings

STEP_S = 2.0  # smaller changes are corrections by NTP

TO_NOW = (
    "UPDATE series SET first_at = :now WHERE first_at > :now",
    "UPDATE series SET last_at = :now WHERE last_at > :now",
    "UPDATE jobs SET created = :now WHERE created > :now",
    "UPDATE jobs SET started = :now WHERE started > :now",
    "UPDATE jobs SET finished = :now WHERE finished > :now",
    "UPDATE jobs SET not_before = :now "
    "WHERE not_before > :now + :backoff * (1 << min(attempts, 20))",
    "UPDATE deliveries SET finished = :now WHERE finished > :now",
    "UPDATE deliveries SET not_before = :now WHERE not_before > :now + :longest",
    "UPDATE quarantine SET since = :now WHERE since > :now",
)


class Clock:
    """Compares the wall clock with the monotonic clock in every round of the planner."""

    def __init__(self, database: Database, settings: GatewaySettings) -> None:
        """The first `tick` checks the times that an earlier process recorded."""
        self._database = database
        self._settings = settings
        self._ahead: float | None = None

    def tick(self) -> None:
        """Correct the record if the clock was set since the last call."""
        now = time.time()
        ahead = now - time.monotonic()
        moved = 0.0 if self._ahead is None else ahead - self._ahead
        if self._ahead is not None and abs(moved) < STEP_S:
            return
        self._ahead = ahead
        with self._database.transaction() as connection:
            if moved:
                connection.execute("UPDATE series SET last_at = last_at + ? WHERE open", (moved,))
                count(connection, {"clock_steps": 1})
            values = {
                "now": now,
                "backoff": self._settings.worker.backoff_s,
                "longest": max(
                    self._settings.sender.backoff_most_s, self._settings.sender.confirm_s
                ),
            }
            for statement in TO_NOW:
                connection.execute(statement, values)
        if moved:
            log.warning("the clock was set", extra={"seconds": round(moved, 1)})

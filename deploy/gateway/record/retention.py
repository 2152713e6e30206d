"""Retention: removes instances, results and records of finished series after the configured time.

Nothing is removed that a job or a delivery still needs.
"""

from __future__ import annotations

import shutil
import time

from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.quarantine import Quarantine
from stillscan.deploy.gateway.settings import Places, StorageSection

EVERY_S = 60.0
AT_ONCE = 500  # maximum number of series in one round, to keep it short

SERIES_TO_CLEAR = """
SELECT id FROM series WHERE NOT open AND last_at < :before
AND EXISTS (SELECT 1 FROM instances WHERE series = series.id AND there)
AND NOT EXISTS (SELECT 1 FROM jobs WHERE series = series.id
                AND (state IN ('queued', 'running') OR finished >= :before))
ORDER BY last_at LIMIT :most
"""
JOBS_TO_CLEAR = """
SELECT number FROM jobs WHERE NOT cleared AND finished < :before
AND state NOT IN ('queued', 'running')
AND NOT EXISTS (SELECT 1 FROM deliveries WHERE job = jobs.number
                AND (state IN ('waiting', 'sending', 'unconfirmed') OR finished >= :before))
ORDER BY number LIMIT :most
"""


class Retention:
    """Removes expired files and records once a minute."""

    def __init__(self, places: Places, database: Database, rules: StorageSection) -> None:
        """`rules` give the retention times."""
        self._places = places
        self._database = database
        self._rules = rules
        self._quarantine = Quarantine(places, database)
        self._next = 0.0

    def tick(self) -> None:
        """Remove what has expired, if a minute has passed since the last time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        now = time.time()
        before = now - self._rules.retention_h * 3600
        cleared = self._clear_instances(before), self._clear_results(before)
        self._quarantine.clear(before)
        self._forget(now - self._rules.history_days * 86400)
        if any(cleared):
            log.info("expired files removed", extra={"series": cleared[0], "jobs": cleared[1]})

    def _clear_instances(self, before: float) -> int:
        """Remove the files of finished series; the record keeps their names."""
        with self._database.reading() as connection:
            series = connection.execute(
                SERIES_TO_CLEAR, {"before": before, "most": AT_ONCE}
            ).fetchall()
        for (number,) in series:
            with self._database.transaction() as connection:
                names = connection.execute(
                    "UPDATE instances SET there = 0 WHERE series = ? AND there RETURNING name",
                    (number,),
                ).fetchall()
            for (name,) in names:
                (self._places.instances / name[:2] / name).unlink(missing_ok=True)
        return len(series)

    def _clear_results(self, before: float) -> int:
        """Remove derived series and reports of jobs that are delivered or failed permanently."""
        with self._database.transaction() as connection:
            jobs = connection.execute(JOBS_TO_CLEAR, {"before": before, "most": AT_ONCE}).fetchall()
            connection.executemany(
                "UPDATE jobs SET cleared = 1 WHERE number = ?", [tuple(each) for each in jobs]
            )
        for (number,) in jobs:
            shutil.rmtree(self._places.outbox / str(number), ignore_errors=True)
            shutil.rmtree(self._places.reports / str(number), ignore_errors=True)
        return len(jobs)

    def _forget(self, before: float) -> None:
        """Delete old records of removed jobs, instances and series."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE cleared AND finished < ?", (before,))
            connection.execute(
                "DELETE FROM instances WHERE NOT there AND series IN (SELECT id FROM series "
                "WHERE last_at < ? AND id NOT IN (SELECT series FROM jobs))",
                (before,),
            )
            connection.execute(
                "DELETE FROM series WHERE last_at < ? AND NOT open "
                "AND id NOT IN (SELECT series FROM jobs) "
                "AND id NOT IN (SELECT series FROM instances)",
                (before,),
            )

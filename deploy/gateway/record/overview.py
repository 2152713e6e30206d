"""Queries for the status page, /metrics and /readyz, and the operator's retries.

    overview = Overview(Places(folder))
    overview.counts()          # number of series, jobs and deliveries by state
    overview.recent_jobs()     # newest first
    overview.retry_job(17)

Safe to use from several threads. UIDs are the only identifiers in it: no names, no descriptions.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.record.disk import used_share
from stillscan.deploy.gateway.record.quarantine import Quarantine
from stillscan.deploy.gateway.settings import Places

JobState = Literal["queued", "running", "derived", "refused", "not-selected", "dead"]
DeliveryState = Literal["waiting", "sending", "unconfirmed", "sent", "dead"]
ENDED_DELIVERY: tuple[DeliveryState, ...] = ("sent", "dead")


@dataclass(frozen=True)
class Counts:
    """Numbers of series, jobs and deliveries, and counters.

    Attributes:
        open_series: series that are being received.
        unfiled: acknowledged instances that are not filed into a series yet.
        jobs, deliveries: number by state.
        totals: counters that only increase, by name: `instances_received`, `instances_duplicate`,
            `bytes_received`, `jobs_created`, `jobs_repeated` (a series was sent again unchanged),
            `jobs_derived`, `jobs_refused`, `jobs_not_selected`, `jobs_failed` (attempts),
            `jobs_dead`, `instances_sent`, `deliveries_sent`, `deliveries_failed` (attempts),
            `deliveries_dead`, `loops_stopped`, and `<part>_restarts` (receiver, web, planner,
            worker, sender). A counter of zero is missing.
        oldest_queued_s: age of the oldest queued job; 0 if none is queued.
        used_share: used share of the file system.
        quarantined: number of instances in quarantine.
    """

    open_series: int
    unfiled: int
    jobs: Mapping[JobState, int]
    deliveries: Mapping[DeliveryState, int]
    totals: Mapping[str, int]
    oldest_queued_s: float
    used_share: float
    quarantined: int = 0

    @property
    def pending_deliveries(self) -> int:
        """Number of deliveries that have neither succeeded nor failed yet."""
        return sum(self.deliveries.values()) - sum(
            self.deliveries.get(state, 0) for state in ENDED_DELIVERY
        )


@dataclass(frozen=True)
class JobRow:
    """One job; times are seconds since the epoch, None for an event that has not happened yet.

    Attributes:
        revision: 1 for the first set of instances of the series, 2 after late instances, ...
        state: `queued`, `running`, `derived`, `refused` (because of the input or by the gate; not
            tried again), `not-selected` (by rules or selection), `dead` (all attempts failed).
        reason, message: stable code and sentence if the series was not derived, or of the last
            failed attempt.
        derived_series_uid: "" unless derived; its pictures and pages are in
            `Places.reports/<number>`.
        outdated: its instances were received again with another patient or order.
        result: the entry of the series in `result.json`: noise, verdict, warnings, method; {} if
            there is none.
    """

    number: int
    series_instance_uid: str
    revision: int
    modality: str
    instances: int
    rule: str
    priority: int
    state: JobState
    attempts: int
    reason: str
    message: str
    derived_series_uid: str
    created: float
    started: float | None
    finished: float | None
    result: Mapping[str, Any]
    outdated: bool = False


@dataclass(frozen=True)
class DeliveryRow:
    """One delivery: a derived series, or a rejection note for it, to one destination."""

    number: int
    job: int
    destination: str
    state: DeliveryState
    attempts: int
    reason: str
    message: str
    instances: int
    next_attempt: float | None
    finished: float | None
    note: bool = False


class Overview:
    """Queries and retries, over one connection to the record."""

    def __init__(self, places: Places) -> None:
        """Open the record; an empty one is created if it does not exist."""
        self._places = places
        self._database = Database(places.database)
        self.quarantine = Quarantine(places, self._database)

    def counts(self) -> Counts:
        """Numbers by state, counters, and use of the disk."""
        with self._database.reading() as connection:
            jobs = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
            deliveries = connection.execute(
                "SELECT state, count(*) FROM deliveries GROUP BY state"
            ).fetchall()
            totals = connection.execute("SELECT name, value FROM totals").fetchall()
            (open_series,) = connection.execute("SELECT count(*) FROM series WHERE open").fetchone()
            (quarantined,) = connection.execute("SELECT count(*) FROM quarantine").fetchone()
            (oldest,) = connection.execute(
                "SELECT min(created) FROM jobs WHERE state = 'queued'"
            ).fetchone()
        return Counts(
            open_series=open_series,
            unfiled=self._unfiled(),
            jobs=dict(map(tuple, jobs)),
            deliveries=dict(map(tuple, deliveries)),
            totals=dict(map(tuple, totals)),
            oldest_queued_s=0.0 if oldest is None else max(time.time() - oldest, 0.0),
            used_share=used_share(self._places.data),
            quarantined=quarantined,
        )

    def recent_jobs(self, limit: int = 50) -> list[JobRow]:
        """The most recent jobs, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"{SELECT_JOBS} ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
        return [_job_row(row) for row in rows]

    def job(self, number: int) -> JobRow | None:
        """One job; None if it does not exist."""
        with self._database.reading() as connection:
            row = connection.execute(f"{SELECT_JOBS} WHERE number = ?", (number,)).fetchone()
        return None if row is None else _job_row(row)

    def deliveries(self, job: int) -> list[DeliveryRow]:
        """The deliveries of a job."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM deliveries WHERE job = ? ORDER BY number", (job,)
            ).fetchall()
        return [
            DeliveryRow(
                number=row["number"],
                job=row["job"],
                destination=row["destination"],
                state=row["state"],
                attempts=row["attempts"],
                reason=row["reason"],
                message=row["message"],
                instances=row["instances"],
                next_attempt=row["not_before"] if row["state"] == "waiting" else None,
                finished=row["finished"],
                note=bool(row["note"]),
            )
            for row in rows
        ]

    def retry_job(self, number: int) -> bool:
        """Queue a `refused` or `dead` job again, with all its attempts; False if not possible.

        Not possible for other states, and after the instances were removed (retention time). A
        series that was refused because images are missing is then processed as it is. A series on
        which the planner failed, or that has instances twice, is planned again. An outdated one is
        not.
        """
        with self._database.transaction() as connection:
            planned = connection.execute(REOPEN_UNPLANNED, (number,))
            changed = connection.execute(QUEUE_AGAIN, (number, number))
        return planned.rowcount + changed.rowcount > 0

    def retry_delivery(self, number: int) -> bool:
        """Try a `dead` delivery again; False if not possible.

        Not possible for other states, and after the files were removed (retention time).
        """
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = 0, not_before = 0, "
                "finished = NULL WHERE number = ? AND state = 'dead' "
                "AND reason <> 'outdated' "
                "AND NOT (SELECT cleared FROM jobs WHERE jobs.number = deliveries.job)",
                (number,),
            )
        return changed.rowcount > 0

    def add_to_totals(self, increments: Mapping[str, int]) -> None:
        """Increment counters of the record, which are kept over restarts."""
        with self._database.transaction() as connection:
            count(connection, increments)

    def _unfiled(self) -> int:
        return sum(1 for _ in self._places.incoming.glob("[!.]*.dcm"))


QUEUE_AGAIN = """
UPDATE jobs SET state = 'queued', attempts = 0, strikes = 0, not_before = 0, finished = NULL,
reason = '', message = '' WHERE number = ? AND state IN ('refused', 'dead')
AND reason NOT IN ('late-after-retention', 'spool-damaged') AND NOT outdated
AND NOT (reason = 'internal-fault' AND rule = '')
AND NOT EXISTS (SELECT 1 FROM job_instances JOIN instances USING (name) WHERE job = ? AND NOT there)
"""
# The planner failed on the series before it had chosen a rule, or instances were received again
# since the job was created: plan it again.
REOPEN_UNPLANNED = """
UPDATE series SET open = 1 WHERE id = (SELECT series FROM jobs WHERE number = ?
AND state = 'refused' AND (reason = 'internal-fault' AND rule = '' OR
number IN (SELECT job FROM job_instances JOIN instances USING (name)
           GROUP BY job, sop_uid HAVING count(*) > 1)))
"""
SELECT_JOBS = "SELECT jobs.*, uid, modality FROM jobs JOIN series ON series.id = jobs.series"


def _job_row(row: sqlite3.Row) -> JobRow:
    return JobRow(
        number=row["number"],
        series_instance_uid=row["uid"],
        revision=row["revision"],
        modality=row["modality"],
        instances=row["images"],
        rule=row["rule"],
        priority=row["priority"],
        state=row["state"],
        attempts=row["attempts"],
        reason=row["reason"],
        message=row["message"],
        derived_series_uid=row["derived_uid"],
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        result=json.loads(row["result"]),
        outdated=bool(row["outdated"]),
    )

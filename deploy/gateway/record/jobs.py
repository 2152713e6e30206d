"""The queue of jobs: their states in the record, changed in transactions.

    queued -> running -> derived | refused | not-selected
                 |-----> queued  (after a failed attempt)  -> dead  (all attempts failed)

`running` belongs to one attempt: the result of an attempt that was failed meanwhile is ignored.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.record.incoming_series import OUTDATED, Task, mark_lost
from stillscan.deploy.gateway.settings import WorkerSection

MAX_CRASHES = 2  # a series that caused two crashes or bugs is not tried a third time
TAKEN_NUMBERS = """
WITH study AS (SELECT id, series_number FROM series WHERE study_uid <> '' AND study_uid =
               (SELECT study_uid FROM series WHERE id = :series))
SELECT series_number FROM study WHERE series_number IS NOT NULL
UNION SELECT derived_number FROM jobs
WHERE series IN (SELECT id FROM study) AND number <> :job AND derived_number IS NOT NULL
"""


@dataclass(frozen=True)
class ClaimedJob:
    """One attempt at one job.

    Attributes:
        attempt: 1 for the first.
        instances: names of its files in the spool.
        started: when the attempt began, in seconds since the epoch.
        sop_uids: their SOPInstanceUIDs, in the same order.
        taken_numbers: the SeriesNumbers of other series of the study in the record (W3).
        correction: how often patient or order of its instances had been corrected before.
    """

    number: int
    attempt: int
    series_uid: str
    rule: str
    task: Task
    instances: tuple[str, ...]
    started: float
    sop_uids: tuple[str, ...] = ()
    taken_numbers: frozenset[int] = frozenset()
    correction: int = 0


@dataclass(frozen=True)
class Ending:
    """Final result of a job.

    Attributes:
        state: `derived`, `refused` or `not-selected`.
        derived_uid: SeriesInstanceUID of the derived series.
        derived_number: its SeriesNumber.
        instances: number of instances in the outbox.
        result: the entry of the series in the report.
    """

    state: str
    reason: str = ""
    message: str = ""
    derived_uid: str = ""
    derived_number: int | None = None
    instances: int = 0
    result: Mapping[str, Any] | None = None


class JobQueue:
    """The jobs in the record; the worker claims them, the supervisor fails overdue ones."""

    def __init__(self, database: Database, rules: WorkerSection) -> None:
        """`rules` give the number of attempts and the waits between them."""
        self._database = database
        self._rules = rules

    def claim(self) -> ClaimedJob | None:
        """Begin an attempt at the next job, by priority, then by age; None if none is due."""
        now = time.time()
        with self._database.transaction() as connection:
            row = connection.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ? "
                "WHERE number = (SELECT number FROM jobs WHERE state = 'queued' AND "
                "not_before <= ? ORDER BY priority DESC, number LIMIT 1) RETURNING *",
                (now, now),
            ).fetchone()
            if row is None:
                return None
            (uid,) = connection.execute(
                "SELECT uid FROM series WHERE id = ?", (row["series"],)
            ).fetchone()
            names = connection.execute(
                "SELECT name, sop_uid FROM job_instances LEFT JOIN instances USING (name) "
                "WHERE job = ? ORDER BY name",
                (row["number"],),
            ).fetchall()
            taken = connection.execute(
                TAKEN_NUMBERS, {"series": row["series"], "job": row["number"]}
            ).fetchall()
        task = json.loads(row["task"])
        return ClaimedJob(
            number=row["number"],
            attempt=row["attempts"],
            series_uid=uid,
            rule=row["rule"],
            task=Task(**task | {"destinations": tuple(task["destinations"])}),
            instances=tuple(each["name"] for each in names),
            sop_uids=tuple(each["sop_uid"] or "" for each in names),
            started=now,
            taken_numbers=frozenset(number for (number,) in taken),
            correction=row["correction"],
        )

    def finish(self, job: ClaimedJob, ending: Ending) -> bool:
        """Record the result of an attempt and its deliveries, in one transaction.

        Returns:
            False if the attempt was failed before: nothing is recorded.
        """
        with self._database.transaction() as connection:
            (outdated,) = connection.execute(
                "SELECT outdated FROM jobs WHERE number = ?", (job.number,)
            ).fetchone()
            if outdated:
                ending = Ending("not-selected", *OUTDATED)
            done = connection.execute(
                "UPDATE jobs SET state = ?, reason = ?, message = ?, derived_uid = ?, "
                "derived_number = ?, result = ?, finished = ?, cleared = 0 "
                "WHERE number = ? AND state = 'running' AND attempts = ?",
                (
                    ending.state,
                    ending.reason,
                    ending.message,
                    ending.derived_uid,
                    ending.derived_number,
                    json.dumps(ending.result or {}),
                    time.time(),
                    job.number,
                    job.attempt,
                ),
            )
            if done.rowcount == 0:
                return False
            if ending.state == "derived":
                connection.executemany(
                    "INSERT INTO deliveries (job, destination, state, instances) "
                    "VALUES (?, ?, 'waiting', ?) ON CONFLICT (job, destination) DO UPDATE SET "
                    "state = 'waiting', instances = excluded.instances, attempts = 0, "
                    "not_before = 0, reason = '', message = '', finished = NULL, note = 0",
                    [(job.number, name, ending.instances) for name in job.task.destinations],
                )
            count(connection, {f"jobs_{ending.state.replace('-', '_')}": 1})
        return True

    def fail(
        self, number: int, attempt: int, reason: str, message: str, *, series_fault: bool = False
    ) -> bool:
        """Fail an attempt; the job is tried again later, or becomes `dead` after the last attempt.

        Args:
            number: number of the job.
            attempt: number of the attempt.
            reason: stable code.
            message: for the status page.
            series_fault: the series itself caused a crash, a hang or a bug; after the second time
                the job becomes `dead`.

        Returns:
            False if the attempt had ended before.
        """
        with self._database.transaction() as connection:
            return self._fail(connection, number, attempt, reason, message, series_fault)

    def mark_lost(self, names: Sequence[str]) -> None:
        """Record that instances are damaged or missing in the spool; they may be sent again."""
        with self._database.transaction() as connection:
            mark_lost(connection, names)

    def running(self) -> list[tuple[int, int]]:
        """Number and attempt of the running jobs."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT number, attempts FROM jobs WHERE state = 'running'"
            ).fetchall()
        return [(row["number"], row["attempts"]) for row in rows]

    def recover(self, *, previous_run_crashed: bool = False) -> int:
        """At the start of the worker, fail the attempts that were interrupted; their number.

        Args:
            previous_run_crashed: the worker crashed or hung; it was not killed from outside.
        """
        lost = self.running()
        for number, attempt in lost:
            message = "the worker ended during the job"
            self.fail(number, attempt, "worker-stopped", message, series_fault=previous_run_crashed)
        return len(lost)

    def _fail(
        self,
        connection: sqlite3.Connection,
        number: int,
        attempt: int,
        reason: str,
        message: str,
        series_fault: bool,
    ) -> bool:
        now = time.time()
        (strikes,) = connection.execute(
            "UPDATE jobs SET strikes = strikes + ? WHERE number = ? RETURNING strikes",
            (int(series_fault), number),
        ).fetchone() or (0,)
        last = attempt >= self._rules.attempts or strikes >= MAX_CRASHES
        wait = self._rules.backoff_s * 2 ** min(attempt - 1, 20)
        changed = connection.execute(
            "UPDATE jobs SET state = ?, reason = ?, message = ?, not_before = ?, finished = ? "
            "WHERE number = ? AND state = 'running' AND attempts = ?",
            (
                "dead" if last else "queued",
                reason,
                message,
                now + wait,
                now if last else None,
                number,
                attempt,
            ),
        )
        if changed.rowcount == 0:
            return False
        count(connection, {"jobs_dead" if last else "jobs_failed": 1})
        return True

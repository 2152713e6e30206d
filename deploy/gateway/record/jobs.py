"""The queue of jobs: a state in the database, changed by whole transactions.

    queued -> running -> derived | refused | not-selected
                 |-----> queued  (a fault, after a while)  -> dead  (all attempts used up)

`running` belongs to one attempt: results of an abandoned attempt are ignored.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.record.incoming_series import Task, lose
from stillscan.deploy.gateway.settings import WorkerSection

MOST_STRIKES = 2  # a series over which something broke twice is not tried a third time
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
        instances: names of the files in the spool that it is about.
        started: when the attempt began, in seconds since the epoch.
        taken_numbers: SeriesNumber of what else is known of the study (W3).
    """

    number: int
    attempt: int
    series_uid: str
    rule: str
    task: Task
    instances: tuple[str, ...]
    started: float
    taken_numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Ending:
    """How an attempt ended, for good.

    Attributes:
        state: `derived`, `refused` or `not-selected`.
        derived_uid: SeriesInstanceUID of the derived series.
        derived_number: its SeriesNumber.
        instances: how many wait in the outbox.
        result: what the report says of the series.
    """

    state: str
    reason: str = ""
    message: str = ""
    derived_uid: str = ""
    derived_number: int | None = None
    instances: int = 0
    result: Mapping[str, Any] | None = None


class JobQueue:
    """The jobs of the database; the worker claims them, its supervisor gives up what hangs."""

    def __init__(self, database: Database, rules: WorkerSection) -> None:
        """`rules` say how often a job is tried, and when again."""
        self._database = database
        self._rules = rules

    def claim(self) -> ClaimedJob | None:
        """Begin an attempt at the job that is next: by priority, then by age."""
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
                "SELECT name FROM job_instances WHERE job = ? ORDER BY name", (row["number"],)
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
            started=now,
            taken_numbers=frozenset(number for (number,) in taken),
        )

    def finish(self, job: ClaimedJob, ending: Ending) -> bool:
        """Record how an attempt ended and what is to be delivered, in one transaction.

        Returns:
            False if the attempt had been abandoned before: nothing is recorded.
        """
        with self._database.transaction() as connection:
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
                    "VALUES (?, ?, 'waiting', ?)",
                    [(job.number, name, ending.instances) for name in job.task.destinations],
                )
            count(connection, {f"jobs_{ending.state.replace('-', '_')}": 1})
        return True

    def fail(
        self, number: int, attempt: int, reason: str, message: str, *, strike: bool = False
    ) -> bool:
        """Give an attempt up; the job is tried again later, or dead after its last attempt.

        Args:
            number: of the job.
            attempt: the one that is abandoned.
            reason: stable code.
            message: for the status page.
            strike: the attempt ended by what is in the series; after the second time it is dead.

        Returns:
            False where this attempt was over already.
        """
        with self._database.transaction() as connection:
            return self._fail(connection, number, attempt, reason, message, strike)

    def lose(self, names: Sequence[str]) -> None:
        """Record that the spool has lost these instances; they are awaited again."""
        with self._database.transaction() as connection:
            lose(connection, names)

    def running(self) -> list[tuple[int, int]]:
        """Number and attempt of the jobs that are being worked on."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT number, attempts FROM jobs WHERE state = 'running'"
            ).fetchall()
        return [(row["number"], row["attempts"]) for row in rows]

    def recover(self, *, died_of_its_work: bool = False) -> int:
        """At the start of the only worker: what was running has lost its attempt; how many.

        Args:
            died_of_its_work: the worker was not killed by somebody else.
        """
        lost = self.running()
        for number, attempt in lost:
            message = "the worker ended during the job"
            self.fail(number, attempt, "worker-stopped", message, strike=died_of_its_work)
        return len(lost)

    def _fail(
        self,
        connection: sqlite3.Connection,
        number: int,
        attempt: int,
        reason: str,
        message: str,
        strike: bool,
    ) -> bool:
        now = time.time()
        (strikes,) = connection.execute(
            "UPDATE jobs SET strikes = strikes + ? WHERE number = ? RETURNING strikes",
            (int(strike), number),
        ).fetchone() or (0,)
        last = attempt >= self._rules.attempts or strikes >= MOST_STRIKES
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

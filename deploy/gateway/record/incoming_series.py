"""Incoming series: their filed instances, when a series is ready, and the job it becomes.

Times are seconds since the epoch.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

from stillscan.app.settings import Mode, Strength
from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.settings import CompletenessSection

# A job that was refused because an instance was damaged in the spool; it was received again.
# Or a job whose instances were corrected, and then sent again as they had been.
QUEUE_HEALED = """
UPDATE jobs SET state = 'queued', attempts = 0, not_before = 0, finished = NULL, reason = '',
message = '', outdated = 0, revision = :revision, correction = :correction
WHERE key = :key AND (outdated OR state = 'refused' AND reason = 'spool-damaged') RETURNING number
"""
OUTDATED = (
    "outdated",
    "instances of it came again with another patient or order; see the later job of the series",
)


@dataclass(frozen=True)
class Filed:
    """An instance of the spool whose header was read.

    Attributes:
        name: name of its file.
        series_uid: SeriesInstanceUID, or `file:<name>` if it has none.
        series_number: SeriesNumber, None if it has none.
        sender: calling AE title, for the first instance of a series.
        images: number of frames.
        expected: number of images of the whole series, None if the header does not state it.
        ours: whether it was derived by Stillscan.
        received: time of receipt.
    """

    name: str
    series_uid: str
    study_uid: str
    sop_uid: str
    modality: str
    series_number: int | None
    sender: str
    images: int
    expected: int | None
    ours: bool
    bytes: int
    received: float


@dataclass(frozen=True)
class ReadySeries:
    """A series that is ready for a job: no instance has arrived for long enough.

    Attributes:
        last_at: time of its last instance; unchanged as long as no further instance arrives.
        instances: names of its available files.
        images: number of frames in them.
        removed: number of instances that were removed after the retention time.
        lost: number of instances that are damaged or missing in the spool.
        corrections: how often instances were received again with another patient or order.
    """

    id: int
    uid: str
    modality: str
    sender: str
    expected: int | None
    ours: bool
    last_at: float
    revision: int
    instances: tuple[str, ...]
    images: int
    removed: int
    lost: int = 0
    corrections: int = 0

    @property
    def is_incomplete(self) -> bool:
        """Whether fewer images were received than the headers state."""
        return self.expected is not None and self.images < self.expected


@dataclass(frozen=True)
class Task:
    """How a series is processed: the values of the rule."""

    bundle: str | None
    mode: Mode | None
    strength: Strength | None
    destinations: tuple[str, ...]


@dataclass(frozen=True)
class NewJob:
    """The job for a ready series.

    Attributes:
        state: `queued`, or the final state of a series that is not processed.
        configuration: digest of everything else that can change the result.
    """

    rule: str
    task: Task
    priority: int
    configuration: str
    state: str = "queued"
    reason: str = ""
    message: str = ""


class SeriesRecord:
    """The series and instances in the record; the planner writes them."""

    def __init__(self, database: Database) -> None:
        """Use a database, which may be shared."""
        self._database = database

    def file(self, instances: Sequence[Filed]) -> set[str]:
        """Add instances to their series; returns the names of those that were already filed.

        An instance that is sent again also keeps its series open: more may follow.
        """
        repeated = set()
        with self._database.transaction() as connection:
            for each in instances:
                series = self._series(connection, each)
                there = connection.execute(
                    "SELECT there FROM instances WHERE name = ?", (each.name,)
                ).fetchone()
                if there is not None and there["there"]:
                    repeated.add(each.name)
                connection.execute(
                    "INSERT INTO instances VALUES (?, ?, ?, ?, ?, 1, 0, ?, 0) "
                    "ON CONFLICT (name) DO UPDATE SET there = 1, lost = 0, replaced = 0, "
                    "received = excluded.received",
                    (each.name, series, each.sop_uid, each.images, each.bytes, each.received),
                )
            new = [each for each in instances if each.name not in repeated]
            count(
                connection,
                {
                    "instances_received": len(instances),
                    "instances_duplicate": len(repeated),
                    "bytes_received": sum(each.bytes for each in new),
                },
            )
        return repeated

    def is_there(self, name: str) -> bool | None:
        """Whether the file of this name should exist; None if the record does not contain it."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT there FROM instances WHERE name = ?", (name,))
            row = found.fetchone()
        return None if row is None else bool(row["there"])

    def is_known(self, series_uid: str) -> bool:
        """Whether instances of this series were filed before."""
        with self._database.reading() as connection:
            found = connection.execute("SELECT 1 FROM series WHERE uid = ?", (series_uid,))
            return found.fetchone() is not None

    def ready(self, rules: CompletenessSection, now: float) -> list[ReadySeries]:
        """The series that count as complete at `now`, oldest first."""
        shortest = min(rules.quiet_s, rules.settled_s)
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM series WHERE open AND last_at <= ? ORDER BY last_at",
                (now - shortest,),
            ).fetchall()
            found = [_ready_series(connection, row) for row in rows]
        return [each for each in found if now - each.last_at >= _silence_needed_s(each, rules)]

    def close(self, series: ReadySeries, job: NewJob, now: float) -> int | None:
        """Close a series and create its job; returns the number of the job.

        None if the same job exists already, or if an instance has arrived since `ready` (then
        nothing changes).
        """
        with self._database.transaction() as connection:
            closed = connection.execute(
                "UPDATE series SET open = 0 WHERE id = ? AND open AND last_at = ?",
                (series.id, series.last_at),
            )
            if closed.rowcount == 0:
                return None
            cursor = connection.execute(
                "INSERT OR IGNORE INTO jobs (key, series, revision, rule, task, images, priority, "
                "state, reason, message, created, finished, correction) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_key(series, job),
                    series.id,
                    series.revision + 1,
                    job.rule,
                    json.dumps(asdict(job.task)),
                    series.images,
                    job.priority,
                    job.state,
                    job.reason,
                    job.message,
                    now,
                    None if job.state == "queued" else now,
                    series.corrections,
                ),
            )
            if cursor.rowcount == 0:
                healed = connection.execute(
                    QUEUE_HEALED,
                    {
                        "key": job_key(series, job),
                        "revision": series.revision + 1,
                        "correction": series.corrections,
                    },
                ).fetchone()
                count(connection, {"jobs_repeated": 1})
                return None if healed is None else int(healed["number"])
            number = cursor.lastrowid
            connection.executemany(
                "INSERT INTO job_instances VALUES (?, ?)",
                [(number, name) for name in series.instances],
            )
            connection.execute(
                "UPDATE series SET revision = revision + 1 WHERE id = ?", (series.id,)
            )
            count(connection, _totals_of(job))
        return number

    def without(self, series: ReadySeries, damaged: Sequence[str]) -> ReadySeries:
        """The series without damaged or missing instances; these may be sent again."""
        with self._database.transaction() as connection:
            mark_lost(connection, damaged)
            row = connection.execute("SELECT * FROM series WHERE id = ?", (series.id,)).fetchone()
            return _ready_series(connection, row)

    def copies(self, series: ReadySeries) -> list[list[str]]:
        """Names of the files of each instance that has come more than once, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT name, sop_uid FROM instances WHERE series = ? AND there AND NOT replaced "
                "ORDER BY received DESC, rowid DESC",
                (series.id,),
            ).fetchall()
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["sop_uid"], []).append(row["name"])
        return [names for names in found.values() if len(names) > 1]

    def replace(
        self,
        series: ReadySeries,
        replaced: Sequence[str],
        corrected: Sequence[str],
        notes_to: Sequence[str],
    ) -> tuple[ReadySeries, list[tuple[int, str]]]:
        """The series without older copies of its instances.

        Args:
            series: as it was.
            replaced: files of which a newer copy is there.
            corrected: those of them that have another patient or order than the newer copy.
            notes_to: destinations that get a rejection note for what was sent to them.

        Returns:
            The series, and the jobs that are outdated by this, each with its derived series.
        """
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE instances SET replaced = 1 WHERE name = ?", [(each,) for each in replaced]
            )
            outdated = [] if not corrected else _outdated(connection, series, corrected, notes_to)
            row = connection.execute("SELECT * FROM series WHERE id = ?", (series.id,)).fetchone()
            return _ready_series(connection, row), outdated

    def made_by_us(self, series_uid: str) -> bool:
        """Whether a job of this gateway derived this series."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT 1 FROM jobs WHERE derived_uid = ? LIMIT 1", (series_uid,)
            )
            return found.fetchone() is not None

    def _series(self, connection: sqlite3.Connection, filed: Filed) -> int:
        (number,) = connection.execute(
            "INSERT INTO series "
            "(uid, study_uid, modality, series_number, sender, expected, ours, first_at, "
            "last_at, open) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (uid) DO UPDATE SET open = 1, "
            "last_at = max(last_at, excluded.last_at), ours = max(ours, excluded.ours), "
            "expected = coalesce(max(expected, excluded.expected), expected, excluded.expected) "
            "RETURNING id",
            (
                filed.series_uid,
                filed.study_uid,
                filed.modality,
                filed.series_number,
                filed.sender,
                filed.expected,
                filed.ours,
                filed.received,
                filed.received,
            ),
        ).fetchone()
        return int(number)


def _outdated(
    connection: sqlite3.Connection,
    series: ReadySeries,
    corrected: Sequence[str],
    notes_to: Sequence[str],
) -> list[tuple[int, str]]:
    """Mark the jobs that were made of these files; what has not been sent is not sent any more."""
    connection.execute("UPDATE series SET corrections = corrections + 1 WHERE id = ?", (series.id,))
    of_these = {
        row["job"]
        for name in corrected
        for row in connection.execute("SELECT job FROM job_instances WHERE name = ?", (name,))
    }
    for job in sorted(of_these):
        connection.execute("UPDATE jobs SET outdated = 1 WHERE number = ?", (job,))
        connection.execute(
            "UPDATE jobs SET state = 'not-selected', reason = ?, message = ?, finished = ? "
            "WHERE number = ? AND state = 'queued'",
            (*OUTDATED, series.last_at, job),
        )
        connection.execute(
            "UPDATE deliveries SET state = 'dead', reason = ?, message = ?, finished = ? "
            "WHERE job = ? AND state = 'waiting' AND NOT note",
            (*OUTDATED, series.last_at, job),
        )
        connection.executemany(
            "UPDATE deliveries SET state = 'waiting', note = 1, attempts = 0, not_before = 0, "
            "finished = NULL WHERE job = ? AND state = 'sent' AND NOT note AND destination = ?",
            [(job, name) for name in notes_to],
        )
    return [
        (job, row["derived_uid"])
        for job in sorted(of_these)
        for row in connection.execute("SELECT derived_uid FROM jobs WHERE number = ?", (job,))
    ]


def mark_lost(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    """Record that instances are damaged or missing in the spool, inside a transaction."""
    connection.executemany(
        "UPDATE instances SET there = 0, lost = 1 WHERE name = ?", [(name,) for name in names]
    )


def job_key(series: ReadySeries, job: NewJob) -> str:
    """Key of a job (S4): a digest of series, instance set, rule values and configuration."""
    parts = [series.uid, sorted(series.instances), asdict(job.task), job.configuration]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _ready_series(connection: sqlite3.Connection, row: sqlite3.Row) -> ReadySeries:
    instances = connection.execute(
        "SELECT * FROM instances WHERE series = ? AND NOT replaced ORDER BY name", (row["id"],)
    ).fetchall()
    there = [each for each in instances if each["there"]]
    known = {each["sop_uid"] for each in there}
    return ReadySeries(
        id=row["id"],
        uid=row["uid"],
        modality=row["modality"],
        sender=row["sender"],
        expected=row["expected"],
        ours=bool(row["ours"]),
        last_at=row["last_at"],
        revision=row["revision"],
        instances=tuple(each["name"] for each in there),
        images=sum({each["sop_uid"]: each["images"] for each in there}.values()),
        removed=len({each["sop_uid"] for each in instances if not each["lost"]} - known),
        lost=len({each["sop_uid"] for each in instances if each["lost"]} - known),
        corrections=row["corrections"],
    )


def _silence_needed_s(series: ReadySeries, rules: CompletenessSection) -> float:
    """Seconds without a new instance after which this series counts as complete."""
    if series.expected is None:
        return rules.quiet_s
    return rules.patience_s if series.is_incomplete else rules.settled_s


def _totals_of(job: NewJob) -> Mapping[str, int]:
    totals = {"jobs_created": 1}
    if job.reason == "already-denoised":
        totals["loops_stopped"] = 1
    if job.state == "refused":
        totals["jobs_refused"] = 1
    return totals

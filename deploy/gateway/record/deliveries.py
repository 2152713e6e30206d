"""Deliveries: one derived series to one destination, with its state in the record.

waiting -> sending -> [unconfirmed] -> sent
              |-------------|----> waiting  (after a failed attempt)  -> dead  (all attempts failed)

`unconfirmed`: every instance was acknowledged, and storage commitment was requested; the report of
the destination has not come yet.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.commitments import CommitmentReport
from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.record.incoming_series import OUTDATED
from stillscan.deploy.gateway.settings import Places, SenderSection

STOP_OUTDATED = """
UPDATE deliveries SET state = 'dead', reason = ?, message = ?, finished = ?
WHERE state = 'waiting' AND NOT note AND destination = ?
AND job IN (SELECT number FROM jobs WHERE outdated)
"""
NOTE_FOLLOWS = """
UPDATE deliveries SET state = 'waiting', note = 1, attempts = 0, not_before = 0, finished = NULL
WHERE number = ? AND NOT note AND job IN (SELECT number FROM jobs WHERE outdated)
"""


@dataclass(frozen=True)
class ClaimedDelivery:
    """One attempt at one delivery; with `note` of a rejection note for what was sent before."""

    number: int
    job: int
    destination: str
    attempt: int
    instances: int
    note: bool = False


class Outbox:
    """The deliveries in the record; the sender claims them."""

    def __init__(self, database: Database, rules: SenderSection) -> None:
        """`rules` give the number of attempts and the waits between them."""
        self._database = database
        self._rules = rules

    def claim(self, destination: str) -> ClaimedDelivery | None:
        """Begin an attempt at the next delivery to this destination; None if none is due."""
        with self._database.transaction() as connection:
            overdue = connection.execute(
                "SELECT * FROM deliveries WHERE state = 'unconfirmed' AND destination = ? "
                "AND not_before <= ?",
                (destination, time.time()),
            ).fetchall()
            for each in overdue:
                message = f"no storage commitment within {self._rules.confirm_s:g} s"
                self._failed(connection, each, "not-confirmed", message)
            now = time.time()
            connection.execute(STOP_OUTDATED, (*OUTDATED, now, destination))
            row = connection.execute(
                "UPDATE deliveries SET state = 'sending', attempts = attempts + 1 "
                "WHERE number = (SELECT deliveries.number FROM deliveries "
                "JOIN jobs ON jobs.number = deliveries.job WHERE deliveries.state = 'waiting' "
                "AND destination = ? AND deliveries.not_before <= ? "
                "ORDER BY jobs.priority DESC, deliveries.number LIMIT 1) RETURNING *",
                (destination, now),
            ).fetchone()
        if row is None:
            return None
        return ClaimedDelivery(
            row["number"],
            row["job"],
            row["destination"],
            row["attempts"],
            1 if row["note"] else row["instances"],
            bool(row["note"]),
        )

    def sent(self, delivery: ClaimedDelivery, message: str = "", *, note: bool = False) -> None:
        """Record that all instances were acknowledged.

        Args:
            delivery: the attempt.
            message: warnings of the destination.
            note: a rejection note follows if the series has become outdated meanwhile.
        """
        with self._database.transaction() as connection:
            _sent(connection, delivery.number, delivery.instances, message, note=note)

    def unconfirmed(self, delivery: ClaimedDelivery, message: str, transaction_uid: str) -> None:
        """Record that all instances were acknowledged; `reported` says whether they are stored."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET state = 'unconfirmed', reason = '', message = ?, "
                "not_before = ?, transaction_uid = ? WHERE number = ?",
                (message, time.time() + self._rules.confirm_s, transaction_uid, delivery.number),
            )

    def reported(self, report: CommitmentReport, notes_to: Collection[str] = ()) -> bool:
        """Record a report of storage commitment; False if no delivery waits for it.

        Args:
            report: from a destination.
            notes_to: destinations that get a rejection note, as in `sent`.
        """
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM deliveries WHERE transaction_uid = ? AND state = 'unconfirmed'",
                (report.transaction_uid,),
            ).fetchone()
            if row is None:
                return False
            instances = 1 if row["note"] else row["instances"]
            if report.failed or len(report.committed) < instances:
                message = f"{len(report.committed)} of {instances} instances are committed"
                self._failed(connection, row, "commitment-failed", message)
            else:
                note = row["destination"] in notes_to
                _sent(connection, row["number"], instances, row["message"], note=note)
                log.info("delivery confirmed", extra={"delivery": row["number"], "job": row["job"]})
        return True

    def failed(self, delivery: ClaimedDelivery, reason: str, message: str) -> None:
        """Record a failed attempt: it will be repeated, or the delivery is `dead`."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM deliveries WHERE number = ? AND state IN ('sending', 'unconfirmed')",
                (delivery.number,),
            ).fetchone()
            if row is not None:
                self._failed(connection, row, reason, message)

    def _failed(
        self, connection: sqlite3.Connection, row: sqlite3.Row, reason: str, message: str
    ) -> None:
        attempt = row["attempts"]
        last = attempt >= self._rules.attempts
        wait = min(self._rules.backoff_s * 2 ** min(attempt - 1, 30), self._rules.backoff_most_s)
        now = time.time()
        connection.execute(
            "UPDATE deliveries SET state = ?, reason = ?, message = ?, not_before = ?, "
            "finished = ? WHERE number = ?",
            (
                "dead" if last else "waiting",
                reason,
                message,
                now + wait,
                now if last else None,
                row["number"],
            ),
        )
        count(connection, {"deliveries_failed": 1, "deliveries_dead": int(last)})
        about = {key: row[key] for key in ("job", "destination")}
        log.warning(
            "delivery failed permanently" if last else "delivery failed",
            extra=about
            | {"delivery": row["number"], "attempt": attempt}
            | {"reason": reason, "detail": message},
        )

    def recover(self) -> int:
        """At the start of the sender, reset interrupted deliveries to waiting; their number.

        The interruption does not count as an attempt: it says nothing about the destination.
        """
        with self._database.transaction() as connection:
            lost = connection.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = max(attempts - 1, 0) "
                "WHERE state = 'sending'"
            )
        return lost.rowcount

    def fail_unknown_destinations(self, known: Sequence[str]) -> int:
        """Set deliveries to destinations that are no longer configured to `dead`; their number."""
        marks = ", ".join("?" * len(known))
        with self._database.transaction() as connection:
            failed = connection.execute(
                "UPDATE deliveries SET state = 'dead', reason = 'unknown-destination', "
                "message = 'the settings have no such destination', finished = ? "
                f"WHERE state IN ('waiting', 'unconfirmed') AND destination NOT IN ({marks})",
                (time.time(), *known),
            )
        return failed.rowcount


def _sent(
    connection: sqlite3.Connection, number: int, instances: int, message: str, *, note: bool
) -> None:
    connection.execute(
        "UPDATE deliveries SET state = 'sent', reason = '', message = ?, finished = ? "
        "WHERE number = ?",
        (message, time.time(), number),
    )
    if note:
        connection.execute(NOTE_FOLLOWS, (number,))
    count(connection, {"deliveries_sent": 1, "instances_sent": instances})


def files_of(places: Places, job: int) -> list[Path]:
    """Files of a job in the outbox: the derived series and the objects beside it."""
    return sorted((places.outbox / str(job)).glob("*/*.dcm"))

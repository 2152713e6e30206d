"""Deliveries: one derived series on its way to one destination, as a state in the database.

waiting -> sending -> sent
              |-----> waiting  (after a while)  -> dead  (all attempts used up)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.settings import Places, SenderSection


@dataclass(frozen=True)
class ClaimedDelivery:
    """One attempt at one delivery."""

    number: int
    job: int
    destination: str
    attempt: int
    instances: int


class Outbox:
    """The deliveries of the database; the sender claims them."""

    def __init__(self, database: Database, rules: SenderSection) -> None:
        """`rules` say how often a delivery is tried, and when again."""
        self._database = database
        self._rules = rules

    def claim(self, destination: str) -> ClaimedDelivery | None:
        """Begin an attempt at the delivery to this destination that is next."""
        now = time.time()
        with self._database.transaction() as connection:
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
            row["number"], row["job"], row["destination"], row["attempts"], row["instances"]
        )

    def sent(self, delivery: ClaimedDelivery, message: str = "") -> None:
        """All instances are there; `message` is what the destination had to say of it."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET state = 'sent', reason = '', message = ?, finished = ? "
                "WHERE number = ?",
                (message, time.time(), delivery.number),
            )
            count(connection, {"deliveries_sent": 1, "instances_sent": delivery.instances})

    def failed(self, delivery: ClaimedDelivery, reason: str, message: str) -> bool:
        """The attempt failed: the whole series is tried again later, or it is dead (False)."""
        last = delivery.attempt >= self._rules.attempts
        wait = min(
            self._rules.backoff_s * 2 ** min(delivery.attempt - 1, 30), self._rules.backoff_most_s
        )
        now = time.time()
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE deliveries SET state = ?, reason = ?, message = ?, not_before = ?, "
                "finished = ? WHERE number = ?",
                (
                    "dead" if last else "waiting",
                    reason,
                    message,
                    now + wait,
                    now if last else None,
                    delivery.number,
                ),
            )
            count(connection, {"deliveries_failed": 1, "deliveries_dead": int(last)})
        return not last

    def recover(self) -> int:
        """At the start of the only sender: what was being sent waits again; how many.

        That the sender ended says nothing about the destination, so it costs no attempt.
        """
        with self._database.transaction() as connection:
            lost = connection.execute(
                "UPDATE deliveries SET state = 'waiting', attempts = max(attempts - 1, 0) "
                "WHERE state = 'sending'"
            )
        return lost.rowcount

    def bury_unknown(self, known: Sequence[str]) -> int:
        """Give up deliveries to destinations that the settings no longer have; how many."""
        marks = ", ".join("?" * len(known))
        with self._database.transaction() as connection:
            buried = connection.execute(
                "UPDATE deliveries SET state = 'dead', reason = 'unknown-destination', "
                "message = 'the settings have no such destination', finished = ? "
                f"WHERE state = 'waiting' AND destination NOT IN ({marks})",
                (time.time(), *known),
            )
        return buried.rowcount


def files_of(places: Places, job: int) -> list[Path]:
    """The instances that wait in the outbox for this job: derived series, then its objects."""
    return sorted((places.outbox / str(job)).glob("*/*.dcm"))

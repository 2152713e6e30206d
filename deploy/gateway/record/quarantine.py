"""Quarantine: a folder for instances that cannot be filed, each with its reason in the record.

Instances in quarantine are not tried again automatically: an operator retries or removes them. A
file that the receiver did not write is renamed to a digest, since its name may contain the name of
a patient.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.database import Database, count
from stillscan.deploy.gateway.settings import Places

# names of files that the receiver wrote; the group is the digest of the content
SPOOLED = re.compile(r"[0-9a-f]{32}-([0-9a-f]{24})\.dcm")
MAX_CRASHES = 2  # an instance on which the planner crashed twice is not read a third time


@dataclass(frozen=True)
class Quarantined:
    """One instance in quarantine.

    Attributes:
        name: name of its file in the quarantine.
        reason, message: stable code and sentence.
        since: when it was moved there, in seconds since the epoch.
    """

    name: str
    reason: str
    message: str
    since: float


class Quarantine:
    """Instances in quarantine, and the number of crashes that instances may have caused."""

    def __init__(self, places: Places, database: Database) -> None:
        """The folder is created with the first instance."""
        self._places = places
        self._database = database

    def put(self, path: Path, reason: str, message: str) -> None:
        """Move a file to the quarantine; only the reason is recorded if it no longer exists."""
        name = path.name if SPOOLED.fullmatch(path.name) else f"junk-{_digest(path.name)}"
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO quarantine VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET reason = excluded.reason, message = excluded.message, since = excluded.since",
                (name, reason, message, time.time()),
            )
            connection.execute("DELETE FROM strikes WHERE name = ?", (path.name,))
            count(connection, {"instances_quarantined": 1})
        self._places.quarantine.mkdir(parents=True, exist_ok=True)
        target = self._places.quarantine / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        with suppress(FileNotFoundError):
            path.rename(target)
        log.error("instance quarantined", extra={"file": name, "reason": reason, "detail": message})

    def listed(self, limit: int = 50) -> list[Quarantined]:
        """The instances in quarantine, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM quarantine ORDER BY since DESC LIMIT ?", (limit,)
            ).fetchall()
        return [Quarantined(**dict(row)) for row in rows]

    def release(self, name: str) -> bool:
        """Move an instance back to `incoming`, to be filed again; False if it is not found."""
        with self._database.transaction() as connection:
            gone = connection.execute("DELETE FROM quarantine WHERE name = ?", (name,))
        file = self._places.quarantine / name
        if gone.rowcount == 0 or not file.exists():
            return False
        file.rename(self._places.incoming / name)
        return True

    def clear(self, before: float) -> int:
        """Remove instances that were quarantined before this time; their number."""
        with self._database.transaction() as connection:
            old = connection.execute(
                "DELETE FROM quarantine WHERE since < ? RETURNING name", (before,)
            ).fetchall()
        for (name,) in old:
            path = self._places.quarantine / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(old)

    def count_crashes(self, names: Iterable[str]) -> None:
        """Record that the planner crashed while it was reading these instances."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO strikes VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET number = number + 1",
                [(name,) for name in names],
            )

    def crash_counts(self) -> dict[str, int]:
        """Number of crashes for each instance that has not been filed successfully since."""
        with self._database.reading() as connection:
            return dict(map(tuple, connection.execute("SELECT * FROM strikes").fetchall()))

    def clear_crashes(self, names: Sequence[str]) -> None:
        """Delete the crashes of instances that were filed successfully."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM strikes WHERE name = ?", [(each,) for each in names]
            )


def _digest(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]

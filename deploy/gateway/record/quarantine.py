"""Instances that cannot be filed: each lies in a folder of its own kind, with its reason.

Nothing in there is looked at again by itself; a person lets it try once more, or removes it. A file
that was not written by the receiver gets a digest for a name: its own may hold the name of a
patient.
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

# names of files that the receiver wrote; the second group is of the content
SPOOLED = re.compile(r"[0-9a-f]{32}-([0-9a-f]{24})\.dcm")
MOST_STRIKES = 2  # a part that ended twice over an instance is not given it a third time


@dataclass(frozen=True)
class Quarantined:
    """One instance in quarantine.

    Attributes:
        name: of its file there.
        reason, message: stable code and sentence.
        since: seconds since the epoch.
    """

    name: str
    reason: str
    message: str
    since: float


class Quarantine:
    """What was set aside, and which instances a part has ended over."""

    def __init__(self, places: Places, database: Database) -> None:
        """The folder is made with the first instance."""
        self._places = places
        self._database = database

    def put(self, path: Path, reason: str, message: str) -> None:
        """Set a file aside; one that is gone meanwhile is none of ours."""
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
        log.error("set aside", extra={"file": name, "reason": reason, "detail": message})

    def listed(self, limit: int = 50) -> list[Quarantined]:
        """What is in quarantine, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM quarantine ORDER BY since DESC LIMIT ?", (limit,)
            ).fetchall()
        return [Quarantined(**dict(row)) for row in rows]

    def release(self, name: str) -> bool:
        """Let an instance try once more; False where it is not in quarantine."""
        with self._database.transaction() as connection:
            gone = connection.execute("DELETE FROM quarantine WHERE name = ?", (name,))
        file = self._places.quarantine / name
        if gone.rowcount == 0 or not file.exists():
            return False
        file.rename(self._places.incoming / name)
        return True

    def clear(self, before: float) -> int:
        """Remove what was set aside before this moment; how many."""
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

    def strike(self, names: Iterable[str]) -> None:
        """A part has ended while it had these instances in hand."""
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO strikes VALUES (?, 1) "
                "ON CONFLICT (name) DO UPDATE SET number = number + 1",
                [(name,) for name in names],
            )

    def struck(self) -> dict[str, int]:
        """How often a part has ended over each instance that it has not got through since."""
        with self._database.reading() as connection:
            return dict(map(tuple, connection.execute("SELECT * FROM strikes").fetchall()))

    def absolve(self, names: Sequence[str]) -> None:
        """These were got through."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM strikes WHERE name = ?", [(each,) for each in names]
            )


def _digest(name: str) -> str:
    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]

"""The record of the gateway: series, instances, jobs, deliveries and counters, in one SQLite file.

A transaction is durable when it returns (WAL, synchronous FULL); if a process is killed during a
transaction, nothing of it is recorded. Each process has its own connection; writers wait for each
other.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stillscan.operators.errors import OutputError

BUSY_S = 60.0  # longer than any transaction of the gateway, on a busy disk

SCHEMA = """
CREATE TABLE series (
    id          INTEGER PRIMARY KEY,
    uid         TEXT NOT NULL UNIQUE,   -- SeriesInstanceUID, or 'file:<name>' where there is none
    study_uid   TEXT NOT NULL,
    modality    TEXT NOT NULL,
    series_number INTEGER,
    sender      TEXT NOT NULL,          -- calling AE title of its first instance
    expected    INTEGER,                -- images, where its headers say so
    ours        INTEGER NOT NULL,       -- made by Stillscan
    first_at    REAL NOT NULL,
    last_at     REAL NOT NULL,
    open        INTEGER NOT NULL,       -- instances have come since its last job was made
    revision    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX open_series ON series (last_at) WHERE open;

CREATE TABLE instances (
    name        TEXT PRIMARY KEY,       -- of its file
    series      INTEGER NOT NULL REFERENCES series (id),
    sop_uid     TEXT NOT NULL,
    images      INTEGER NOT NULL,       -- frames
    bytes       INTEGER NOT NULL,
    there       INTEGER NOT NULL        -- 0 once its file is removed
);
CREATE INDEX instances_of_series ON instances (series);

CREATE TABLE jobs (
    number      INTEGER PRIMARY KEY,
    key         TEXT NOT NULL UNIQUE,   -- series, instance set and configuration (S4)
    series      INTEGER NOT NULL REFERENCES series (id),
    revision    INTEGER NOT NULL,
    rule        TEXT NOT NULL,
    task        TEXT NOT NULL,          -- JSON: bundle, mode, strength, destinations
    images      INTEGER NOT NULL,
    priority    INTEGER NOT NULL,
    state       TEXT NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    not_before  REAL NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    message     TEXT NOT NULL DEFAULT '',
    derived_uid TEXT NOT NULL DEFAULT '',
    derived_number INTEGER,             -- SeriesNumber of the derived series
    result      TEXT NOT NULL DEFAULT '{}',
    created     REAL NOT NULL,
    started     REAL,
    finished    REAL,
    cleared     INTEGER NOT NULL DEFAULT 0   -- outbox and report are removed
);
CREATE INDEX jobs_by_state ON jobs (state, priority DESC, number);
CREATE INDEX jobs_of_series ON jobs (series);

CREATE TABLE job_instances (
    job         INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    PRIMARY KEY (job, name)
) WITHOUT ROWID;

CREATE TABLE deliveries (
    number      INTEGER PRIMARY KEY,
    job         INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    destination TEXT NOT NULL,
    state       TEXT NOT NULL,
    instances   INTEGER NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    not_before  REAL NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    message     TEXT NOT NULL DEFAULT '',
    finished    REAL,
    UNIQUE (job, destination)
);
CREATE INDEX deliveries_by_state ON deliveries (state, destination, not_before);

CREATE TABLE totals (
    name        TEXT PRIMARY KEY,
    value       INTEGER NOT NULL
) WITHOUT ROWID;
"""

UPGRADES = {  # by the version of the record that they result in
    2: """
CREATE TABLE quarantine (
    name        TEXT PRIMARY KEY,       -- of its file there
    reason      TEXT NOT NULL,
    message     TEXT NOT NULL,
    since       REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE strikes (                  -- a part ended while it had the instance in hand
    name        TEXT PRIMARY KEY,
    number      INTEGER NOT NULL
) WITHOUT ROWID;

ALTER TABLE jobs ADD COLUMN strikes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;  -- damaged in the spool
""",
    3: """
ALTER TABLE instances ADD COLUMN received REAL NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0; -- by a newer copy
ALTER TABLE series ADD COLUMN corrections INTEGER NOT NULL DEFAULT 0; -- of patient or order
ALTER TABLE jobs ADD COLUMN correction INTEGER NOT NULL DEFAULT 0;    -- that its instances have
ALTER TABLE jobs ADD COLUMN outdated INTEGER NOT NULL DEFAULT 0;      -- by a later correction
ALTER TABLE deliveries ADD COLUMN note INTEGER NOT NULL DEFAULT 0;    -- a rejection note goes
""",
    4: """
ALTER TABLE deliveries ADD COLUMN transaction_uid TEXT NOT NULL DEFAULT '';  -- of its commitment
""",
}
VERSION = max(UPGRADES)


class RecordDamagedError(OutputError):
    """The record of the gateway is damaged, or was written by a later version."""

    reason = "record-damaged"


class Database:
    """One connection; safe to use from several threads, one transaction at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file; create it if it does not exist.

        Raises:
            sqlite3.Error: if it cannot be opened.
            RecordDamagedError: if it is damaged, or was written by a later version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        with self._naming_damage():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        self._make_tables()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is durable after the block; an exception rolls it back."""
        with self._lock, self._naming_damage():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several queries to the same state of the record."""
        with self._lock, self._naming_damage():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._roll_back()

    def require_sound(self) -> None:
        """Check the whole file (`PRAGMA quick_check`).

        Raises:
            RecordDamagedError: if the check fails.
        """
        with self._naming_damage():
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise self._damaged(found)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # on a full disk SQLite has already rolled back
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a full or busy disk, a constraint
                raise
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> RecordDamagedError:
        return RecordDamagedError(
            f"the record {self._path} is damaged ({why}): stop the gateway, move "
            f"{self._path.name}* to another folder and start it again; instances in the spool are "
            "then filed again"
        )

    def _make_tables(self) -> None:
        with self.transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise RecordDamagedError(
                    f"the record {self._path} has version {version}; this program supports up to "
                    f"{VERSION}: install the later program, or restore an older copy of the record"
                )
            missing = [*([SCHEMA] if version == 0 else []), *_steps_after(version)]
            for statement in (each for step in missing for each in step.split(";")):
                connection.execute(statement)
            if missing:
                connection.execute(f"PRAGMA user_version = {VERSION}")


def _steps_after(version: int) -> list[str]:
    return [step for number, step in sorted(UPGRADES.items()) if number > version]


def count(connection: sqlite3.Connection, increments: Mapping[str, int]) -> None:
    """Increment counters, inside a transaction."""
    connection.executemany(
        "INSERT INTO totals (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        list(increments.items()),
    )

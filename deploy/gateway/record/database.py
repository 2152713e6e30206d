"""The record of the gateway: series, instances, jobs, deliveries and counters, in one SQLite file.

A transaction is durable when it returns (WAL, synchronous FULL), and a process that is killed in
the middle of one leaves nothing of it. Each process has its own connection; writers wait for each
other.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BUSY_S = 60.0  # longer than any transaction of ours, on a disk that is busy
VERSION = 1

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


class Database:
    """One connection; safe to use from several threads, one transaction at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file; make it where it is not there.

        Raises:
            sqlite3.Error: if it cannot be opened or was made by a later version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
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
        """A transaction that is durable after the block; an exception in the block undoes it."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several questions to one state of the record."""
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    def _make_tables(self) -> None:
        with self.transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise sqlite3.DatabaseError(
                    f"the database is of version {version}; this program knows {VERSION}"
                )
            if version == 0:
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")


def count(connection: sqlite3.Connection, increments: Mapping[str, int]) -> None:
    """Let counters grow, inside a transaction."""
    connection.executemany(
        "INSERT INTO totals (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        list(increments.items()),
    )

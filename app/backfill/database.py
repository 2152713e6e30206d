"""The SQLite file of a back-fill: the listing of the source and the outcomes.

One process writes it, under a lock. It uses no shared memory, so that it may be on a network file
system. Every change is a transaction: after any interruption the next run can continue.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillscan.app.backfill.errors import BackfillRunsError, JournalError
from stillscan.operators.output_faults import naming_output_faults

FILE = "backfill.sqlite"
LOCK = "lock"
SCHEMA = """
CREATE TABLE IF NOT EXISTS listing (number INTEGER PRIMARY KEY AUTOINCREMENT, began REAL);
CREATE TABLE IF NOT EXISTS file (
    path BLOB PRIMARY KEY,     -- as the file system has it
    size INTEGER, mtime_ns INTEGER,
    series TEXT,               -- '' where the file is no DICOM
    study TEXT, instance TEXT, series_number INTEGER,
    listing INTEGER            -- the last that has seen it
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS file_by_series ON file (series, listing);
CREATE INDEX IF NOT EXISTS file_by_study ON file (study, listing);
CREATE TABLE IF NOT EXISTS archived (
    series TEXT PRIMARY KEY, study TEXT, series_number INTEGER, instances INTEGER, listing INTEGER,
    first INTEGER              -- listing that saw it first, with so many instances
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS archived_by_study ON archived (study, listing);
CREATE TABLE IF NOT EXISTS arithmetic (configuration TEXT PRIMARY KEY, arithmetic TEXT);
CREATE TABLE IF NOT EXISTS outcome (
    series TEXT, content TEXT, configuration TEXT,
    state TEXT, reason TEXT, message TEXT,
    tries INTEGER, study TEXT, derived TEXT, place TEXT, modality TEXT, slices INTEGER,
    seconds REAL, result TEXT, ended REAL,
    PRIMARY KEY (series, content, configuration)
) WITHOUT ROWID;
"""


@contextmanager
def opened_state(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the record of a back-fill for this process alone.

    Raises:
        BackfillRunsError: if another process uses it.
        JournalError: if the file is not such a record, or cannot be written.
        OutputError: if the folder cannot be written.
    """
    with naming_output_faults(f"keep the record of the back-fill in {folder}"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackfillRunsError(f"another back-fill works with {folder}") from error
        with naming_journal_faults():
            connection = sqlite3.connect(folder / FILE, isolation_level=None)
            try:
                connection.executescript(SCHEMA)
                yield connection
            finally:
                connection.close()
    finally:
        os.close(lock)


@contextmanager
def naming_journal_faults() -> Iterator[None]:
    """Turn errors of SQLite into a `JournalError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"the record of the back-fill: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Apply all changes or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")

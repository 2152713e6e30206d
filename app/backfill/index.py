"""The index of the source in the record: filled by a listing, read a few series at a time."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from stillscan.app.backfill.database import transaction
from stillscan.app.backfill.work_items import ArchivedSeries, SeriesFiles, WorkItem, digest_of
from stillscan.app.dicomweb.query import FoundSeries

PAGE = 200


@dataclass(frozen=True)
class IndexedFile:
    """The indexed data of a file; `series` is "" for a file that is not DICOM."""

    path: Path
    size: int
    mtime_ns: int
    series: str
    study: str = ""
    instance: str = ""
    series_number: int | None = None


class SeriesIndex:
    """The series of one listing of the source."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Start a listing; what it does not find counts as removed."""
        self._connection = connection
        begun = connection.execute("INSERT INTO listing (began) VALUES (?)", (time.time(),))
        self._listing = int(begun.lastrowid or 0)

    def together(self) -> AbstractContextManager[None]:
        """Return a context whose changes are one transaction."""
        return transaction(self._connection)

    def seen_before(self, path: Path, size: int, mtime_ns: int) -> bool:
        """Return whether the file is known and unchanged; if so, add it to this listing."""
        changed = self._connection.execute(
            "UPDATE file SET listing=? WHERE path=? AND size=? AND mtime_ns=?",
            (self._listing, os.fsencode(path), size, mtime_ns),
        )
        return changed.rowcount == 1

    def add_files(self, files: Iterable[IndexedFile]) -> None:
        """Store the data of files, in one transaction."""
        rows = [
            (
                os.fsencode(each.path),
                each.size,
                each.mtime_ns,
                each.series,
                each.study,
                each.instance,
                each.series_number,
                self._listing,
            )
            for each in files
        ]
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def add_archived(self, found: Iterable[FoundSeries]) -> None:
        """Store series that an archive has listed, in one transaction."""
        rows = [
            (
                each.series_instance_uid,
                each.study_instance_uid,
                each.series_number,
                each.instances,
                self._listing,
                self._listing,
            )
            for each in found
        ]
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT INTO archived VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (series) DO UPDATE SET "
                "study=excluded.study, series_number=excluded.series_number, "
                "first=CASE WHEN instances IS excluded.instances THEN first "
                "ELSE excluded.first END, "
                "instances=excluded.instances, listing=excluded.listing",
                rows,
            )

    def count(self) -> int:
        """Return the number of series in the listing."""
        return int(
            self._one("SELECT count(DISTINCT series) FROM file WHERE listing=? AND series<>''")
            + self._one("SELECT count(*) FROM archived WHERE listing=?")
        )

    def count_skipped(self) -> int:
        """Return the number of files that are not DICOM."""
        return int(self._one("SELECT count(*) FROM file WHERE listing=? AND series=''"))

    def items(self) -> Iterator[WorkItem]:
        """Yield every series, by UID; a few are in memory at a time."""
        for series in self._keys("SELECT DISTINCT series FROM file"):
            yield self._series_files(series)
        for series in self._keys("SELECT series FROM archived"):
            yield self._archived(series)

    def _keys(self, query: str) -> Iterator[str]:
        last = ""
        while page := self._connection.execute(
            f"{query} WHERE listing=? AND series>? ORDER BY series LIMIT {PAGE}",
            (self._listing, last),
        ).fetchall():
            for (last,) in page:
                yield last

    def _series_files(self, series: str) -> SeriesFiles:
        rows = self._connection.execute(
            "SELECT path, study, instance FROM file WHERE series=? AND listing=? ORDER BY path",
            (series, self._listing),
        ).fetchall()
        study = str(rows[0][1])
        instances = sorted({str(instance) for _, _, instance in rows})
        return SeriesFiles(
            key=series,
            content=digest_of(*instances),
            study_instance_uid=study,
            taken_numbers=self._numbers("file", study, self._listing),
            files=tuple(Path(os.fsdecode(path)) for path, _, _ in rows),
        )

    def _archived(self, series: str) -> ArchivedSeries:
        study, instances, first = self._connection.execute(
            "SELECT study, instances, first FROM archived WHERE series=?", (series,)
        ).fetchone()
        return ArchivedSeries(
            key=series,
            content=f"{instances} instances",
            study_instance_uid=study,
            taken_numbers=self._numbers("archived", study, first),
            instances=instances,
        )

    def _numbers(self, table: str, study: str, known_at: int) -> frozenset[int]:
        """Return the SeriesNumbers of a study; of an archive as of the first listing of the series.

        Series that this back-fill has stored since must not change the number of the derived
        series: a part of it may be stored already, from an interrupted attempt.
        """
        known = "first<=?" if table == "archived" else "listing=?"
        found = self._connection.execute(
            f"SELECT DISTINCT series_number FROM {table} WHERE study=? AND {known}",
            (study, known_at),
        )
        return frozenset(number for (number,) in found if number is not None)

    def _one(self, query: str) -> int:
        (value,) = self._connection.execute(query, (self._listing,)).fetchone()
        return int(value)

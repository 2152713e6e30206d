"""The outcomes of the series, so that a second run does not repeat finished ones."""

from __future__ import annotations

import csv
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from stillscan.app.backfill.database import transaction
from stillscan.app.backfill.errors import WorkerDiffersError
from stillscan.app.backfill.records import Outcome, Ready, State
from stillscan.app.backfill.work_items import WorkItem
from stillscan.operators.output_faults import naming_output_faults

FINAL: tuple[State, ...] = ("derived", "refused", "not-selected")
COLUMNS = (
    "series",
    "state",
    "reason",
    "message",
    "tries",
    "derived",
    "modality",
    "slices",
    "seconds",
)


class Journal:
    """The outcomes with one configuration: with other weights a series is denoised again."""

    def __init__(self, connection: sqlite3.Connection, configuration: str) -> None:
        """`configuration` is a digest of all that can change a derived series."""
        self._connection = connection
        self._configuration = configuration

    def is_empty(self) -> bool:
        """Return whether nothing was ever recorded, with any configuration."""
        return self._connection.execute("SELECT 1 FROM outcome LIMIT 1").fetchone() is None

    def agree(self, worker: Ready) -> None:
        """Accept a worker; the first of all runs determines backend, precision and device.

        Raises:
            WorkerDiffersError: if it would compute other pixels, and so other UIDs, than the
                others.
        """
        if worker.digest != self._configuration:
            raise WorkerDiffersError("a worker has another version, other bundles or settings")
        with transaction(self._connection):
            self._connection.execute(
                "INSERT OR IGNORE INTO arithmetic VALUES (?, ?)",
                (self._configuration, worker.arithmetic),
            )
        (first,) = self._connection.execute(
            "SELECT arithmetic FROM arithmetic WHERE configuration=?", (self._configuration,)
        ).fetchone()
        if worker.arithmetic != first:
            raise WorkerDiffersError(
                f"a worker runs {worker.arithmetic}, earlier workers ran {first}; use --device, "
                "--engine and denoise.precision to make them equal"
            )

    def settled(self, item: WorkItem, destination: Path | None) -> Outcome | None:
        """Return the outcome of a series if it is final and the derived series still exists."""
        row = self._connection.execute(
            "SELECT state, reason, message, derived, place, modality, slices, seconds FROM outcome "
            "WHERE series=? AND content=? AND configuration=?",
            (item.key, item.content, self._configuration),
        ).fetchone()
        if row is None or row[0] not in FINAL:
            return None
        outcome = Outcome(*row)
        if outcome.place and destination is not None and not (destination / outcome.place).exists():
            return None
        return outcome

    def record(self, item: WorkItem, outcome: Outcome, tries: int) -> None:
        """Record the outcome of a series; no later run repeats it."""
        with transaction(self._connection):
            self._connection.execute(
                "INSERT OR REPLACE INTO outcome VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    item.key,
                    item.content,
                    self._configuration,
                    outcome.state,
                    outcome.reason,
                    outcome.message,
                    tries,
                    item.study_instance_uid,
                    outcome.derived,
                    outcome.place,
                    outcome.modality,
                    outcome.slices,
                    outcome.seconds,
                    outcome.result,
                    time.time(),
                ),
            )

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield every outcome with this configuration, the values of COLUMNS."""
        yield from self._connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM outcome WHERE configuration=? ORDER BY series",
            (self._configuration,),
        )

    def write_csv(self, path: Path) -> None:
        """Write a table with one line for each series.

        Raises:
            OutputError: if it cannot be written.
        """
        with (
            naming_output_faults("write the table of series"),
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow(COLUMNS)
            table.writerows(self.rows())

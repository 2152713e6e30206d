"""What became of each series: what a second run need not do again."""

from __future__ import annotations

import csv
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.backfill.database import transaction
from app.backfill.work_items import WorkItem
from operators.output_faults import naming_output_faults

State = Literal["derived", "refused", "not-selected", "failed"]
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


@dataclass(frozen=True)
class Outcome:
    """What became of one series.

    Attributes:
        state: `derived`; `refused` (something is wrong with it); `not-selected` (by the rules);
            `failed` (by a fault that is not its own: the next run tries again).
        reason: stable code, empty where the series was derived.
        derived: SeriesInstanceUID of the derived series.
        place: folder of the derived series, relative to the destination; "" in an archive.
        seconds: of the worker.
        result: as in `result.json`, as JSON.
    """

    state: State
    reason: str = ""
    message: str = ""
    derived: str = ""
    place: str = ""
    modality: str = ""
    slices: int = 0
    seconds: float = 0.0
    result: str = ""


class Journal:
    """The outcomes under one configuration: the same series with other weights is other work."""

    def __init__(self, connection: sqlite3.Connection, configuration: str) -> None:
        """`configuration` is a digest of whatever can change a derived series."""
        self._connection = connection
        self._configuration = configuration

    def is_empty(self) -> bool:
        """Whether nothing was ever recorded, under any configuration."""
        return self._connection.execute("SELECT 1 FROM outcome LIMIT 1").fetchone() is None

    def settled(self, item: WorkItem, destination: Path | None) -> Outcome | None:
        """What became of a series, if that is final and the derived one is still there."""
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
        """Keep what became of a series; once this returns, no later run does it again."""
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
        """Every outcome under this configuration, the values of COLUMNS."""
        yield from self._connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM outcome WHERE configuration=? ORDER BY series",
            (self._configuration,),
        )

    def write_csv(self, path: Path) -> None:
        """One line for each series.

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

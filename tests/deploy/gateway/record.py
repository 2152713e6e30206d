"""A record with series and jobs in it, for tests that need no process."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.incoming_series import (
    Filed,
    NewJob,
    ReadySeries,
    SeriesRecord,
    Task,
)
from stillscan.deploy.gateway.settings import CompletenessSection, Places

AT_ONCE = CompletenessSection(quiet_s=0.0, settled_s=0.0, patience_s=0.0)
TASK = Task(None, "identity", None, ("pacs",))
_numbers = count(1)


def filed(series: str = "1.2", sop: str = "", received: float = 1000.0, **changes: object) -> Filed:
    """An instance of a series; without `sop`, one that was never seen."""
    sop = sop or f"{series}.{next(_numbers)}"
    values: dict[str, object] = {
        "name": f"{sop}.dcm",
        "series_uid": series,
        "study_uid": "1",
        "sop_uid": sop,
        "modality": "MR",
        "series_number": None,
        "sender": "SCANNER",
        "images": 1,
        "expected": None,
        "ours": False,
        "bytes": 100,
        "received": received,
    }
    return Filed(**values | changes)  # type: ignore[arg-type]


def new_job(rule: str = "all", priority: int = 0, task: Task = TASK, **changes: str) -> NewJob:
    """The job that a rule makes."""
    return NewJob(rule, task, priority, "configuration", **changes)


class Record:
    """Database and series record below a folder."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder)
        self.database = Database(self.places.database)
        self.series = SeriesRecord(self.database)

    def ready(self, now: float = 2000.0) -> list[ReadySeries]:
        return self.series.ready(AT_ONCE, now)

    def job(self, series: str = "1.2", priority: int = 0, task: Task = TASK) -> int:
        """File an instance of a series and make its job."""
        self.series.file([filed(series)])
        (ready,) = (each for each in self.ready() if each.uid == series)
        number = self.series.close(ready, new_job(priority=priority, task=task), 2000.0)
        assert number is not None
        return number

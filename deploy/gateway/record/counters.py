"""Counters of one process, added to the record once a second; the record keeps the totals."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter

from stillscan.deploy.gateway.record.overview import Overview

WRITTEN_EVERY_S = 1.0


class Counters:
    """`count("instances_refused", 1)`; safe to use from several threads."""

    def __init__(self, overview: Overview) -> None:
        """All counters are zero."""
        self._overview = overview
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __call__(self, name: str, increment: int = 1) -> None:
        """Increment a counter."""
        with self._lock:
            self._counts[name] += increment

    def __enter__(self) -> Counters:
        """Start writing once a second."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the remaining counts."""
        self._ended.set()
        self._thread.join()
        self.write()

    def write(self) -> None:
        """Add what was counted since the last call to the totals of the record."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        try:
            if counts:
                self._overview.add_to_totals(counts)
        except sqlite3.OperationalError:  # the disk is full or the record busy: try again later
            with self._lock:
                self._counts.update(counts)

    def _run(self) -> None:
        while not self._ended.wait(WRITTEN_EVERY_S):
            self.write()

"""The loop: series from the index to workers, outcomes into the journal, failures tried again.

    index -> (not done yet) -> pool -> derived | refused | not selected -> journal
                ^                |
                +---- fault -----+   a bounded number of tries, each later than the one before

Only as many series are in memory as there are workers, and a few that wait for another attempt.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stillscan.app.backfill.journal import Journal
from stillscan.app.backfill.pool import Ended
from stillscan.app.backfill.records import Outcome
from stillscan.app.backfill.work_items import WorkItem
from stillscan.operators.errors import ExitCode

TURN_S = 1.0
FIRST_DELAY_S = 2.0
DELAY_GROWS = 4.0
MOST_WAITING = 16  # for another attempt; beyond, no new series is started
FAILURES_KEPT = 20
IN_A_ROW = 10  # consecutive failures: the cause is not the series


class Workers(Protocol):
    """The part of a `Pool` that the loop uses."""

    @property
    def idle(self) -> int:
        """Number of workers that wait for a series."""

    @property
    def busy(self) -> int:
        """Number of series in progress."""

    def give(self, item: WorkItem) -> str:
        """Give a series to an idle worker."""

    def wait(self, at_most_s: float) -> list[Ended]:
        """Return what has ended since the last call."""


@dataclass
class Tally:
    """Progress of a back-fill.

    Attributes:
        total: number of series in the source.
        before: final outcomes of earlier runs, by state and reason.
        now: outcomes of this run.
        killed: number of workers that ended during a series.
        stopped: why the run ended early; "" if it did not.
    """

    total: int
    before: Counter[tuple[str, str]] = field(default_factory=Counter)
    now: Counter[tuple[str, str]] = field(default_factory=Counter)
    slices: int = 0
    retried: int = 0
    killed: int = 0
    began: float = field(default_factory=time.monotonic)
    first_given: float | None = None
    stopped: str = ""
    stop_code: ExitCode | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of series that have an outcome."""
        return self.before.total() + self.now.total()

    @property
    def seconds(self) -> float:
        """Seconds since the first series was given to a worker."""
        return 0.0 if self.first_given is None else time.monotonic() - self.first_given

    @property
    def per_hour(self) -> float | None:
        """Series finished by this run, per hour; None if there is none."""
        done = self.now.total()
        return 3600 * done / self.seconds if done and self.seconds else None

    @property
    def left_s(self) -> float | None:
        """Estimated seconds for the remaining series; None if unknown."""
        rate = self.per_hour
        return 3600 * (self.total - self.done) / rate if rate else None

    def counts(self) -> Counter[tuple[str, str]]:
        """Outcomes of this run and of those before it."""
        return self.before + self.now

    def exit_code(self) -> ExitCode:
        """Return the exit code: all series derived, some, or the reason for none."""
        if self.stop_code is not None:
            return self.stop_code
        states: Counter[str] = Counter()
        for (state, _), number in self.counts().items():
            states[state] += number
        wrong = states["refused"] + states["failed"]
        if states["derived"]:
            return ExitCode.PARTLY_DERIVED if wrong else ExitCode.DERIVED
        return ExitCode.BAD_INPUT if wrong else ExitCode.NOTHING_TO_DO


@dataclass
class _Attempt:
    item: WorkItem
    tries: int = 0
    not_before: float = 0.0


def missing(
    items: Iterator[WorkItem], journal: Journal, destination: Path | None, tally: Tally
) -> Iterator[WorkItem]:
    """Yield the series without a final outcome and count the others."""
    for item in items:
        settled = journal.settled(item, destination)
        if settled is None:
            yield item
        else:
            tally.before[settled.state, settled.reason] += 1


class Loop:
    """Gives series to workers until none is left."""

    def __init__(
        self,
        journal: Journal,
        tally: Tally,
        tries: int,
        tidy: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the loop.

        Args:
            journal: record for every outcome.
            tally: counters, which are updated.
            tries: maximum attempts per series.
            tidy: removes the files of a killed worker in the folder of a token.
            clock: clock in seconds.
        """
        self._journal = journal
        self._tally = tally
        self._tries = tries
        self._tidy = tidy
        self._clock = clock
        self._given: dict[str, tuple[_Attempt, str]] = {}
        self._waiting: list[_Attempt] = []
        self._failed_in_a_row = 0

    def run(
        self, items: Iterator[WorkItem], workers: Workers, progress: Callable[[], None]
    ) -> None:
        """Process every series, or stop when no progress is possible."""
        left = True
        while not self._tally.stopped:
            while workers.idle:
                attempt = self._due()
                if attempt is None and left and len(self._waiting) < MOST_WAITING:
                    item = next(items, None)
                    left = item is not None
                    attempt = None if item is None else _Attempt(item)
                if attempt is None:
                    break
                self._give(workers, attempt)
            if not (left or workers.busy or self._waiting):
                return
            for ended in workers.wait(TURN_S):
                self._take(ended)
            progress()

    def _due(self) -> _Attempt | None:
        """Return the series that has waited longest for another attempt, if it is due."""
        now = self._clock()
        for attempt in self._waiting:
            if attempt.not_before <= now:
                self._waiting.remove(attempt)
                return attempt
        return None

    def _give(self, workers: Workers, attempt: _Attempt) -> None:
        if self._tally.first_given is None:
            self._tally.first_given = time.monotonic()
        attempt.tries += 1
        self._given[attempt.item.key] = attempt, workers.give(attempt.item)

    def _take(self, ended: Ended) -> None:
        attempt, token = self._given.pop(ended.item.key)
        if ended.killed:
            self._tally.killed += 1
            self._tidy(token)
        ending = ended.ending
        if isinstance(ending, Outcome):
            self._record(attempt, ending)
        elif ending.exit_code is not None:  # affects every series: no outcome for this one
            self._stop(f"{ending.reason}: {ending.message}", ending.exit_code)
        elif attempt.tries < self._tries:
            delay = 0.0 if ended.killed else FIRST_DELAY_S * DELAY_GROWS ** (attempt.tries - 1)
            attempt.not_before = self._clock() + delay
            self._waiting.append(attempt)
            self._tally.retried += 1
        else:
            self._record(attempt, Outcome("failed", ending.reason, ending.message))

    def _record(self, attempt: _Attempt, outcome: Outcome) -> None:
        self._journal.record(attempt.item, outcome, attempt.tries)
        self._tally.now[outcome.state, outcome.reason] += 1
        self._tally.slices += outcome.slices
        if outcome.state != "failed":
            self._failed_in_a_row = 0
            return
        line = f"{attempt.item.key}: {outcome.reason}: {outcome.message}"
        if len(self._tally.failures) < FAILURES_KEPT:
            self._tally.failures.append(line)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= IN_A_ROW:
            self._stop(f"{IN_A_ROW} series in a row failed, the last with {outcome.reason}", None)

    def _stop(self, why: str, code: ExitCode | None) -> None:
        self._tally.stopped = why
        self._tally.stop_code = code

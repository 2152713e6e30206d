"""The loop: series from the index to workers, endings into the journal, failures to other workers.

    index -> (not done yet) -> pool -> derived | refused | not selected -> journal
                ^                |
                +---- fault -----+   a bounded number of tries, each later than the one before

No more series are in memory than there are workers, and a few that wait for another try.
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
MOST_WAITING = 16  # for another try; beyond, no new series is begun
FAILURES_KEPT = 20
IN_A_ROW = 10  # series that fail one after the other: it is not they that are at fault


class Workers(Protocol):
    """What the loop needs of a `Pool`."""

    @property
    def idle(self) -> int:
        """How many workers wait for a series."""

    @property
    def busy(self) -> int:
        """How many series are being worked on."""

    def give(self, item: WorkItem) -> str:
        """Let an idle worker try a series."""

    def wait(self, at_most_s: float) -> list[Ended]:
        """What has ended since."""


@dataclass
class Tally:
    """How far a back-fill is.

    Attributes:
        total: series of the source.
        before: outcomes of earlier runs that stand, by state and reason.
        now: outcomes of this run.
        killed: workers that ended in the middle of a series.
        stopped: why the run ended before its time; "" where it did not.
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
        """Series that have an outcome."""
        return self.before.total() + self.now.total()

    @property
    def seconds(self) -> float:
        """Since the first series was given to a worker."""
        return 0.0 if self.first_given is None else time.monotonic() - self.first_given

    @property
    def per_hour(self) -> float | None:
        """Series that this run has brought to an end, per hour; None where there is none."""
        done = self.now.total()
        return 3600 * done / self.seconds if done and self.seconds else None

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at this rate; None where it is not known."""
        rate = self.per_hour
        return 3600 * (self.total - self.done) / rate if rate else None

    def counts(self) -> Counter[tuple[str, str]]:
        """Outcomes of this run and of those before it."""
        return self.before + self.now

    def exit_code(self) -> ExitCode:
        """What the process says: all derived, some, or why none."""
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
    """The series that no run has brought to an end; counts the others."""
    for item in items:
        settled = journal.settled(item, destination)
        if settled is None:
            yield item
        else:
            tally.before[settled.state, settled.reason] += 1


class Loop:
    """Keeps the workers busy until nothing is left."""

    def __init__(
        self,
        journal: Journal,
        tally: Tally,
        tries: int,
        tidy: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            journal: gets every outcome.
            tally: is kept.
            tries: of a series, at most.
            tidy: removes what a killed worker has left in the folder of this token.
            clock: seconds.
        """
        self._journal = journal
        self._tally = tally
        self._tries = tries
        self._tidy = tidy
        self._clock = clock
        self._given: dict[str, tuple[_Attempt, str]] = {}
        self._waiting: list[_Attempt] = []
        self._failed_in_a_row = 0

    def run(self, items: Iterator[WorkItem], workers: Workers, told: Callable[[], None]) -> None:
        """Bring every series to an end, or stop where nothing goes any more."""
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
            told()

    def _due(self) -> _Attempt | None:
        """The series that has waited longest for another try, if its time has come."""
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
        elif ending.exit_code is not None:  # it concerns every series: this one is not done
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

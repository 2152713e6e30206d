"""What becomes of series whose attempts fail: tried again elsewhere, a bounded number of times."""

import pickle
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stillscan.app.backfill.configuration import Configuration
from stillscan.app.backfill.database import FILE, opened_state
from stillscan.app.backfill.destinations import Destination
from stillscan.app.backfill.errors import BackfillRunsError, JournalError, WorkerDiffersError
from stillscan.app.backfill.journal import Journal
from stillscan.app.backfill.pool import Ended
from stillscan.app.backfill.records import Fault, Outcome, Ready
from stillscan.app.backfill.run import IN_A_ROW, MOST_WAITING, Loop, Tally, missing
from stillscan.app.backfill.work_items import ArchivedSeries, SeriesFiles, WorkItem
from stillscan.app.backfill.worker import Order
from stillscan.app.dicomweb.endpoint import Endpoint
from stillscan.app.settings import load_settings
from stillscan.operators.errors import ExitCode

DERIVED = Outcome("derived", derived="2.25.1", slices=3)
STOPPED = Fault("worker-stopped", "the worker ended")
Try = Callable[[WorkItem, int], Outcome | Fault]


class Scripted:
    """Two workers that end as the test says; time goes on while the loop waits."""

    def __init__(self, ending: Try) -> None:
        self._ending = ending
        self._running: list[WorkItem] = []
        self.tries: Counter[str] = Counter()
        self.most_running = 0
        self.time = 0.0

    @property
    def idle(self) -> int:
        return 2 - len(self._running)

    @property
    def busy(self) -> int:
        return len(self._running)

    def give(self, item: WorkItem) -> str:
        self._running.append(item)
        self.most_running = max(self.most_running, len(self._running))
        self.tries[item.key] += 1
        return f"{item.key}/{self.tries[item.key]}"

    def wait(self, at_most_s: float) -> list[Ended]:
        self.time += at_most_s
        if not self._running:
            return []
        item = self._running.pop(0)
        ending = self._ending(item, self.tries[item.key])
        return [Ended(item, ending, killed=ending == STOPPED)]


def item(number: int) -> WorkItem:
    return WorkItem(f"1.{number}", "content", "1.2", frozenset())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with opened_state(tmp_path) as connection:
        yield Journal(connection, "configuration")


def run(
    journal: Journal, ending: Try, series: int, tidied: list[str] | None = None
) -> tuple[Tally, Scripted]:
    tally, workers = Tally(series), Scripted(ending)
    tidy = [].append if tidied is None else tidied.append
    loop = Loop(journal, tally, 3, tidy, lambda: workers.time)
    items = missing(map(item, range(series)), journal, None, tally)
    loop.run(items, workers, lambda: None)
    return tally, workers


def test_a_series_whose_worker_dies_is_done_by_another(journal: Journal):
    tidied: list[str] = []
    tally, workers = run(
        journal,
        lambda item, tries: STOPPED if (item.key, tries) == ("1.3", 1) else DERIVED,
        12,
        tidied,
    )
    assert tally.now == {("derived", ""): 12}
    assert workers.tries["1.3"] == 2
    assert workers.tries.total() == 13
    assert tidied == ["1.3/1"]


def test_a_series_that_kills_every_worker_is_given_up_and_listed(journal: Journal):
    tally, workers = run(journal, lambda item, _: STOPPED if item.key == "1.3" else DERIVED, 12)
    assert tally.now == {("derived", ""): 11, ("failed", "worker-stopped"): 1}
    assert workers.tries["1.3"] == 3
    assert tally.failures == ["1.3: worker-stopped: the worker ended"]
    assert tally.exit_code() == ExitCode.PARTLY_DERIVED


def test_what_failed_is_tried_by_the_next_run_and_the_rest_is_not(journal: Journal):
    run(journal, lambda item, _: STOPPED if item.key == "1.3" else DERIVED, 12)
    tally, workers = run(journal, lambda *_: DERIVED, 12)
    assert workers.tries == {"1.3": 1}
    assert tally.before == {("derived", ""): 11}
    assert tally.exit_code() == ExitCode.DERIVED


def test_a_refused_series_is_refused_once(journal: Journal):
    run(journal, lambda *_: Outcome("refused", "mixed-matrix"), 2)
    tally, workers = run(journal, lambda *_: DERIVED, 2)
    assert not workers.tries
    assert tally.exit_code() == ExitCode.BAD_INPUT


def test_tries_after_a_fault_come_later_and_later(journal: Journal):
    times: list[float] = []
    tally, workers = Tally(1), Scripted(lambda *_: Fault("unreachable", "nobody"))
    loop = Loop(journal, tally, 3, [].append, lambda: workers.time)
    given = workers.give

    def give(item: WorkItem) -> str:
        times.append(workers.time)
        return given(item)

    workers.give = give  # type: ignore[method-assign]
    loop.run(iter([item(0)]), workers, lambda: None)
    first, second = times[1] - times[0], times[2] - times[1]
    assert second > first >= 2


def test_a_run_in_which_everything_fails_stops(journal: Journal):
    tally, workers = run(journal, lambda *_: Fault("unreachable", "nobody"), 1000)
    assert tally.stopped
    assert tally.now == {("failed", "unreachable"): IN_A_ROW}
    assert len(workers.tries) <= IN_A_ROW + MOST_WAITING + 2
    assert tally.exit_code() == ExitCode.BAD_INPUT


def test_a_fault_that_concerns_every_series_ends_the_run(journal: Journal):
    full = Fault("disk-full", "no room", ExitCode.OUTPUT_FAULT)
    tally, workers = run(journal, lambda item, _: full if item.key == "1.3" else DERIVED, 12)
    assert tally.exit_code() == ExitCode.OUTPUT_FAULT
    assert workers.tries.total() < 7
    assert journal.settled(item(3), None) is None


def test_no_more_series_are_taken_than_there_are_workers(journal: Journal):
    taken = 0

    def items() -> Iterator[WorkItem]:
        nonlocal taken
        for number in range(100):
            taken += 1
            assert taken <= ended + 2
            yield item(number)

    ended = 0

    def ending(*_: object) -> Outcome:
        nonlocal ended
        ended += 1
        return DERIVED

    workers = Scripted(ending)
    Loop(journal, Tally(100), 3, [].append).run(items(), workers, lambda: None)
    assert ended == 100
    assert workers.most_running == 2


def test_time_left_follows_from_the_rate(journal: Journal):
    tally = Tally(100)
    assert tally.left_s is None
    tally.first_given = tally.began - 60
    tally.before["derived", ""] = 40
    tally.now["derived", ""] = 20
    assert tally.per_hour == pytest.approx(1200, rel=0.01)
    assert tally.left_s == pytest.approx(120, rel=0.01)


def test_workers_that_would_make_other_pixels_do_not_begin(tmp_path: Path):
    with opened_state(tmp_path) as connection:
        Journal(connection, "configuration").agree(Ready("configuration", "torch float32 on cpu"))
    with opened_state(tmp_path) as connection:
        journal = Journal(connection, "configuration")
        journal.agree(Ready("configuration", "torch float32 on cpu"))
        for other in (Ready("other", "torch float32 on cpu"), Ready("configuration", "on cuda")):
            with pytest.raises(WorkerDiffersError):
                journal.agree(other)


def test_what_workers_are_given_travels(tmp_path: Path):
    archive = Endpoint("http://127.0.0.1/dicom-web", "Bearer s3cr3t")
    order = Order(Configuration(load_settings()), Destination(archive=archive), archive)
    items = [
        ArchivedSeries("1.2.3", "24 instances", "1.2", frozenset({1}), 24),
        SeriesFiles("1.2.4", "digest", "1.2", frozenset(), (tmp_path / "a",)),
    ]
    assert pickle.loads(pickle.dumps((order, items))) == (order, items)
    assert "s3cr3t" not in repr(order)


def test_two_back_fills_never_share_a_record(tmp_path: Path):
    with (
        opened_state(tmp_path),
        pytest.raises(BackfillRunsError),
        opened_state(tmp_path),
    ):
        pass


def test_a_record_that_is_none_is_named(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(JournalError), opened_state(tmp_path):
        pass
    with pytest.raises(sqlite3.Error):
        sqlite3.connect(tmp_path / FILE).execute("SELECT * FROM outcome")

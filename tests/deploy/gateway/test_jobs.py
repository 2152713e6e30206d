"""Jobs: one attempt at a time, tried again after faults, dead in the end, never twice."""

import time

import pytest

from stillscan.deploy.gateway.record.deliveries import Outbox
from stillscan.deploy.gateway.record.incoming_series import Task
from stillscan.deploy.gateway.record.jobs import Ending, JobQueue
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import SenderSection, WorkerSection
from tests.deploy.gateway.record import TASK, Record, filed, new_job

DERIVED = Ending("derived", derived_uid="2.25.1", instances=3, result={"noise": {"before": 1.0}})


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path)


@pytest.fixture
def queue(record):
    return JobQueue(record.database, WorkerSection(attempts=2, backoff_s=0.0))


def test_higher_priority_comes_first_then_age(record, queue):
    record.job("1.1")
    record.job("1.2", priority=5)
    record.job("1.3", priority=5)
    claimed = [queue.claim().series_uid for _ in range(3)]
    assert claimed == ["1.2", "1.3", "1.1"]
    assert queue.claim() is None


def test_a_derived_job_waits_in_the_outbox_of_each_destination(record, queue):
    number = record.job(task=Task(None, None, None, ("pacs", "research")))
    assert queue.finish(queue.claim(), DERIVED)
    overview = Overview(record.places)
    job = overview.job(number)
    assert (job.state, job.derived_series_uid) == ("derived", "2.25.1")
    assert job.result == {"noise": {"before": 1.0}}
    assert [(each.destination, each.state) for each in overview.deliveries(number)] == [
        ("pacs", "waiting"),
        ("research", "waiting"),
    ]


def test_a_fault_is_tried_again_and_then_dead(record, queue):
    number = record.job()
    for state in ("queued", "dead"):
        attempt = queue.claim()
        assert queue.fail(attempt.number, attempt.attempt, "model-fault", "why")
        assert Overview(record.places).job(number).state == state
    assert queue.claim() is None
    assert Overview(record.places).job(number).reason == "model-fault"


def test_the_next_attempt_waits(record):
    queue = JobQueue(record.database, WorkerSection(attempts=3, backoff_s=60.0))
    number = record.job()
    attempt = queue.claim()
    queue.fail(number, attempt.attempt, "out-of-memory", "")
    assert queue.claim() is None
    with record.database.reading() as connection:
        (due,) = connection.execute("SELECT not_before FROM jobs").fetchone()
    assert due == pytest.approx(time.time() + 60, abs=5)


def test_what_a_given_up_attempt_says_is_not_heard(record, queue):
    number = record.job()
    late = queue.claim()
    queue.fail(number, late.attempt, "time-out", "")
    assert not queue.finish(late, DERIVED)
    assert not queue.fail(number, late.attempt, "model-fault", "")
    now = queue.claim()
    assert not queue.finish(late, DERIVED)
    assert queue.finish(now, DERIVED)
    assert len(Overview(record.places).deliveries(number)) == 1


def test_a_worker_that_ends_costs_an_attempt(record, queue):
    record.job()
    queue.claim()
    assert queue.recover() == 1
    assert queue.claim().attempt == 2
    queue.recover()
    assert queue.claim() is None
    (job,) = Overview(record.places).recent_jobs()
    assert (job.state, job.reason) == ("dead", "worker-stopped")


@pytest.mark.parametrize("state", ["refused", "dead"])
def test_the_operator_may_retry_what_failed(record, queue, state):
    number = record.job()
    overview = Overview(record.places)
    assert not overview.retry_job(number)
    queue.finish(queue.claim(), Ending(state, "quality-gate"))
    assert overview.retry_job(number)
    assert queue.claim().attempt == 1
    assert not overview.retry_job(number)


def test_a_delivery_is_tried_again_and_then_dead(record, queue):
    number = record.job(task=TASK)
    queue.finish(queue.claim(), DERIVED)
    outbox = Outbox(record.database, SenderSection(attempts=2, backoff_s=0.0))
    assert outbox.claim("elsewhere") is None
    outbox.failed(outbox.claim("pacs"), "unreachable", "")
    outbox.failed(outbox.claim("pacs"), "status-a700", "")
    assert outbox.claim("pacs") is None
    overview = Overview(record.places)
    (delivery,) = overview.deliveries(number)
    assert (delivery.state, delivery.reason) == ("dead", "status-a700")
    assert overview.retry_delivery(delivery.number)
    outbox.sent(outbox.claim("pacs"))
    assert overview.deliveries(number)[0].state == "sent"
    assert overview.counts().totals["instances_sent"] == 3


def test_a_sender_that_ends_costs_no_attempt(record, queue):
    record.job()
    queue.finish(queue.claim(), DERIVED)
    outbox = Outbox(record.database, SenderSection(attempts=1))
    for _ in range(5):
        assert outbox.claim("pacs").attempt == 1
        assert outbox.recover() == 1


def test_a_delivery_to_a_destination_that_is_gone_is_dead(record, queue):
    number = record.job()
    queue.finish(queue.claim(), DERIVED)
    outbox = Outbox(record.database, SenderSection())
    assert outbox.fail_unknown_destinations(["pacs"]) == 0
    assert outbox.fail_unknown_destinations([]) == 1
    assert Overview(record.places).deliveries(number)[0].reason == "unknown-destination"


def test_numbers_that_are_taken_in_the_study_are_known(record, queue):
    record.series.file(
        [
            filed("1.1", study_uid="s", series_number=2),
            filed("1.2", study_uid="s", series_number=3),
            filed("1.3", study_uid="t", series_number=4),
        ]
    )
    for series in record.ready():
        record.series.close(series, new_job(), 2000.0)
    first = queue.claim()
    assert first.taken_numbers == {2, 3}
    queue.finish(first, Ending("derived", derived_uid="2.25.1", derived_number=201))
    assert queue.claim().taken_numbers == {2, 3, 201}
    assert queue.claim().taken_numbers == {4}

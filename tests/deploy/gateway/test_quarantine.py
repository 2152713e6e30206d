"""What cannot be filed is set aside with its reason; everything else goes on."""

import json
import sqlite3
import time
from pathlib import Path

import pytest

from bench.robustness.headers.tree import HeaderTree
from stillscan.deploy.gateway.planner import planner as planner_module
from stillscan.deploy.gateway.planner.planner import instance_path
from stillscan.deploy.gateway.record.clock import Clock
from stillscan.deploy.gateway.record.database import Database, RecordDamagedError
from stillscan.deploy.gateway.record.incoming_series import SeriesRecord
from stillscan.deploy.gateway.record.jobs import Ending, JobQueue
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.record.quarantine import Quarantine
from stillscan.deploy.gateway.settings import GatewaySettings, Places, WorkerSection
from stillscan.operators.reading.decoder import Decoder
from tests.deploy.gateway.test_planner import Room
from tests.series_factory import make_series


@pytest.fixture
def decoder():
    with Decoder() as decoder:
        yield decoder


def quarantined(room: Room) -> dict[str, str]:
    """Reasons by the names of files in quarantine, each of which is there."""
    found = {each.name: each.reason for each in room.overview.quarantine.listed()}
    folder = room.places.quarantine
    assert set(found) == ({each.name for each in folder.iterdir()} if folder.exists() else set())
    return found


def names(room: Room) -> list[str]:
    return sorted(each.name for each in room.places.incoming.glob("[!.]*"))


def test_an_instance_over_which_something_fails_is_set_aside_alone(tmp_path, decoder, monkeypatch):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "1", slices=2, seed=1))
    room.send(make_series(tmp_path / "2", slices=1, seed=2))
    poison = names(room)[0]
    sound = planner_module._sender_of

    def breaks(path: Path) -> str:
        if path.name == poison:
            raise LookupError("Mustermann")
        return sound(path)

    monkeypatch.setattr(planner_module, "_sender_of", breaks)
    monkeypatch.setattr(SeriesRecord, "is_known", lambda *_: False)
    room.planner.tick()
    assert quarantined(room) == {poison: "internal-fault"}
    (row,) = room.overview.quarantine.listed()
    assert "LookupError at tests/deploy/gateway/test_quarantine.py" in row.message
    assert "Mustermann" not in row.message
    assert not names(room)
    assert room.overview.counts().quarantined == 1
    assert sum(job.instances for job in room.jobs) == 2


def test_an_instance_that_the_record_does_not_take_is_set_aside_alone(
    tmp_path, decoder, monkeypatch
):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=3))
    poison, sound = names(room)[1], SeriesRecord.file

    def breaks(record: SeriesRecord, instances: list) -> set[str]:
        if any(each.name == poison for each in instances):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        return sound(record, instances)

    monkeypatch.setattr(SeriesRecord, "file", breaks)
    room.planner.tick()
    assert quarantined(room) == {poison: "internal-fault"}
    assert [job.instances for job in room.jobs] == [2]


def test_an_instance_that_was_set_aside_is_filed_when_somebody_lets_it(
    tmp_path, decoder, monkeypatch
):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1))
    (name,) = names(room)
    with monkeypatch.context() as broken:
        broken.setattr(planner_module, "expected_images", lambda header: 1 // 0)
        room.planner.tick()
    assert quarantined(room) == {name: "internal-fault"}
    assert room.overview.quarantine.release(name)
    assert not room.overview.quarantine.release(name)
    room.planner.tick()
    assert not quarantined(room)
    assert [job.state for job in room.jobs] == ["queued"]


def test_what_concerns_the_planner_is_not_put_on_an_instance(tmp_path, decoder, monkeypatch):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(SeriesRecord, "file", full)
    with pytest.raises(sqlite3.OperationalError):
        room.planner.tick()
    assert not quarantined(room)
    assert len(names(room)) == 1


def test_junk_among_what_has_come_is_set_aside_under_a_name_of_nobody(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1))
    incoming = room.places.incoming
    (incoming / "MUSTERMANN^ERIKA.dcm").write_bytes(b"junk")
    (incoming / "notes.txt").write_text("x")
    (incoming / "folder.dcm").mkdir()
    (incoming / "folder.dcm" / "x").touch()
    (incoming / "link.dcm").symlink_to("/etc/passwd")
    empty = f"{'0' * 32}-{'0' * 24}.dcm"
    (incoming / empty).touch()
    room.planner.tick()
    found = quarantined(room)
    assert sorted(found.values()) == ["empty-file", *["not-from-spool"] * 4]
    assert found[empty] == "empty-file"
    assert not any("MUSTERMANN" in name for name in found)
    assert len(room.jobs) == 1
    assert not names(room)


@pytest.mark.parametrize("lives", [1, 2])
def test_an_instance_over_which_the_planner_ended_twice_is_not_tried_again(
    tmp_path, decoder, lives
):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "1", slices=1, seed=1))
    (poison,) = names(room)
    room.send(make_series(tmp_path / "2", slices=2, seed=2))
    for _ in range(lives):
        room.places.in_progress("planner").write_text(poison)
        room.planner.count_crash_of_current_files()
    room.planner.tick()
    if lives == 1:
        assert not quarantined(room)
        assert len(room.jobs) == 2
    else:
        assert quarantined(room) == {poison: "planner-stopped"}
        assert [job.instances for job in room.jobs] == [2]


def test_an_instance_that_was_got_through_is_under_no_suspicion(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1))
    room.places.in_progress("planner").write_text(names(room)[0])
    room.planner.count_crash_of_current_files()
    room.planner.tick()
    assert room.overview.quarantine.crash_counts() == {}
    assert room.places.in_progress("planner").read_text() == ""


def test_a_series_over_which_planning_fails_is_refused_and_planned_again_by_hand(
    tmp_path, decoder, monkeypatch
):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=2))
    with monkeypatch.context() as broken:
        broken.setattr(planner_module, "choose_rule", lambda *_: {}["rule"])
        room.planner.tick()
    (job,) = room.jobs
    assert (job.state, job.reason) == ("refused", "internal-fault")
    assert not room.planner.tick()
    assert room.overview.retry_job(job.number)
    room.planner.tick()
    assert [each.state for each in room.jobs] == ["queued", "refused"]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_file_of_the_spool_refuses_its_series_until_it_is_sent_again(
    tmp_path, decoder, monkeypatch, damage
):
    room = Room(tmp_path, decoder)
    files = make_series(tmp_path / "in", slices=3)
    room.send(files)
    with monkeypatch.context() as waiting:
        waiting.setattr(SeriesRecord, "ready", lambda *_: [])
        room.planner.tick()
    victim = next(room.places.instances.rglob("*.dcm"))
    if damage == "gone":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.write_bytes(content)
    room.planner.tick()
    (job,) = room.jobs
    assert (job.state, job.reason) == ("refused", "spool-damaged")
    assert quarantined(room) == ({} if damage == "gone" else {victim.name: "spool-damaged"})
    assert not room.overview.retry_job(job.number)
    room.send(files)
    room.planner.tick()
    assert [(each.state, each.instances) for each in room.jobs] == [("queued", 3), ("refused", 2)]


def test_an_instance_that_is_lost_under_a_job_heals_the_job_when_it_comes_again(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    files = make_series(tmp_path / "in", slices=2)
    room.send(files)
    room.planner.tick()
    queue = JobQueue(room.record.database, WorkerSection())
    job = queue.claim()
    instance_path(room.places, job.instances[0]).unlink()
    queue.mark_lost(job.instances[:1])
    queue.finish(job, Ending("refused", "spool-damaged", "gone"))
    room.send(files)
    room.planner.tick()
    (healed,) = room.jobs
    assert (healed.state, healed.instances) == ("queued", 2)


def test_a_clock_that_was_wrong_leaves_no_series_open(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1), age_s=-86400.0)
    room.planner.tick()
    assert [job.state for job in room.jobs] == ["queued"]


def test_times_of_a_clock_that_was_wrong_are_brought_back(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1))
    room.planner.tick()
    later = time.time() + 1e6
    with room.record.database.transaction() as connection:
        connection.execute("UPDATE series SET open = 1, last_at = ?", (later,))
        connection.execute("UPDATE jobs SET not_before = ?, created = ?", (later, later))
    Clock(room.record.database, GatewaySettings()).tick()
    (series,) = room.record.series.ready(room.settings.completeness, time.time())
    assert series.last_at <= time.time()
    assert JobQueue(room.record.database, WorkerSection()).claim() is not None


def test_open_series_move_with_the_clock(tmp_path, decoder, monkeypatch):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1))
    room.planner.tick()
    with room.record.database.transaction() as connection:
        connection.execute("UPDATE series SET open = 1")
        (before,) = connection.execute("SELECT last_at FROM series").fetchone()
    clock, now = Clock(room.record.database, GatewaySettings()), time.time()
    clock.tick()
    monkeypatch.setattr("stillscan.deploy.gateway.record.clock.time.time", lambda: now + 3600)
    clock.tick()
    with room.record.database.reading() as connection:
        (after,) = connection.execute("SELECT last_at FROM series").fetchone()
    assert after - before == pytest.approx(3600, abs=5)
    assert room.overview.counts().totals["clock_steps"] == 1


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_damaged_record_names_file_and_remedy(tmp_path, content):
    places = Places(tmp_path)
    database = Database(places.database)
    database.close()
    if content is None:  # a page of it
        raw = bytearray(places.database.read_bytes())
        raw[4096:8192] = b"\xa5" * 4096
        content = bytes(raw)
    places.database.write_bytes(content)
    with pytest.raises(RecordDamagedError) as caught:
        Database(places.database).require_sound()
    assert str(places.database) in str(caught.value)
    assert "move gateway.sqlite*" in str(caught.value)


NEW_COLUMNS = {  # since version 1
    "jobs": ("strikes", "correction", "outdated"),
    "instances": ("lost", "received", "replaced"),
    "series": ("corrections",),
    "deliveries": ("note", "transaction_uid"),
}


def test_a_record_of_before_gets_what_is_new(tmp_path):
    places = Places(tmp_path)
    Overview(places)
    connection = sqlite3.connect(places.database)
    connection.execute("DROP TABLE quarantine")
    connection.execute("DROP TABLE strikes")
    for table, columns in NEW_COLUMNS.items():
        for column in columns:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    assert Overview(places).quarantine.listed() == []
    assert Quarantine(places, Database(places.database)).crash_counts() == {}


def test_poison_of_a_job_is_tried_twice_and_other_faults_as_often_as_the_settings_say(
    tmp_path, decoder
):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "1", slices=1, seed=1))
    room.send(make_series(tmp_path / "2", slices=1, seed=2))
    room.planner.tick()
    queue = JobQueue(room.record.database, WorkerSection(attempts=5, backoff_s=0.0))
    for series_fault in (True, False):
        job = queue.claim()
        queue.fail(job.number, job.attempt, "internal-fault", "x", series_fault=series_fault)
    first, second = queue.claim(), queue.claim()
    queue.recover(previous_run_crashed=True)
    states = {job.number: job.state for job in room.jobs}
    assert states[first.number] == "dead"
    assert states[second.number] == "queued"


def test_the_hostile_numbers_of_a_header_reach_the_record(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    (file,) = make_series(tmp_path / "in", slices=1)
    tree = HeaderTree.of(file)
    for keyword in ("SeriesNumber", "InstanceNumber", "ImagesInAcquisition"):
        tree.put(keyword, b"99999999999999999999")
    file.write_bytes(tree.content())
    room.send([file])
    room.planner.tick()
    assert [job.state for job in room.jobs] == ["queued"]
    assert json.dumps(room.overview.counts().totals)

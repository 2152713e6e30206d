"""The planner files what came, makes jobs by the rules, and clears away what is done."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from stillscan.app.settings import DEFAULT_SETTINGS
from stillscan.deploy.gateway.planner.planner import Planner, configuration_digest, instance_path
from stillscan.deploy.gateway.receiver.spool import Arrival, Spool
from stillscan.deploy.gateway.record import retention as retention_module
from stillscan.deploy.gateway.record.jobs import Ending, JobQueue
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.record.retention import Retention
from stillscan.deploy.gateway.settings import (
    CompletenessSection,
    Destination,
    GatewaySettings,
    Places,
    Rule,
    StorageSection,
    WorkerSection,
)
from stillscan.operators.reading.decoder import Decoder
from tests.deploy.gateway.record import AT_ONCE, Record
from tests.series_factory import make_series

RULES = (
    Rule("not-these", {"StationName": "OLD*"}, process=False),
    Rule("mr", {"Modality": "MR"}, priority=3, destinations=("out",)),
)


@pytest.fixture
def decoder():
    with Decoder() as decoder:
        yield decoder


class Room:
    """A planner, and a spool that somebody sends to."""

    def __init__(self, folder: Path, decoder: Decoder, **changes: object) -> None:
        self.settings = GatewaySettings(
            data=folder / "data",
            completeness=changes.pop("completeness", AT_ONCE),
            destinations=changes.pop(
                "destinations", (Destination("out", "folder", folder=folder / "out"),)
            ),
            rules=changes.pop("rules", RULES),
        )
        self.record = Record(self.settings.data)
        self.places = Places(self.settings.data)
        self.spool = Spool(self.places, StorageSection(most_used=1.0))
        self.planner = Planner(self.settings, self.places, self.record.database, decoder)
        self.overview = Overview(self.places)

    def send(self, files: list[Path], sender: str = "MR1", age_s: float = 10.0) -> None:
        for file in files:
            meta = dcmread(file, stop_before_pixels=True).file_meta
            content = file.read_bytes()
            start = 132 + 12 + meta.FileMetaInformationGroupLength
            arrival = Arrival(
                meta.MediaStorageSOPClassUID,
                meta.MediaStorageSOPInstanceUID,
                meta.TransferSyntaxUID,
                sender,
            )
            assert self.spool.accept(content[start:], arrival).refusal is None
        then = time.time() - age_s
        for file in self.places.incoming.iterdir():
            os.utime(file, (then, then))

    @property
    def jobs(self):
        return self.overview.recent_jobs()


def test_what_came_is_filed_and_becomes_a_job(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=3))
    assert not room.planner.tick()
    (job,) = room.jobs
    assert (job.state, job.instances, job.rule, job.priority) == ("queued", 3, "mr", 3)
    assert not list(room.places.incoming.iterdir())
    assert len(list(room.places.instances.rglob("*.dcm"))) == 3
    assert room.overview.counts().totals["instances_received"] == 3


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"StationName": "OLD3"}, "excluded-by-rule"), ({"Modality": "OT"}, "no-rule")],
)
def test_rules_may_leave_a_series_alone(tmp_path, decoder, attributes, reason):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=1, **attributes))
    room.planner.tick()
    assert [(job.state, job.reason) for job in room.jobs] == [("not-selected", reason)]


def test_a_rule_may_ask_who_sent(tmp_path, decoder):
    rules = (Rule("one", {"calling-ae-title": "MR1"}), Rule("other"))
    room = Room(tmp_path, decoder, rules=rules)
    room.send(make_series(tmp_path / "1", slices=2, seed=1), "MR1")
    room.send(make_series(tmp_path / "2", slices=2, seed=2), "MR2")
    room.planner.tick()
    assert sorted(job.rule for job in room.jobs) == ["one", "other"]


def test_a_planner_that_is_killed_anywhere_files_again(tmp_path, decoder, monkeypatch):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=3))
    moved = []
    rename = Path.rename

    def die_after_one(self: Path, target: Path) -> Path:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die_after_one)
    with pytest.raises(KeyboardInterrupt):
        room.planner.tick()
    monkeypatch.undo()
    room.planner.reconcile()
    room.planner.tick()
    (job,) = room.jobs
    assert job.instances == 3


def test_files_that_the_record_has_lost_are_filed_again(tmp_path, decoder):
    room = Room(tmp_path, decoder)
    room.send(make_series(tmp_path / "in", slices=2))
    room.planner.tick()
    for file in tmp_path.glob("data/gateway.sqlite*"):
        file.unlink()
    again = Room(tmp_path, decoder)
    again.planner.reconcile()
    again.planner.tick()
    assert [job.instances for job in again.jobs] == [2]


def test_a_series_is_not_complete_while_some_of_it_waits_to_be_filed(
    tmp_path, decoder, monkeypatch
):
    monkeypatch.setattr("stillscan.deploy.gateway.planner.planner.BATCH_SIZE", 2)
    room = Room(tmp_path, decoder, completeness=CompletenessSection(5.0, 5.0, 5.0))
    room.send(make_series(tmp_path / "in", slices=5))
    assert room.planner.tick()
    assert room.jobs == []
    while room.planner.tick():
        pass
    assert [job.instances for job in room.jobs] == [5]


def test_a_file_that_is_no_dicom_ends_as_a_job_of_its_own(tmp_path, decoder):
    room = Room(tmp_path, decoder, rules=(Rule("all"),))
    arrival = Arrival("1.2.840.10008.5.1.4.1.1.4", "1.2.3", "1.2.840.10008.1.2.1")
    room.spool.accept(b"\xff" * 999, arrival)
    room.planner.tick()
    (job,) = room.jobs
    assert job.series_instance_uid.startswith("file:")


def test_the_configuration_of_a_job_is_what_changes_its_result(tmp_path):
    settings = GatewaySettings(data=tmp_path)
    changed = tmp_path / "app.yaml"
    shipped = DEFAULT_SETTINGS.read_text(encoding="utf-8")
    changed.write_text(shipped.replace("strength: high", "strength: low"), encoding="utf-8")
    digest = configuration_digest(settings)
    assert configuration_digest(replace(settings, data=tmp_path / "elsewhere")) == digest
    assert configuration_digest(replace(settings, application=changed)) != digest
    assert configuration_digest(replace(settings, models=tmp_path)) != digest


class TestRetention:
    """What is done is cleared away, what somebody needs is not."""

    @pytest.fixture
    def room(self, tmp_path, decoder, monkeypatch):
        monkeypatch.setattr(retention_module, "EVERY_S", 0.0)
        room = Room(tmp_path, decoder)
        room.files = make_series(tmp_path / "in", slices=3)
        room.send(room.files)
        room.planner.tick()
        room.queue = JobQueue(room.record.database, WorkerSection())
        room.retention = Retention(
            room.places, room.record.database, StorageSection(retention_h=0.0)
        )
        return room

    def finish(self, room: Room) -> int:
        job = room.queue.claim()
        for folder in (room.places.outbox, room.places.reports):
            (folder / str(job.number)).mkdir(parents=True)
        room.queue.finish(job, Ending("derived", derived_uid="2.25.1", instances=3))
        return job.number

    def deliver(self, room: Room, state: str) -> None:
        with room.record.database.transaction() as connection:
            connection.execute("UPDATE deliveries SET state = ?, finished = 1", (state,))

    def test_a_job_that_waits_keeps_its_instances(self, room):
        room.retention.tick()
        assert len(list(room.places.instances.rglob("*.dcm"))) == 3

    def test_a_delivery_that_waits_keeps_its_files(self, room):
        number = self.finish(room)
        room.retention.tick()
        assert (room.places.outbox / str(number)).exists()
        assert not list(room.places.instances.rglob("*.dcm"))

    @pytest.mark.parametrize("state", ["sent", "dead"])
    def test_what_is_done_goes(self, room, state):
        number = self.finish(room)
        self.deliver(room, state)
        room.retention.tick()
        assert not (room.places.outbox / str(number)).exists()
        assert not (room.places.reports / str(number)).exists()
        assert not room.overview.retry_delivery(1)
        assert room.overview.job(number) is not None

    def test_a_slice_that_comes_after_that_is_refused(self, room):
        self.finish(room)
        self.deliver(room, "sent")
        room.retention.tick()
        late = make_series(room.places.data / "late", slices=4)[3:]
        room.send(late)
        room.planner.tick()
        job = room.jobs[0]
        assert (job.state, job.reason) == ("refused", "late-after-retention")
        assert not room.overview.retry_job(job.number)

    def test_the_whole_series_after_that_is_a_new_revision(self, room):
        self.finish(room)
        self.deliver(room, "sent")
        room.retention.tick()
        room.send(make_series(room.places.data / "more", slices=4))
        room.planner.tick()
        assert [(job.state, job.instances) for job in room.jobs] == [("queued", 4), ("derived", 3)]

    def test_what_retention_was_killed_over_goes_at_the_next_start(self, room):
        self.finish(room)
        with room.record.database.transaction() as connection:
            connection.execute("UPDATE instances SET there = 0")
            (name,) = connection.execute("SELECT name FROM instances LIMIT 1").fetchone()
        assert instance_path(room.places, name).exists()
        room.planner.reconcile()
        assert not list(room.places.instances.rglob("*.dcm"))

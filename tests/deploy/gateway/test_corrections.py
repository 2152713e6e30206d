"""A PACS corrects patient or order and sends the same instances again."""

import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread

from stillscan.deploy.gateway.planner.worker import Worker
from stillscan.deploy.gateway.record.deliveries import Outbox
from stillscan.deploy.gateway.record.jobs import Ending, JobQueue
from stillscan.deploy.gateway.sender.sender import attempt
from stillscan.deploy.gateway.settings import Destination, Rule, SenderSection, WorkerSection
from stillscan.operators.reading.decoder import Decoder
from tests.deploy.gateway.test_planner import Room
from tests.series_factory import make_series

RULES = (Rule("mr", {"Modality": "MR"}, mode="identity", destinations=("out",)),)
DERIVED = Ending("derived", derived_uid="2.25.1", instances=3)


@pytest.fixture
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def room(tmp_path, decoder):
    room = Room(tmp_path, decoder, rules=RULES)
    room.queue = JobQueue(room.record.database, WorkerSection())
    return room


def corrected(files: list[Path], **attributes: object) -> list[Path]:
    """Copies of files with other attributes."""
    copies = []
    for file in files:
        folder = file.parent.with_name("-".join(map(str, attributes.values())))
        folder.mkdir(exist_ok=True)
        instance = dcmread(file)
        for keyword, value in attributes.items():
            setattr(instance, keyword, value)
        instance.save_as(folder / file.name)
        copies.append(folder / file.name)
    return copies


def come(room: Room, files: list[Path], age_s: float) -> None:
    room.send(files, age_s=age_s)
    room.planner.tick()


@pytest.mark.parametrize(
    "change",
    [
        {"PatientName": "RIGHT^NAME"},
        {"PatientID": "4711"},
        {"PatientBirthDate": "19710203"},
        {"AccessionNumber": "A99"},
        {"StudyDescription": "another"},
    ],
)
def test_the_newer_copies_make_a_new_revision(room, tmp_path, change):
    files = make_series(tmp_path / "in", slices=3)
    come(room, files, 30)
    room.queue.finish(room.queue.claim(), DERIVED)
    come(room, corrected(files, **change), 20)
    new, old = room.jobs
    assert (new.state, new.revision, new.instances, new.outdated) == ("queued", 2, 3, False)
    assert (old.state, old.outdated) == ("derived", True)
    claimed = room.queue.claim()
    assert claimed.correction == 1
    assert len(claimed.instances) == 3


def test_what_was_not_sent_yet_is_not_sent_any_more(room, tmp_path):
    files = make_series(tmp_path / "in", slices=3)
    come(room, files, 30)
    room.queue.finish(room.queue.claim(), DERIVED)
    come(room, corrected(files, PatientName="B"), 20)
    (delivery,) = room.overview.deliveries(1)
    assert (delivery.state, delivery.reason) == ("dead", "outdated")
    assert not room.overview.retry_job(1)
    assert not room.overview.retry_delivery(delivery.number)


@pytest.mark.parametrize("arrives", [False, True])
def test_a_delivery_that_was_on_its_way_is_followed_by_a_note_or_stopped(room, tmp_path, arrives):
    files = make_series(tmp_path / "in", slices=3)
    come(room, files, 30)
    room.queue.finish(room.queue.claim(), DERIVED)
    outbox = Outbox(room.record.database, SenderSection(backoff_s=0.0))
    on_its_way = outbox.claim("out")
    come(room, corrected(files, PatientName="B"), 20)
    if arrives:
        outbox.sent(on_its_way, note=True)
        assert outbox.claim("out").note
    else:
        outbox.failed(on_its_way, "unreachable", "")
        assert outbox.claim("out") is None
        (delivery,) = room.overview.deliveries(1)
        assert (delivery.state, delivery.reason) == ("dead", "outdated")


@pytest.mark.parametrize("running", [False, True])
def test_a_job_that_is_outdated_before_it_ends_derives_nothing(room, tmp_path, running):
    files = make_series(tmp_path / "in", slices=3)
    come(room, files, 30)
    claimed = room.queue.claim() if running else None
    come(room, corrected(files, PatientName="B"), 20)
    if claimed is not None:
        room.queue.finish(claimed, DERIVED)
    new, old = room.jobs
    assert (old.state, old.reason) == ("not-selected", "outdated")
    assert new.state == "queued"
    assert not room.overview.deliveries(old.number)


def test_both_copies_before_the_first_job_make_one(room, tmp_path):
    files = make_series(tmp_path / "in", slices=3)
    room.send(files, age_s=30)
    shutil.copytree(room.places.incoming, tmp_path / "aside")
    room.send(corrected(files, PatientName="B"), age_s=20)
    for file in (tmp_path / "aside").iterdir():
        shutil.copy2(file, room.places.incoming)
    room.planner.tick()
    (job,) = room.jobs
    assert (job.state, job.instances, job.outdated) == ("queued", 3, False)
    names = room.queue.claim().instances
    patients = {str(dcmread(room.places.instances / name[:2] / name).PatientName) for name in names}
    assert patients == {"B"}


def test_a_correction_that_comes_in_two_parts_is_refused_until_it_is_whole(room, tmp_path):
    files = make_series(tmp_path / "in", slices=3)
    come(room, files, 30)
    room.queue.finish(room.queue.claim(), DERIVED)
    again = corrected(files, PatientName="B")
    come(room, again[:2], 20)
    part = room.queue.claim()
    room.queue.finish(part, Ending("refused", "identity-conflict"))
    come(room, again[2:], 10)
    assert [(job.state, job.outdated) for job in room.jobs] == [
        ("queued", False),
        ("refused", True),
        ("derived", True),
    ]


def test_a_correction_that_is_taken_back_derives_anew(room, tmp_path):
    files = make_series(tmp_path / "in", slices=3)
    come(room, files, 30)
    room.queue.finish(room.queue.claim(), DERIVED)
    come(room, corrected(files, PatientName="B"), 20)
    room.queue.finish(room.queue.claim(), DERIVED)
    come(room, files, 10)
    again = room.queue.claim()
    assert (again.number, again.correction) == (1, 2)
    room.queue.finish(again, DERIVED)
    assert [(job.number, job.state, job.outdated) for job in room.jobs] == [
        (2, "derived", True),
        (1, "derived", False),
    ]
    assert [each.state for each in room.overview.deliveries(1)] == ["waiting"]


def test_a_copy_in_another_transfer_syntax_corrects_nothing(room, tmp_path):
    files = make_series(tmp_path / "in", slices=2)
    come(room, files, 30)
    room.queue.finish(room.queue.claim(), DERIVED)
    come(room, make_series(tmp_path / "rle", slices=2, transfer_syntax="1.2.840.10008.1.2.5"), 20)
    new, old = room.jobs
    assert not old.outdated
    assert room.queue.claim().correction == 0
    assert new.instances == 2


def test_another_image_of_the_same_uid_corrects_nothing(room, tmp_path):
    files = make_series(tmp_path / "in", slices=2)
    come(room, files, 30)
    other = make_series(tmp_path / "other", slices=2, rows=32)
    come(room, other, 20)
    assert not any(job.outdated for job in room.jobs)
    room.queue.claim()
    assert len(room.queue.claim().instances) == 4


def test_a_damaged_copy_is_replaced(room, tmp_path):
    files = make_series(tmp_path / "in", slices=2)
    (tmp_path / "cut").mkdir()
    cut = tmp_path / "cut" / files[0].name
    cut.write_bytes(files[0].read_bytes()[:-100])
    come(room, [cut, files[1]], 30)
    room.queue.claim()
    come(room, files[:1], 20)
    claimed = room.queue.claim()
    assert len(claimed.instances) == 2


def test_a_series_that_was_refused_for_its_copies_is_planned_again(room, tmp_path):
    """As a gateway left it that did not know corrections."""
    files = make_series(tmp_path / "in", slices=2)
    room.send(files, age_s=30)
    room.send(corrected(files, PatientName="B"), age_s=20)
    room.planner._newest = lambda series: series
    room.planner.tick()
    del room.planner._newest
    room.queue.finish(room.queue.claim(), Ending("refused", "identity-conflict"))
    with room.record.database.transaction() as connection:
        connection.execute("UPDATE instances SET received = 0")
    assert room.overview.retry_job(1)
    room.planner.tick()
    assert (room.jobs[0].state, room.jobs[0].outdated) == ("queued", False)


@pytest.mark.slow
@pytest.mark.data
def test_the_derived_series_of_the_corrected_patient(tmp_path, decoder, stillscan_data, tool):
    case = stillscan_data / "field" / "10-gateway-corrected-patient"
    out = Destination("out", "folder", folder=tmp_path / "out", rejection_notes=True)
    room = Room(tmp_path, decoder, rules=RULES, destinations=(out,))
    queue = JobQueue(room.record.database, WorkerSection())
    worker = Worker(room.settings, room.places, queue, decoder)
    outbox = Outbox(room.record.database, SenderSection())
    for age, part in ((30, "1-first"), (20, "2-corrected")):
        come(room, sorted((case / part).glob("*.dcm")), age)
        worker.attempt(queue.claim())
        while delivery := outbox.claim("out"):
            attempt(delivery, out, outbox, room.places, 10.0)
    new, old = room.jobs
    assert (new.state, old.state, old.outdated) == ("derived", "derived", True)
    assert new.derived_series_uid != old.derived_series_uid
    found = {
        job.number: [dcmread(each) for each in (tmp_path / "out" / uid).glob("*.dcm")]
        for job, uid in ((old, old.derived_series_uid), (new, new.derived_series_uid))
    }
    names = {str(each.PatientName) for each in found[2]}
    assert names == {str(dcmread(case / "2-corrected" / "001.dcm").PatientName)}
    known = {old.derived_series_uid, new.derived_series_uid}
    (note_file,) = (
        each for each in (tmp_path / "out").glob("*/*.dcm") if each.parent.name not in known
    )
    note = dcmread(note_file)
    assert note.ConceptNameCodeSequence[0].CodeValue == "113038"
    assert note.PatientName == found[1][0].PatientName
    rejected = {
        each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for each in note.ContentSequence
    }
    assert rejected == {each.SOPInstanceUID for each in found[1]}
    checked = subprocess.run(
        [tool("dciodvfy"), str(note_file)], capture_output=True, text=True, check=False
    )
    assert "Error" not in checked.stdout + checked.stderr

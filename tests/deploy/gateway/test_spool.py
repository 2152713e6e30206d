"""What is acknowledged lies on the disk, whole, under a name that no UID can choose."""

import errno
import os
import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from stillscan.deploy.gateway.receiver import spool as spool_module
from stillscan.deploy.gateway.receiver.spool import Arrival, SharedSync, Spool
from stillscan.deploy.gateway.record import disk
from stillscan.deploy.gateway.settings import Places, StorageSection

MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
DATASET = bytes.fromhex("0800600043530200") + b"MR"  # Modality


def arrival(sop: str = "1.2.3", sender: str = "SCANNER") -> Arrival:
    return Arrival(MR, sop, EXPLICIT, sender)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(Places(tmp_path), StorageSection(most_used=1.0))


def stored(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def test_an_instance_is_a_part_10_file_that_names_its_sender(tmp_path, spool):
    receipt = spool.accept(DATASET, arrival())
    (file,) = stored(tmp_path)
    assert receipt.refusal is None
    assert receipt.bytes == file.stat().st_size
    instance = dcmread(file)
    assert instance.Modality == "MR"
    assert instance.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert instance.file_meta.SourceApplicationEntityTitle == "SCANNER"
    assert file.read_bytes()[:128] == bytes(128)


def test_it_is_synced_and_renamed_before_it_is_acknowledged(tmp_path, spool, monkeypatch):
    happened = []
    real_sync = os.fsync

    def sync(descriptor: int) -> None:
        happened.append("folder" if stored(tmp_path) else "file")
        real_sync(descriptor)

    monkeypatch.setattr(spool_module.os, "fsync", sync)
    spool.accept(DATASET, arrival())
    assert happened == ["file", "folder"]


def test_the_same_instance_again_is_the_same_file(tmp_path, spool):
    for _ in range(2):
        assert spool.accept(DATASET, arrival()).refusal is None
    assert len(stored(tmp_path)) == 1


def test_other_content_under_the_same_uid_is_another_file(tmp_path, spool):
    spool.accept(DATASET, arrival())
    spool.accept(DATASET[:-2] + b"CT", arrival())
    assert len(stored(tmp_path)) == 2


@pytest.mark.parametrize("uid", ["", "../../etc/passwd", "1.2/3", "1" * 65, "1.2\0", "ä"])
def test_a_uid_that_is_none_is_refused(tmp_path, spool, uid):
    assert spool.accept(DATASET, arrival(uid)).refusal == "invalid-uid"
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_an_instance_that_is_not_committed_leaves_nothing(tmp_path, spool):
    with spool.begin(arrival()) as incoming:
        incoming.write(DATASET)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_pieces_make_the_whole(tmp_path, spool):
    with spool.begin(arrival()) as incoming:
        for byte in DATASET:
            incoming.write(bytes([byte]))
        incoming.commit()
    (file,) = stored(tmp_path)
    assert file.read_bytes().endswith(DATASET)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "spool-fault")],
)
@pytest.mark.parametrize("step", ["write", "fsync", "open"])
def test_a_fault_of_the_disk_is_a_refusal_and_leaves_nothing(
    tmp_path, spool, monkeypatch, number, reason, step
):
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(spool_module.os, step, fail)
    assert spool.accept(DATASET, arrival()).refusal == reason
    monkeypatch.undo()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert spool.accept(DATASET, arrival()).refusal is None


def test_beyond_the_share_of_the_disk_nothing_is_accepted(tmp_path, monkeypatch):
    spool = Spool(Places(tmp_path), StorageSection(most_used=0.9))
    share = [0.95]
    monkeypatch.setattr(disk, "used_share", lambda folder: share[0])
    assert not spool.has_room()
    assert spool.accept(DATASET, arrival()).refusal == "disk-full"
    share[0] = 0.5
    assert spool.accept(DATASET, arrival()).refusal is None


def test_what_was_never_acknowledged_is_swept_away(tmp_path, spool):
    incoming = spool.begin(arrival())
    incoming.write(DATASET)
    spool.accept(DATASET, arrival("1.2.4"))
    assert spool.sweep() == 0  # it is being written
    assert Spool(Places(tmp_path), StorageSection()).sweep() == 1  # by a life before
    assert len(stored(tmp_path)) == 1


def test_what_another_process_writes_is_not_swept_away(tmp_path, spool):
    for process in (os.getppid(), 2**22 + 1):  # one that is there, one that cannot be
        (tmp_path / "incoming" / f".{process}-0-0.part").touch()
    assert spool.sweep() == 1
    assert [each.name for each in tmp_path.rglob("*.part")] == [f".{os.getppid()}-0-0.part"]


def test_threads_share_the_syncs_of_the_folder(tmp_path, monkeypatch):
    syncs = []
    slow = threading.Event()

    def sync(descriptor: int) -> None:
        syncs.append(descriptor)
        slow.wait(0.05)

    shared = SharedSync(tmp_path)
    monkeypatch.setattr(spool_module.os, "fsync", sync)
    threads = [threading.Thread(target=shared) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(syncs) < 16

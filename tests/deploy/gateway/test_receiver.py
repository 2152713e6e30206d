"""Whoever may send is served, by the standard; the bytes of a data set are kept as they came."""

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from bench.robustness.network_abuse import (
    associated,
    association_request,
    received,
    release_request,
    store_pdus,
)
from stillscan.deploy.gateway.receiver import association
from stillscan.deploy.gateway.receiver.association import TRANSFER_SYNTAXES
from stillscan.deploy.gateway.settings import Peer, StorageSection
from tests.deploy.gateway.listening import (
    HOST,
    VERIFICATION,
    call,
    connect,
    encoded,
    everything_said,
    receiving,
    store,
)
from tests.series_factory import COMPRESSED_SYNTAXES, NATIVE_SYNTAXES, make_series

# pynetdicom does not close the sockets of associations that do not come about
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MR = "1.2.840.10008.5.1.4.1.1.4"
REJECTED = {"calling": (1, 1, 3), "called": (1, 1, 7), "too many": (2, 3, 2)}


def rejection(port, **titles):
    """Result, source and reason of the A-ASSOCIATE-RJ that answers a request (PS3.8 9.3.4)."""
    answer = everything_said(connect(port, association_request(**titles)))
    assert answer[:1] == b"\x03"
    return tuple(answer[7:10])


def status_of(answer: bytes) -> int:
    """The status in a C-STORE-RSP."""
    at = answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    return int.from_bytes(answer[at + 8 : at + 10], "little")


def test_a_c_echo_is_answered(tmp_path):
    with receiving(tmp_path) as listening:
        peer = call(listening.port)
        assert peer.send_c_echo().Status == 0
        peer.release()
        assert peer.is_released
    assert listening.counts == {"associations_accepted": 1}


@pytest.mark.parametrize("syntax", [*NATIVE_SYNTAXES, *COMPRESSED_SYNTAXES], ids=lambda s: s.name)
def test_the_bytes_of_a_data_set_are_kept_in_every_transfer_syntax(tmp_path, syntax):
    (file,) = make_series(tmp_path / "sent", slices=1, transfer_syntax=syntax)
    uid = dcmread(file).SOPInstanceUID
    data_set = encoded(file.read_bytes())
    with receiving(tmp_path / "data") as listening:
        peer = associated(listening.port, syntax)
        peer.sendall(b"".join(store_pdus(1, uid, data_set)))
        assert status_of(peer.recv(4096)) == 0
        peer.close()
        (spooled,) = listening.files()
    meta = dcmread(spooled).file_meta
    assert (meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID) == (syntax, uid)
    assert encoded(spooled.read_bytes()) == data_set
    assert spooled.read_bytes()[:128] == bytes(128)


@pytest.mark.tools
def test_dcmsend_of_dcmtk_is_served(tmp_path, tool):
    for number, syntax in enumerate((ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless)):
        make_series(tmp_path / "sent" / str(number), slices=2, transfer_syntax=syntax, seed=number)
    with receiving(tmp_path / "data") as listening:
        send = [tool("dcmsend"), "-aec", "STILLSCAN", "-dn", "+sd", "+r"]
        subprocess.run([*send, HOST, str(listening.port), str(tmp_path / "sent")], check=True)
        assert len(listening.files()) == 6


@pytest.mark.tools
def test_storescu_of_dcmtk_is_served(tmp_path, tool):
    files = make_series(tmp_path / "sent", slices=3)
    with receiving(tmp_path / "data") as listening:
        storescu = [tool("storescu"), "-aec", "STILLSCAN", HOST, str(listening.port)]
        subprocess.run([*storescu, *map(str, files)], check=True)
        assert len(listening.files()) == 3


def test_of_several_transfer_syntaxes_an_uncompressed_one_is_taken(tmp_path):
    offered = [JPEG2000Lossless, ImplicitVRLittleEndian, ExplicitVRLittleEndian]
    with receiving(tmp_path) as listening:
        peer = call(listening.port, [(MR, offered)])
        (context,) = peer.accepted_contexts
        assert context.transfer_syntax == [ExplicitVRLittleEndian]
        peer.release()


def test_what_is_neither_storage_nor_verification_is_not_taken(tmp_path):
    modality_worklist, private = "1.2.840.10008.5.1.4.31", "1.2.3.4.5"
    with receiving(tmp_path) as listening:
        peer = call(listening.port, [(modality_worklist, None), (private, None), (MR, "1.2.3")])
        assert not peer.accepted_contexts
        assert [context.result for context in peer.rejected_contexts] == [3, 3, 4]
        peer.abort()


def test_what_is_taken_is_what_the_conformance_statement_says():
    statement = Path(__file__).parents[3] / "docs" / "conformance.md"
    read = statement.read_text().split("## Written")[0]
    listed = {line.split("`")[1] for line in read.splitlines() if "`1.2.840.10008.1.2" in line}
    assert listed == set(TRANSFER_SYNTAXES)


def test_success_is_said_only_when_the_instance_is_durable(tmp_path, monkeypatch):
    synced, said = [], []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(1), real(descriptor)))
    with receiving(tmp_path) as listening:
        peer = associated(listening.port)
        for pdu in store_pdus(1):
            assert not said
            peer.sendall(pdu)
        said.append(received(peer, 6))
        assert len(synced) >= 2  # the file and its folder
        assert len(listening.files()) == 1
        peer.close()


def test_a_full_disk_is_answered_with_a700_and_the_association_goes_on(tmp_path):
    files = make_series(tmp_path / "sent", slices=2)
    with receiving(tmp_path / "data", StorageSection(most_used=1e-9)) as listening:
        answers = store(listening.port, [dcmread(file) for file in files])
        assert [answer.Status for answer in answers] == [0xA700, 0xA700]
        assert not list(listening.places.incoming.iterdir())
    assert listening.counts["instances_refused"] == 2


def test_an_instance_that_is_too_large_is_refused_and_the_next_is_taken(tmp_path):
    (large,) = make_series(tmp_path / "large", slices=1, rows=1024, columns=1024)
    (small,) = make_series(tmp_path / "small", slices=1)
    with receiving(tmp_path / "data", max_instance_mb=1) as listening:
        answers = store(listening.port, [dcmread(large), dcmread(small)])
        assert [answer.Status for answer in answers] == [0xA700, 0]
        assert len(list(listening.places.incoming.iterdir())) == 1


def test_what_was_not_finished_leaves_nothing(tmp_path):
    with receiving(tmp_path) as listening:
        peer = associated(listening.port)
        peer.sendall(b"".join(store_pdus(1)[:2]))
        time.sleep(0.2)
        assert len(list(listening.places.incoming.iterdir())) == 1
        peer.close()
        time.sleep(0.2)
        assert not list(listening.places.incoming.iterdir())


def test_names_that_are_not_on_the_list_are_rejected(tmp_path):
    peers = (Peer("SCANNER"), Peer("ELSEWHERE", ("127.0.0.9",)))
    with receiving(tmp_path, peers=peers) as listening:
        assert rejection(listening.port, calling="STRANGER") == REJECTED["calling"]
        assert rejection(listening.port, calling="ELSEWHERE") == REJECTED["calling"]
        assert rejection(listening.port, called="OTHER") == REJECTED["called"]
        welcome = call(listening.port)
        assert welcome.is_established
        welcome.release()
    assert listening.counts["associations_rejected"] == 3
    with receiving(tmp_path, any_called_ae_title=True) as listening:
        other = call(listening.port, called="OTHER")
        assert other.is_established
        other.release()


def test_there_are_only_so_many_associations(tmp_path):
    with receiving(tmp_path, max_associations_per_host=2) as listening:
        first, second = call(listening.port), call(listening.port)
        assert rejection(listening.port) == REJECTED["too many"]
        first.release()
        time.sleep(0.1)
        third = call(listening.port)
        assert third.is_established
        second.release()
        third.release()


def test_a_peer_that_falls_silent_is_aborted(tmp_path):
    with receiving(tmp_path, idle_s=0.3, negotiation_s=0.3) as listening:
        within, before = associated(listening.port), connect(listening.port)
        assert everything_said(within)[:1] == b"\x07"  # A-ABORT
        assert everything_said(before) == b""
    assert listening.counts["associations_aborted"] == 1
    assert listening.counts["connections_dropped"] == 1


def test_a_running_association_may_end_when_the_receiver_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(association, "CLOSING_S", 0.1)  # the peer stays
    pdus = [*store_pdus(1), release_request()]
    with receiving(tmp_path, drain_s=30.0) as listening:
        peer = associated(listening.port)
        sender = threading.Timer(0.5, lambda: peer.sendall(b"".join(pdus)))
        sender.start()
    # the receiver was told to stop, and has waited for the association
    assert len(listening.files()) == 1
    sender.join()
    peer.close()


def test_an_association_ends_with_a_release(tmp_path):
    with receiving(tmp_path) as listening:
        peer = associated(listening.port)
        peer.sendall(release_request())
        assert received(peer, 10) == b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
        peer.close()


@pytest.mark.parametrize(
    "uid",
    ["../../../etc/passwd", "/tmp/stillscan", "1.2/../3", "..\\..\\x", "1.2\n3", "", "1" * 65],
)
def test_a_uid_that_is_none_is_refused(tmp_path, uid):
    with receiving(tmp_path / "data") as listening:
        peer = associated(listening.port)
        peer.sendall(b"".join(store_pdus(1, uid)))
        assert status_of(peer.recv(4096)) == 0xA900
        peer.close()
    assert not list((tmp_path / "data" / "incoming").iterdir())


def test_a_request_in_many_pieces_is_one_request(tmp_path):
    with receiving(tmp_path) as listening:
        request = association_request()
        peer = connect(listening.port, request[:3])
        for at in range(3, len(request), 7):
            time.sleep(0.002)
            peer.sendall(request[at : at + 7])
        assert received(peer, 1) == b"\x02"
        peer.close()


def test_verification_is_answered_where_storage_is_asked_for_too(tmp_path):
    with receiving(tmp_path) as listening:
        peer = call(listening.port, [(MR, ExplicitVRLittleEndian), (VERIFICATION, None)])
        assert peer.send_c_echo().Status == 0
        peer.release()

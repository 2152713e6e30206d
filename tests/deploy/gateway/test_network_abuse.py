"""Hostile talk costs the receiver neither its memory nor its time for those who may send."""

import itertools
import struct
import time
from pathlib import Path

import pytest

from bench.robustness.network_abuse import (
    KINDS,
    LENGTHS,
    abuse,
    associated,
    free_port,
    received,
    running_receiver,
    store_pdus,
)
from stillscan.deploy.gateway.receiver.listener import MAX_WAITING
from stillscan.deploy.gateway.settings import Places, ReceiverSection
from tests.deploy.gateway.listening import call, connect, everything_said, receiving

# pynetdicom does not close the sockets of associations that do not come about
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MUTANTS = 500  # `make soak` sends 10,000


@pytest.mark.slow
def test_abuse_costs_neither_memory_nor_time(tmp_path: Path):
    settings = ReceiverSection(port=free_port(), drain_s=1.0)
    with running_receiver(tmp_path, settings) as process_id:
        for finding in abuse(settings.port, process_id, mutants=MUTANTS, slow=200):
            assert finding.echoes > 0
            assert finding.slowest_s < settings.negotiation_s, finding
            assert finding.peak_mb < 300, finding
        peer = associated(settings.port)
        peer.sendall(b"".join(store_pdus(7, "1.2.840.99.7")))
        assert received(peer, 1) == b"\x04"
        peer.close()
    assert list(Places(tmp_path).incoming.glob("*.dcm"))
    assert not list(Places(tmp_path).incoming.glob(".*.part"))


@pytest.mark.parametrize(
    ("kind", "length"),
    # of a request of one byte, that byte may still come
    [each for each in itertools.product(KINDS, LENGTHS) if each != (1, 1)],
)
def test_what_is_no_association_request_is_closed_at_once(receiver, kind, length):
    said = everything_said(connect(receiver.port, struct.pack(">BxL", kind, length)))
    assert said[:1] in (b"\x07", b"")  # A-ABORT, unless the kernel's reset was faster


@pytest.mark.parametrize("length", [2**31, 2**32 - 1, 128 * 2**10 + 1])
def test_a_pdu_that_declares_too_much_is_aborted(receiver, length):
    peer = associated(receiver.port)
    peer.sendall(struct.pack(">BxL", 4, length))
    assert everything_said(peer)[:1] == b"\x07"


@pytest.mark.parametrize("length", [0, 1, 5, 2**31, 2**32 - 1])
def test_a_data_value_that_does_not_fit_its_pdu_is_aborted(receiver, length):
    peer = associated(receiver.port)
    peer.sendall(struct.pack(">BxLLBB", 4, 8, length, 1, 3) + b"xx")
    assert everything_said(peer)[:1] == b"\x07"


def test_a_data_set_without_a_command_is_aborted(receiver):
    peer = associated(receiver.port)
    peer.sendall(store_pdus(1)[1])
    assert everything_said(peer)[:1] == b"\x07"


def test_a_command_set_without_end_is_aborted(receiver):
    peer = associated(receiver.port)
    fragment = struct.pack(">BxLLBB", 4, 4006, 4002, 1, 1) + bytes(4000)
    peer.sendall(fragment * 5)
    assert everything_said(peer)[:1] == b"\x07"


def test_a_web_page_that_is_asked_for_is_not_there(receiver):
    said = everything_said(connect(receiver.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert b"HTTP" not in said


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    with receiving(tmp_path_factory.mktemp("receiver")) as listening:
        yield listening


def test_who_may_send_comes_in_however_many_wait_and_say_nothing(tmp_path: Path):
    with receiving(tmp_path, negotiation_s=60.0) as listening:
        waiting = [connect(listening.port) for _ in range(MAX_WAITING + 50)]
        began = time.monotonic()
        peer = call(listening.port)
        assert peer.send_c_echo().Status == 0
        assert time.monotonic() - began < 30, "nobody waits for the deadline of the silent"
        peer.release()
        assert listening.counts["connections_dropped"] >= 50  # the oldest of that host
        for connection in waiting:
            connection.close()

"""Where the settings ask so, a delivery is done only when the destination has confirmed it."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.presentation import build_context

from bench.robustness.network_abuse import free_port
from stillscan.deploy.gateway.receiver.receiver import reports_to
from stillscan.deploy.gateway.receiver.upper_layer import STORAGE_COMMITMENT
from stillscan.deploy.gateway.record.deliveries import Outbox
from stillscan.deploy.gateway.record.jobs import Ending, JobQueue
from stillscan.deploy.gateway.record.overview import DeliveryRow, Overview
from stillscan.deploy.gateway.sender.sender import attempt
from stillscan.deploy.gateway.settings import (
    Destination,
    GatewaySettings,
    SenderSection,
    WorkerSection,
)
from tests.deploy.gateway.listening import HOST, receiving
from tests.deploy.gateway.record import Record
from tests.deploy.gateway.test_orthanc import run_session
from tests.series_factory import make_series

INSTANCE = "1.2.840.10008.1.20.1.1"
PATIENCE_S = 20.0
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


class Sending:
    """A record with one delivery of three files."""

    def __init__(self, folder: Path, **rules: float) -> None:
        record = Record(folder)
        self.places = record.places
        queue = JobQueue(record.database, WorkerSection())
        self.number = record.job()
        job = queue.claim()
        assert job is not None
        queue.finish(job, Ending("derived", instances=3))
        make_series(self.places.outbox / str(self.number) / "1.2", slices=3)
        section = SenderSection(**{"attempts": 2, "backoff_s": 0.0, **rules})
        self.settings = GatewaySettings(data=folder, sender=section)
        self.outbox = Outbox(record.database, section)

    def to(self, destination: Destination) -> DeliveryRow:
        """Make one attempt, if one is due; the delivery then."""
        claimed = self.outbox.claim(destination.name)
        if claimed is not None:
            attempt(claimed, destination, self.outbox, self.places, 3.0)
        return self.delivery()

    def delivery(self) -> DeliveryRow:
        (row,) = Overview(self.places).deliveries(self.number)
        return row


@contextmanager
def archive(answers: list[tuple[str, int]], gateway_port: int = 0) -> Iterator[Destination]:
    """A PACS that reports on every request, in turn: where (same, new, never), and failures."""
    entity = AE("PACS")
    entity.supported_contexts = StoragePresentationContexts
    entity.add_supported_context(STORAGE_COMMITMENT)
    reporting: list[threading.Thread] = []
    left = list(answers)

    def on_action(event: evt.Event) -> tuple[int, None]:
        (where, failed), request = left.pop(0), event.action_information
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        items = list(request.ReferencedSOPSequence)
        report.ReferencedSOPSequence = items[failed:]
        if failed:
            report.FailedSOPSequence = items[:failed]
            for item in items[:failed]:
                item.FailureReason = 0x0112
        if where != "never":
            told = event.assoc if where == "same" else None
            reporting.append(threading.Thread(target=tell, args=(report, told)))
            reporting[-1].start()
        return 0, None

    def tell(report: Dataset, association: object) -> None:
        time.sleep(0.3)  # the answer to the request goes first
        own = association is None
        if own:
            association = AE("PACS").associate(
                HOST,
                gateway_port,
                [build_context(STORAGE_COMMITMENT)],
                "STILLSCAN",
                ext_neg=[build_role(STORAGE_COMMITMENT, scp_role=True)],
            )
            assert association.is_established
            (context,) = association.accepted_contexts
            assert context.as_scp
        event = 2 if "FailedSOPSequence" in report else 1
        statuses.append(
            association.send_n_event_report(report, event, STORAGE_COMMITMENT, INSTANCE)[0].Status
        )
        if own:
            association.release()

    statuses: list[int] = []
    handlers = [(evt.EVT_C_STORE, lambda event: 0), (evt.EVT_N_ACTION, on_action)]
    server = entity.start_server((HOST, 0), block=False, evt_handlers=handlers)
    try:
        yield Destination(
            "pacs",
            "c-store",
            host=HOST,
            port=server.server_address[1],
            ae_title="PACS",
            confirmation="storage-commitment",
        )
    finally:
        for thread in reporting:
            thread.join()
        server.shutdown()
    assert set(statuses) <= {0}


def ended(sending: Sending) -> DeliveryRow:
    deadline = time.monotonic() + PATIENCE_S
    while sending.delivery().state == "unconfirmed" and time.monotonic() < deadline:
        time.sleep(0.02)
    return sending.delivery()


@pytest.mark.parametrize("where", ["new", "same"])
def test_a_delivery_is_done_when_the_destination_has_reported(tmp_path, where):
    sending = Sending(tmp_path)
    report = reports_to(sending.outbox, sending.settings)
    with (
        receiving(tmp_path / "in", report=report, port=free_port()) as listening,
        archive([(where, 0)], listening.port) as destination,
    ):
        states = sending.to(destination).state, ended(sending).state
    assert states in (("unconfirmed", "sent"), ("sent", "sent"))
    assert Overview(sending.places).counts().totals["instances_sent"] == 3


def test_instances_that_are_not_committed_are_sent_again(tmp_path):
    sending = Sending(tmp_path)
    report = reports_to(sending.outbox, sending.settings)
    with (
        receiving(tmp_path / "in", report=report, port=free_port()) as listening,
        archive([("new", 1), ("new", 0)], listening.port) as destination,
    ):
        sending.to(destination)
        first = ended(sending)
        assert (first.state, first.reason) == ("waiting", "commitment-failed")
        assert "2 of 3 instances" in first.message
        sending.to(destination)
        assert ended(sending).state == "sent"


def test_a_destination_that_never_confirms_ends_as_documented(tmp_path):
    sending = Sending(tmp_path, confirm_s=0.0)
    with archive([("never", 0), ("never", 0)]) as destination:
        assert sending.to(destination).state == "unconfirmed"
        assert sending.to(destination).state == "unconfirmed"  # overdue, and sent again
        last = sending.to(destination)
    assert (last.state, last.reason, last.attempts) == ("dead", "not-confirmed", 2)
    assert Overview(sending.places).retry_delivery(last.number)
    assert sending.delivery().state == "waiting"


def test_a_report_that_nobody_waits_for_is_answered_as_a_failure(tmp_path):
    sending = Sending(tmp_path)
    report = reports_to(sending.outbox, sending.settings)
    with receiving(tmp_path / "in", report=report) as listening:
        association = AE("PACS").associate(
            HOST,
            listening.port,
            [build_context(STORAGE_COMMITMENT)],
            "STILLSCAN",
            ext_neg=[build_role(STORAGE_COMMITMENT, scp_role=True)],
        )
        unknown = Dataset()
        unknown.TransactionUID = "2.25.1"
        damaged = Dataset()
        damaged.PatientID = "no transaction"
        for dataset in (unknown, damaged):
            answer, _ = association.send_n_event_report(dataset, 1, STORAGE_COMMITMENT, INSTANCE)
            assert answer.Status == 0x0110
        association.release()
    assert sending.delivery().state == "waiting"


@pytest.mark.tools
def test_storescp_of_dcmtk_offers_no_commitment(tmp_path, tool):
    sending, port = Sending(tmp_path), free_port()
    (tmp_path / "stored").mkdir()
    program = [tool("storescp"), "-aet", "PACS", "-od", str(tmp_path / "stored"), str(port)]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as storescp:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex((HOST, port)) == 0:
                    break
            time.sleep(0.05)
        destination = Destination("pacs", "c-store", host=HOST, port=port, ae_title="PACS")
        asked = sending.to(replace(destination, confirmation="storage-commitment"))
        storescp.kill()
    assert len(list((tmp_path / "stored").iterdir())) == 3
    assert (asked.state, asked.reason) == ("waiting", "no-commitment")


@pytest.mark.tools
@pytest.mark.slow
def test_orthanc_commits_and_lists_what_it_has_stored(tmp_path, tool):
    run_session("orthanc_commitment", tmp_path, tool)

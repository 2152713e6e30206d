"""Requests storage commitment (PS3.4 annex J, push model) for what was sent by C-STORE.

The destination reports in an association of its own, which the receiver accepts; some report in the
association of the request, so that is kept open for a moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue

from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.presentation import build_context

from stillscan.deploy.gateway.receiver.upper_layer import STORAGE_COMMITMENT
from stillscan.deploy.gateway.record.commitments import CommitmentReport, report_in
from stillscan.deploy.gateway.sender.c_store import associate
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.sender.paused_reactor import PausedReactor
from stillscan.deploy.gateway.settings import Destination

WELL_KNOWN_INSTANCE = UID("1.2.840.10008.1.20.1.1")  # PS3.4 J.3.5
REQUEST = 1  # action type, PS3.4 J.3.2
GRACE_S = 1.0  # for a report in the same association
UNKNOWN_TRANSACTION = 0x0110


def request_commitment(
    destination: Destination,
    files: Sequence[Path],
    transaction_uid: str,
    timeout_s: float,
    reported: Callable[[CommitmentReport], bool],
) -> None:
    """Request storage commitment for these files; `reported` takes a report that comes at once.

    Raises:
        DeliveryFailedError: if the destination does not take the request.
    """
    answering: Queue[threading.Thread] = Queue()

    def on_report(event: evt.Event) -> tuple[int, None]:
        answering.put(threading.current_thread())  # pynetdicom starts one for each report
        known = reported(report_in(event.event_information))
        return (0 if known else UNKNOWN_TRANSACTION), None

    reactor = PausedReactor(timeout_s)
    handlers = [*reactor.handlers, (evt.EVT_N_EVENT_REPORT, on_report)]
    try:
        association = associate(
            destination, [build_context(STORAGE_COMMITMENT)], timeout_s, handlers
        )
    except DeliveryFailedError as error:
        reason = "no-commitment" if error.reason == "not-accepted" else error.reason
        raise DeliveryFailedError(reason, f"storage commitment: {error}") from error
    try:
        answer, _ = association.send_n_action(
            _request(files, transaction_uid), REQUEST, UID(STORAGE_COMMITMENT), WELL_KNOWN_INSTANCE
        )
        status = answer.get("Status")
        if status is None:
            raise DeliveryFailedError("no-answer", "no response to the request of commitment")
        if status != 0:
            raise DeliveryFailedError(
                "no-commitment", f"the request of commitment got status 0x{status:04X}"
            )
        with suppress(Empty):
            answering.get(timeout=GRACE_S).join(timeout_s)
            association._is_paused = True  # the reactor is; answering the report has reset it
        association.release()
    finally:
        reactor.end()
        if association.is_established:
            association.abort()


def _request(files: Sequence[Path], transaction_uid: str) -> Dataset:
    request = Dataset()
    request.TransactionUID = transaction_uid
    request.ReferencedSOPSequence = []
    for file in files:
        meta = read_file_meta_info(file)
        item = Dataset()
        item.ReferencedSOPClassUID = meta.MediaStorageSOPClassUID
        item.ReferencedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
        request.ReferencedSOPSequence.append(item)
    return request

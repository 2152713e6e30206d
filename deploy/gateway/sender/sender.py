"""The sender process: delivers derived series from the outbox, one thread per destination.

An unreachable destination therefore does not delay the others.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from stillscan.deploy.gateway.heartbeat import Heartbeat
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.deliveries import ClaimedDelivery, Outbox, files_of
from stillscan.deploy.gateway.sender.deliver import deliver
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.sender.rejection_note import note_on
from stillscan.deploy.gateway.settings import Destination, GatewaySettings, Places
from stillscan.operators.errors import StillscanError
from stillscan.operators.internal_fault import setting_aside

IDLE_S = 0.25
FURTHER_RESPONSES = 10  # connection, association, release, and a busy disk


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Deliver until `stop` is set; a running delivery is completed."""
    places = Places(settings.data)
    heartbeat = Heartbeat(places, "sender")
    heartbeat.beat()
    outbox = Outbox(Database(places.database), settings.sender)
    outbox.recover()
    outbox.fail_unknown_destinations([each.name for each in settings.destinations])
    threads = [
        threading.Thread(
            target=_deliver_all,
            args=(destination, outbox, places, settings.sender.timeout_s, stop, heartbeat),
            name=destination.name,
        )
        for destination in settings.destinations
    ]
    for thread in threads:
        thread.start()
    while not stop.wait(1.0):
        heartbeat.beat()
    for thread in threads:
        thread.join()


def _deliver_all(
    destination: Destination,
    outbox: Outbox,
    places: Places,
    timeout_s: float,
    stop: threading.Event,
    heartbeat: Heartbeat,
) -> None:
    while not stop.is_set():
        heartbeat.beat(loop=destination.name)
        delivery = outbox.claim(destination.name)
        if delivery is None:
            stop.wait(IDLE_S)
        else:
            heartbeat.beat(longest_s(delivery, timeout_s), destination.name)
            attempt(delivery, destination, outbox, places, timeout_s)


def longest_s(delivery: ClaimedDelivery, timeout_s: float) -> float:
    """Maximum duration of a delivery: every response arrives just within the time limit."""
    return timeout_s * (delivery.instances + FURTHER_RESPONSES)


def attempt(
    delivery: ClaimedDelivery,
    destination: Destination,
    outbox: Outbox,
    places: Places,
    timeout_s: float,
) -> None:
    """Try one delivery once, and record the result."""
    about = {
        "delivery": delivery.number,
        "job": delivery.job,
        "destination": destination.name,
        "attempt": delivery.attempt,
    }
    try:
        with setting_aside(DeliveryFailedError, sqlite3.OperationalError):
            files = files_of(places, delivery.job)
            if delivery.note:
                files = [note_on(files, places.outbox / str(delivery.job))] if files else []
            remark = deliver(destination, files, timeout_s)
            if destination.confirmation != "storage-commitment":
                outbox.sent(delivery, remark, note=destination.rejection_notes)
                log.info("delivered", extra={**about, "remark": remark})
            else:
                _commit(delivery, destination, outbox, files, remark, timeout_s)
    except (DeliveryFailedError, StillscanError) as error:
        outbox.failed(delivery, error.reason, str(error))


def _commit(
    delivery: ClaimedDelivery,
    destination: Destination,
    outbox: Outbox,
    files: Sequence[Path],
    remark: str,
    timeout_s: float,
) -> None:
    """Request storage commitment; what the destination reports decides about the delivery."""
    from stillscan.deploy.gateway.sender.commitment import request_commitment

    transaction = f"2.25.{uuid4().int}"
    outbox.unconfirmed(delivery, remark, transaction)  # first: the report may come at once
    notes_to = [destination.name] if destination.rejection_notes else []
    request_commitment(
        destination, files, transaction, timeout_s, lambda report: outbox.reported(report, notes_to)
    )

"""The sender: takes what waits in the outbox to its destinations, one thread for each of them.

A destination that is down does not delay the others.
"""

from __future__ import annotations

import sqlite3
import threading

from stillscan.deploy.gateway.heart import Heart
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.deliveries import ClaimedDelivery, Outbox, files_of
from stillscan.deploy.gateway.sender.deliver import deliver
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Destination, GatewaySettings, Places
from stillscan.operators.errors import StillscanError
from stillscan.operators.internal_fault import setting_aside

IDLE_S = 0.25
FURTHER_ANSWERS = 10  # connection, association, release, and a disk that is busy


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Deliver until `stop`; a delivery that has begun is brought to its end."""
    places = Places(settings.data)
    heart = Heart(places, "sender")
    heart.beat()
    outbox = Outbox(Database(places.database), settings.sender)
    outbox.recover()
    outbox.bury_unknown([each.name for each in settings.destinations])
    threads = [
        threading.Thread(
            target=_deliver_all,
            args=(destination, outbox, places, settings.sender.timeout_s, stop, heart),
            name=destination.name,
        )
        for destination in settings.destinations
    ]
    for thread in threads:
        thread.start()
    while not stop.wait(1.0):
        heart.beat()
    for thread in threads:
        thread.join()


def _deliver_all(
    destination: Destination,
    outbox: Outbox,
    places: Places,
    timeout_s: float,
    stop: threading.Event,
    heart: Heart,
) -> None:
    while not stop.is_set():
        heart.beat(loop=destination.name)
        delivery = outbox.claim(destination.name)
        if delivery is None:
            stop.wait(IDLE_S)
        else:
            heart.beat(longest_s(delivery, timeout_s), destination.name)
            attempt(delivery, destination, outbox, places, timeout_s)


def longest_s(delivery: ClaimedDelivery, timeout_s: float) -> float:
    """How long a delivery may take where every answer comes at the last moment."""
    return timeout_s * (delivery.instances + FURTHER_ANSWERS)


def attempt(
    delivery: ClaimedDelivery,
    destination: Destination,
    outbox: Outbox,
    places: Places,
    timeout_s: float,
) -> None:
    """Try one delivery once, and record how it went."""
    about = {
        "delivery": delivery.number,
        "job": delivery.job,
        "destination": destination.name,
        "attempt": delivery.attempt,
    }
    try:
        with setting_aside(DeliveryFailedError, sqlite3.OperationalError):
            remark = deliver(destination, files_of(places, delivery.job), timeout_s)
    except (DeliveryFailedError, StillscanError) as error:
        again = outbox.failed(delivery, error.reason, str(error))
        log.warning(
            "delivery failed" if again else "delivery failed permanently",
            extra={**about, "reason": error.reason, "detail": str(error)},
        )
    else:
        outbox.sent(delivery, remark)
        log.info("delivered", extra={**about, "remark": remark})

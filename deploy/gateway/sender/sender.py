"""The sender: takes what waits in the outbox to its destinations, one thread for each of them.

A destination that is down keeps nobody else waiting.
"""

from __future__ import annotations

import threading

from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.deliveries import ClaimedDelivery, Outbox, files_of
from stillscan.deploy.gateway.sender.deliver import deliver
from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Destination, GatewaySettings, Places

IDLE_S = 0.25


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Deliver until `stop`; a delivery that has begun is brought to its end."""
    places = Places(settings.data)
    outbox = Outbox(Database(places.database), settings.sender)
    outbox.recover()
    outbox.bury_unknown([each.name for each in settings.destinations])
    threads = [
        threading.Thread(
            target=_deliver_all,
            args=(destination, outbox, places, settings.sender.timeout_s, stop),
            name=destination.name,
        )
        for destination in settings.destinations
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()


def _deliver_all(
    destination: Destination,
    outbox: Outbox,
    places: Places,
    timeout_s: float,
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        delivery = outbox.claim(destination.name)
        if delivery is None:
            stop.wait(IDLE_S)
        else:
            attempt(delivery, destination, outbox, places, timeout_s)


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
        remark = deliver(destination, files_of(places, delivery.job), timeout_s)
    except DeliveryFailedError as error:
        again = outbox.failed(delivery, error.reason, str(error))
        log.warning(
            "delivery failed" if again else "delivery given up",
            extra={**about, "reason": error.reason, "detail": str(error)},
        )
    else:
        outbox.sent(delivery, remark)
        log.info("delivered", extra={**about, "remark": remark})

"""The PACS is down, refuses, aborts, is slow, answers with errors, or crashes.

Each time the series is delivered as a whole in the end, or given up after the configured attempts,
with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from bench.pacs.processes import Gateway, Orthanc, wait_until
from bench.pacs.scanner import SentSeries, make_series
from bench.pacs.unreliable import Fault, UnreliablePacs
from bench.robustness.soak.workplace import (
    ORTHANC,
    TO_PACS,
    Figures,
    Workplace,
    has_ended,
    last_job,
    promise,
    sender,
)
from stillscan.deploy.gateway.record.overview import DeliveryRow

SLICES = 6
ATTEMPTS = 4
TIMEOUT_S = 2.0
DESTINATIONS = [
    {"name": "unreliable", "kind": "c-store", "host": "127.0.0.1", "port": 11113}
    | {"ae-title": "UNRELIABLE"},
    ORTHANC,
    {"name": "web", "kind": "stow-rs", "url": "http://127.0.0.1:8042/dicom-web"},
]
RULES = [
    {
        "name": name,
        "mode": "identity",
        "match": {"SeriesDescription": name},
        "destinations": [name],
    }
    for name in ("unreliable", "pacs", "web")
]


@dataclass(frozen=True)
class Case:
    """The faults of the first associations and the expected end.

    Attributes:
        reason: of the last attempt that failed; "" where none did.
    """

    name: str
    plan: tuple[Fault, ...]
    state: str
    attempts: int
    reason: str
    remark: str = ""


FOREVER = 20
CASES = (
    Case("takes all", (), "sent", 1, ""),
    Case("refuses, then takes", (Fault("refuse"),) * 2, "sent", 3, "association-rejected"),
    Case("aborts in mid-series", (Fault("abort", after=3),), "sent", 2, "association-aborted"),
    Case("0xA700 in mid-series", (Fault("status", 2, 0xA700),), "sent", 2, "status-a700"),
    Case("0x0110 at once", (Fault("status", 0, 0x0110),) * 2, "sent", 3, "status-0110"),
    Case("0xB000 for all", (Fault("status", 0, 0xB000),), "sent", 1, "", "warning B000"),
    Case("falls silent", (Fault("silence", after=4),), "sent", 2, "no-answer"),
    Case("is slow", (Fault("slow"),), "sent", 1, ""),
    Case("always 0xA700", (Fault("status", 1, 0xA700),) * FOREVER, "dead", 4, "status-a700"),
    Case("always 0x0110", (Fault("status", 0, 0x0110),) * FOREVER, "dead", 4, "status-0110"),
    Case("always refuses", (Fault("refuse"),) * FOREVER, "dead", 4, "association-rejected"),
    Case("always aborts", (Fault("abort", after=2),) * FOREVER, "dead", 4, "association-aborted"),
)


def pacs_faults(place: Workplace) -> Figures:
    """Run all faults, one after the other, and a real PACS that crashes and hangs."""
    numbers = itertools.count()
    unreliable = UnreliablePacs(11113)
    unreliable.silence_s = 2 * TIMEOUT_S
    orthanc = place.orthanc()
    orthanc.start()
    rules = {"attempts": ATTEMPTS, "backoff-s": 0.3, "backoff-most-s": 1.0, "timeout-s": TIMEOUT_S}
    figures: Figures = {}
    gateway = place.gateway(sender=rules, destinations=DESTINATIONS, rules=RULES + TO_PACS)
    with gateway:
        for case in CASES:
            unreliable.plan = list(case.plan)
            series = _series(place, numbers, "unreliable")
            delivery = _delivery(gateway, series)
            figures[case.name] = _judge(case, delivery, gateway, series, unreliable)
            unreliable.plan = []
        figures["is down, comes back"] = _down(place, numbers, gateway, unreliable)
        figures["retried by the operator"] = _retried(place, numbers, gateway, unreliable)
        for name, fault in (("crashes", orthanc.kill), ("hangs", orthanc.pause)):
            for kind in ("pacs", "web"):
                figures[f"Orthanc {name} ({kind})"] = _orthanc(
                    place, numbers, gateway, orthanc, fault, kind
                )
    orthanc.kill()
    unreliable.close()
    return figures


def _series(place: Workplace, numbers: Iterator[int], where: str) -> SentSeries:
    number = next(numbers)
    folder = place.folder / "in" / str(number)
    return make_series(folder, number, SLICES, 64, SeriesDescription=where)


def _delivery(gateway: Gateway, series: SentSeries) -> DeliveryRow:
    """Send a series and wait for the end of its delivery."""
    sender().send(series.files)
    wait_until(lambda: bool(_deliveries(gateway, series)), 60, "the series is derived")
    wait_until(
        lambda: _deliveries(gateway, series)[0].state in ("sent", "dead"),
        90,
        "the delivery has ended",
    )
    return _deliveries(gateway, series)[0]


def _deliveries(gateway: Gateway, series: SentSeries) -> list[DeliveryRow]:
    job = last_job(gateway, series.uid)
    return gateway.overview.deliveries(job.number) if job is not None and has_ended(job) else []


def _judge(
    case: Case,
    delivery: DeliveryRow,
    gateway: Gateway,
    series: SentSeries,
    pacs: UnreliablePacs,
) -> str:
    job = last_job(gateway, series.uid)
    assert job is not None, "it was delivered"
    there = len(pacs.instances[job.derived_series_uid])
    said = [each.get("reason") for each in gateway.log_lines() if each.get("job") == job.number]
    outcome = f"{delivery.state} at attempt {delivery.attempts}, {there} of {SLICES} there"
    promise(delivery.state == case.state, f"{case.name}: {case.state}, not {outcome}")
    promise(delivery.attempts == case.attempts, f"{case.name}: {case.attempts}, not {outcome}")
    promise(case.reason in ("", *said), f"{case.name}: reason {case.reason}, not {said}")
    promise(case.remark in delivery.message, f"{case.name}: {case.remark} in {delivery.message}")
    if case.state == "sent":
        promise(there == SLICES, f"{case.name}: all are there, not {outcome}")
    else:
        promise(delivery.reason != "", f"{case.name}: the dead letter has a reason")
        outcome += f", reason {delivery.reason}"
    return outcome


def _down(place: Workplace, numbers: Iterator[int], gateway: Gateway, pacs: UnreliablePacs) -> str:
    """Start the PACS only after the first attempts."""
    pacs.close()
    series = _series(place, numbers, "unreliable")
    sender().send(series.files)
    wait_until(
        lambda: any(each.attempts >= 2 for each in _deliveries(gateway, series)),
        60,
        "two attempts at a PACS that is down",
    )
    promise(_deliveries(gateway, series)[0].reason == "unreachable", "down: unreachable")
    pacs.listen()
    wait_until(
        lambda: _deliveries(gateway, series)[0].state == "sent", 60, "it is delivered when it is up"
    )
    return f"sent at attempt {_deliveries(gateway, series)[0].attempts}"


def _retried(
    place: Workplace, numbers: Iterator[int], gateway: Gateway, pacs: UnreliablePacs
) -> str:
    """Keep the PACS down until the delivery has failed permanently, then retry it."""
    pacs.close()
    series = _series(place, numbers, "unreliable")
    delivery = _delivery(gateway, series)
    promise(delivery.state == "dead" and delivery.reason == "unreachable", "down: a dead letter")
    pacs.listen()
    promise(gateway.overview.retry_delivery(delivery.number), "a dead letter can be retried")
    wait_until(lambda: _deliveries(gateway, series)[0].state == "sent", 60, "it is delivered")
    return "dead: unreachable, then sent"


def _orthanc(
    place: Workplace,
    numbers: Iterator[int],
    gateway: Gateway,
    orthanc: Orthanc,
    fault: Callable[[], None],
    kind: str,
) -> str:
    """Break a real PACS while series arrive; it returns a little later."""
    series = [_series(place, numbers, kind) for _ in range(3)]
    for each in series:
        sender().send(each.files)
    wait_until(lambda: bool(_deliveries(gateway, series[0])), 60, "the first is derived")
    fault()
    wait_until(
        lambda: any(
            each.attempts >= 2 or each.reason
            for one in series
            for each in _deliveries(gateway, one)
        ),
        60,
        "a delivery fails",
    )
    orthanc.go_on() if fault == orthanc.pause else orthanc.start()
    wait_until(partial(_settled, gateway, series), 120, "every delivery has ended")
    for each in series:
        for delivery in _deliveries(gateway, each):
            if delivery.state == "dead":
                gateway.overview.retry_delivery(delivery.number)
    wait_until(gateway.is_idle, 60, "all are delivered")
    there = orthanc.series()
    for each in series:
        job = last_job(gateway, each.uid)
        assert job is not None, "it was delivered"
        promise(there.get(job.derived_series_uid) == SLICES, f"{kind}: {each.uid} is whole")
    return f"{len(series)} series whole"


def _settled(gateway: Gateway, series: list[SentSeries]) -> bool:
    return all(
        deliveries and all(each.state in ("sent", "dead") for each in deliveries)
        for deliveries in (_deliveries(gateway, each) for each in series)
    )

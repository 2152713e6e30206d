"""The gateway's metrics in the Prometheus format, made of the record when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stillscan.deploy.gateway.record.overview import Counts, Overview

PREFIX = "stillscan_gateway_"
RESTARTS = "_restarts"

# Counters by their name in the record.
COUNTERS = {
    "associations_accepted": "Associations that were accepted",
    "associations_rejected": "Associations that were rejected: AE title, too many, protocol",
    "associations_aborted": "Associations that we aborted: protocol broken, silence",
    "connections_dropped": "Connections that were closed before they asked for an association",
    "instances_acknowledged": "Instances that were answered with success: they are durable",
    "instances_refused": "Instances that were answered with a failure",
    "instances_received": "Instances that were filed into their series",
    "instances_duplicate": "Instances that had come before",
    "bytes_received": "Bytes of the files that were new",
    "instances_quarantined": "Instances that were set aside: they could not be filed",
    "clock_steps": "How often the wall clock was set",
    "jobs_created": "Jobs that were made of complete series",
    "jobs_repeated": "Complete series that had been processed before, unchanged",
    "jobs_derived": "Jobs that gave a derived series",
    "jobs_refused": "Jobs that were refused with a reason",
    "jobs_not_selected": "Jobs that the rules or the selection passed over",
    "jobs_failed": "Attempts at a job that failed and are repeated",
    "jobs_dead": "Jobs whose attempts all failed",
    "instances_sent": "Derived instances that destinations acknowledged",
    "deliveries_sent": "Derived series that destinations have whole",
    "deliveries_failed": "Attempts at a delivery that failed",
    "deliveries_dead": "Deliveries whose attempts all failed",
    "loops_stopped": "Series of our own that came back and were not processed",
}


def exposition(overview: Overview) -> bytes:
    """The text of `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_Record(overview.counts()))
    return generate_latest(registry)


class _Record(Collector):
    """Gives what was counted as metric families."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All families."""
        counts = self._counts
        yield _gauge("open_series", "Series that are being received", counts.open_series)
        yield _gauge("unfiled_instances", "Instances that are in no series yet", counts.unfiled)
        yield _gauge(
            "oldest_queued_seconds", "Age of the oldest queued job", counts.oldest_queued_s
        )
        yield _gauge("quarantined_instances", "Instances that are set aside", counts.quarantined)
        yield _gauge("disk_used_ratio", "Share of the file system in use", counts.used_share)
        yield _by_label("jobs", "Jobs in the record by state", counts.jobs)
        yield _by_label("deliveries", "Deliveries in the record by state", counts.deliveries)
        for name, meaning in COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, meaning, value=counts.totals.get(name, 0))
        restarts = CounterMetricFamily(
            PREFIX + "restarts", "Parts of the gateway that ended and began again", labels=["part"]
        )
        for name, value in counts.totals.items():
            if name.endswith(RESTARTS):
                restarts.add_metric([name.removesuffix(RESTARTS)], value)
        yield restarts


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)


def _by_label(name: str, meaning: str, values: Mapping[Any, int]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=["state"])
    for state, value in values.items():
        family.add_metric([state], value)
    return family

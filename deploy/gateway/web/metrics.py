"""Metrics of the gateway in the Prometheus format, read from the record at each request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stillscan.deploy.gateway.record.overview import Counts, Overview

PREFIX = "stillscan_gateway_"
RESTARTS = "_restarts"

# Help texts of counters, by their name in the record.
COUNTERS = {
    "associations_accepted": "Accepted associations",
    "associations_rejected": "Rejected associations (AE title, too many, protocol version)",
    "associations_aborted": "Associations aborted by the gateway (protocol error, time-out)",
    "connections_dropped": "Connections closed before a complete association request",
    "instances_acknowledged": "Instances answered with success (stored durably)",
    "instances_refused": "Instances answered with a failure status",
    "instances_received": "Instances filed into their series",
    "instances_duplicate": "Filed instances that had been received before",
    "bytes_received": "Bytes of new instances",
    "instances_quarantined": "Instances moved to the quarantine",
    "clock_steps": "Changes of the wall clock",
    "jobs_created": "Jobs created for complete series",
    "jobs_repeated": "Complete series that were sent again unchanged",
    "jobs_derived": "Jobs that produced a derived series",
    "jobs_refused": "Refused jobs",
    "jobs_not_selected": "Series not selected by the rules or the selection",
    "jobs_failed": "Failed attempts at jobs that will be repeated",
    "jobs_dead": "Jobs that failed permanently",
    "instances_sent": "Derived instances acknowledged by destinations",
    "deliveries_sent": "Derived series delivered completely",
    "deliveries_failed": "Failed attempts at deliveries",
    "deliveries_dead": "Deliveries that failed permanently",
    "loops_stopped": "Series derived by Stillscan that were received and not processed",
}


def exposition(overview: Overview) -> bytes:
    """The text of `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_Record(overview.counts()))
    return generate_latest(registry)


class _Record(Collector):
    """Converts the counts to metric families."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All families."""
        counts = self._counts
        yield _gauge("open_series", "Series that are being received", counts.open_series)
        yield _gauge("unfiled_instances", "Instances not yet filed into a series", counts.unfiled)
        yield _gauge(
            "oldest_queued_seconds", "Age of the oldest queued job", counts.oldest_queued_s
        )
        yield _gauge("quarantined_instances", "Instances in quarantine", counts.quarantined)
        yield _gauge("disk_used_ratio", "Used share of the file system", counts.used_share)
        yield _by_label("jobs", "Jobs in the record by state", counts.jobs)
        yield _by_label("deliveries", "Deliveries in the record by state", counts.deliveries)
        for name, meaning in COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, meaning, value=counts.totals.get(name, 0))
        restarts = CounterMetricFamily(
            PREFIX + "restarts", "Restarts of processes of the gateway", labels=["part"]
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

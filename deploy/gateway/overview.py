"""What the status page, /metrics and /healthz show: read-only questions to the database.

    overview = Overview(Places(folder))
    overview.counts()          # how many series, jobs, deliveries in which state
    overview.recent_jobs()     # the last ones, newest first
    overview.retry_job(17)     # the one thing an operator may do

Safe to use from several threads. UIDs are the only identifiers in here: no names, no descriptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deploy.gateway.settings import Places

JobState = Literal["queued", "running", "derived", "refused", "not-selected", "dead"]
DeliveryState = Literal["waiting", "sending", "sent", "dead"]


@dataclass(frozen=True)
class Counts:
    """How much there is of what.

    Attributes:
        series: that are still receiving (`open`).
        unfiled: instances that are acknowledged and in no series yet.
        jobs, deliveries: number by state.
        totals: counters that only grow, by name: `instances_received`, `instances_duplicate`,
            `bytes_received`, `jobs_created`, `jobs_derived`, `jobs_refused`, `jobs_dead`,
            `instances_sent`, `deliveries_sent`, `deliveries_failed`, `loops_stopped`,
            and `<part>_restarts` (receiver, web, planner, worker, sender).
        oldest_queued_s: age of the job that has waited longest; 0 where none waits.
        used_share: of the file system.
    """

    open_series: int
    unfiled: int
    jobs: Mapping[JobState, int]
    deliveries: Mapping[DeliveryState, int]
    totals: Mapping[str, int]
    oldest_queued_s: float
    used_share: float


@dataclass(frozen=True)
class JobRow:
    """One job; times are seconds since the epoch, None where it is not there yet.

    Attributes:
        revision: 1 for the first set of instances of the series, 2 after late ones, ...
        state: `queued` and `running`; `derived`; `refused` (the input or the gate, not tried
            again); `not-selected` (by the rules); `dead` (all attempts failed).
        reason, message: stable code and sentence where it was not derived, or of the last failed
            attempt.
        derived_series_uid: "" unless derived; pictures and page are
            `Places.reports/<number>/<derived_series_uid>.png` and `.html`.
        result: the member of `series` in `result.json` (operators/report.py) of this series: noise,
            verdict, warnings, method; {} where there is none.
    """

    number: int
    series_instance_uid: str
    revision: int
    modality: str
    instances: int
    rule: str
    priority: int
    state: JobState
    attempts: int
    reason: str
    message: str
    derived_series_uid: str
    created: float
    started: float | None
    finished: float | None
    result: Mapping[str, Any]


@dataclass(frozen=True)
class DeliveryRow:
    """One derived series on its way to one destination."""

    number: int
    job: int
    destination: str
    state: DeliveryState
    attempts: int
    reason: str
    message: str
    instances: int
    next_attempt: float | None
    finished: float | None


class Overview:
    """The questions; one connection to the database, opened when it is first asked."""

    def __init__(self, places: Places) -> None:
        """The database need not exist yet: everything is then zero."""
        raise NotImplementedError

    def counts(self) -> Counts:
        """How much there is of what."""
        raise NotImplementedError

    def recent_jobs(self, limit: int = 50) -> list[JobRow]:
        """The last jobs, newest first."""
        raise NotImplementedError

    def job(self, number: int) -> JobRow | None:
        """One job."""
        raise NotImplementedError

    def deliveries(self, job: int) -> list[DeliveryRow]:
        """Where the result of a job went, or is going."""
        raise NotImplementedError

    def retry_job(self, number: int) -> bool:
        """Queue a job that is `refused` or `dead` again, with all its attempts; False otherwise."""
        raise NotImplementedError

    def retry_delivery(self, number: int) -> bool:
        """Let a delivery that is `dead` be tried again; False for others."""
        raise NotImplementedError

    def add_to_totals(self, increments: Mapping[str, int]) -> None:
        """Let counters grow (the receiver's, say once a second): they survive restarts."""
        raise NotImplementedError

"""The pages for the operator: the overview, one job with its report, the quarantine.

They show UIDs, numbers and reason codes, no names. They load nothing from other hosts, and run
scripts from `assets/` only. The HTML is in `templates/`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from stillscan.deploy.gateway.record.incoming_series import OUTDATED
from stillscan.deploy.gateway.record.overview import Counts, DeliveryRow, JobRow
from stillscan.deploy.gateway.record.quarantine import Quarantined
from stillscan.operators.report.outcome import counted, noise_change, unit_suffix
from stillscan.operators.report.rendering import Number, Section, render

TEMPLATES = Path(__file__).with_name("templates")
REFRESH_S = 10
BADGES = {
    "derived": "good",
    "sent": "good",
    "accept": "good",
    "queued": "busy",
    "running": "busy",
    "waiting": "busy",
    "sending": "busy",
    "unconfirmed": "busy",
    "clamp": "warn",
    "refused": "warn",
    "dead": "bad",
}
SHOWN = {"dead": "failed"}  # states that the pages call differently


class Badge(NamedTuple):
    """A word in a coloured frame; `kind` is the CSS class of the colour."""

    text: str
    kind: str


def overview_page(
    counts: Counts,
    jobs: Sequence[tuple[JobRow, Sequence[DeliveryRow]]],
    most_used: float,
) -> str:
    """The queue and the most recent jobs, each with its deliveries."""
    full = counts.used_share >= most_used
    return render(
        TEMPLATES / "overview.html.j2",
        title="Gateway",
        state=Badge("disk full: nothing is accepted", "bad") if full else Badge("running", "good"),
        refresh_s=REFRESH_S,
        figures=_overview_figures(counts),
        quarantined=counted(counts.quarantined, "instance") if counts.quarantined else "",
        jobs=[_job_row(job, deliveries) for job, deliveries in jobs],
    )


def job_page(job: JobRow, deliveries: Sequence[DeliveryRow], reports: int, may_retry: bool) -> str:
    """One job: reports, verdict, deliveries, and buttons for another attempt."""
    rows = [
        row
        for row in (OUTDATED if job.outdated else ("", ""), (job.reason, job.message))
        if any(row)
    ]
    why = Section("Reason", rows=list(dict.fromkeys(rows))) if rows else None
    return render(
        TEMPLATES / "job.html.j2",
        title=f"Job {job.number}",
        state=_state(job.state),
        number=job.number,
        figures=[*_job_figures(job)],
        why=why,
        reports=["", *(f"/{number}" for number in range(2, reports + 1))] if reports else [],
        result=[] if reports else [*_result_sections(job.result)],
        deliveries=[_delivery_row(each) for each in deliveries],
        series=Section("Series", rows=_uids(job)),
        attempts=[*_attempts(job, deliveries)],
        may_retry=may_retry,
    )


def quarantine_page(instances: Sequence[Quarantined], may_retry: bool) -> str:
    """Instances that could not be filed, with a button to try again."""
    return render(
        TEMPLATES / "quarantine.html.j2",
        title="Quarantine",
        state=Badge(counted(len(instances), "instance"), "warn" if instances else "good"),
        instances=[{**asdict(each), "since": _moment(each.since)} for each in instances],
        may_retry=may_retry,
    )


def _overview_figures(counts: Counts) -> list[Number]:
    jobs, deliveries = counts.jobs, counts.deliveries
    return [
        Number("Receiving", str(counts.open_series), " series"),
        Number("Queued", str(jobs.get("queued", 0))),
        Number("Running", str(jobs.get("running", 0))),
        Number("Oldest queued", *_duration(counts.oldest_queued_s)),
        Number("To be sent", str(counts.pending_deliveries)),
        Number("Derived", str(jobs.get("derived", 0))),
        Number("Refused", str(jobs.get("refused", 0))),
        Number("Failed", str(jobs.get("dead", 0) + deliveries.get("dead", 0))),
        Number("Disk used", f"{100 * counts.used_share:.0f}", " %"),
    ]


def _job_figures(job: JobRow) -> Iterator[Number]:
    yield Number("Modality", job.modality or "?")
    yield Number("Instances", str(job.instances))
    noise = _noise(job.result)
    if noise.value:
        yield noise
    if verdict := _verdict(job.result):
        yield Number("Verdict", "", verdict)
    yield Number("Revision", str(job.revision))
    yield Number("Attempts", str(job.attempts))
    if job.started and job.finished:
        yield Number("Time", *_duration(job.finished - job.started))


def _job_row(job: JobRow, deliveries: Sequence[DeliveryRow]) -> dict[str, object]:
    return {
        "number": job.number,
        "state": _state(job.state),
        "series_instance_uid": job.series_instance_uid,
        "what": f"{job.modality}, {counted(job.instances, 'instance')}",
        "noise": _noise(job.result),
        "why": (OUTDATED[0] if job.outdated else job.reason) or _verdict(job.result),
        "sent": _sent(deliveries),
        "since": _moment(job.finished or job.started or job.created),
    }


def _sent(deliveries: Sequence[DeliveryRow]) -> Badge | None:
    """How many deliveries of a job are complete."""
    if not deliveries:
        return None
    sent = sum(each.state == "sent" for each in deliveries)
    failed = any(each.state == "dead" for each in deliveries)
    kind = "bad" if failed else "good" if sent == len(deliveries) else "busy"
    return Badge(f"{sent} of {len(deliveries)}", kind)


def _delivery_row(delivery: DeliveryRow) -> dict[str, object]:
    return {
        "destination": delivery.destination,
        "state": _state(delivery.state),
        "what": "rejection note" if delivery.note else counted(delivery.instances, "instance"),
        "attempts": delivery.attempts,
        "why": ": ".join(filter(None, (delivery.reason, delivery.message))),
    }


def _result_sections(result: Mapping[str, Any]) -> Iterator[Section]:
    """The verdict and measurements of a series without a report."""
    verdict = result.get("verdict") or {}
    if verdict.get("reasons"):
        yield Section("Verdict", verdict["reasons"])
    measured = verdict.get("measurements") or {}
    rows = [(k.replace("_", " "), f"{v:.4g}") for k, v in measured.items() if v is not None]
    if rows:
        yield Section("Measurements", rows=rows)
    if result.get("warnings"):
        yield Section("Warnings", result["warnings"])


def _attempts(job: JobRow, deliveries: Sequence[DeliveryRow]) -> Iterator[tuple[str, str]]:
    """Path and label of each button for another attempt."""
    if job.state in ("refused", "dead") and not job.outdated:
        yield f"/jobs/{job.number}/retry", "Try this job again"
    for each in deliveries:
        if each.state == "dead" and each.reason != OUTDATED[0]:
            yield f"/deliveries/{each.number}/retry", f"Send to {each.destination} again"


def _uids(job: JobRow) -> list[tuple[str, str]]:
    rows = [("Original series", job.series_instance_uid), ("Rule", job.rule)]
    if job.derived_series_uid:
        rows.insert(1, ("Denoised series", job.derived_series_uid))
    return rows


def _verdict(result: Mapping[str, Any]) -> str:
    return str((result.get("verdict") or {}).get("decision", ""))


def _noise(result: Mapping[str, Any]) -> Number:
    """The change of the noise; the noise before if the change is not known."""
    noise = result.get("noise") or {}
    before, after = noise.get("before"), noise.get("after")
    if before is None:
        return Number("Noise", "")
    if change := noise_change(before, after).replace("-", "\N{MINUS SIGN}"):
        return Number("Noise", change)
    return Number("Noise", f"{before:.3g}", unit_suffix(noise.get("unit") or ""))


def _duration(seconds: float) -> tuple[str, str]:
    """A duration and its unit."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f}", " h"
    if seconds >= 90:
        return f"{seconds / 60:.0f}", " min"
    return f"{seconds:.{0 if seconds >= 10 else 1}f}", " s"


def _moment(seconds: float) -> str:
    return time.strftime("%d %b %H:%M:%S", time.localtime(seconds))


def _state(state: str) -> Badge:
    return Badge(SHOWN.get(state, state), BADGES.get(state, ""))

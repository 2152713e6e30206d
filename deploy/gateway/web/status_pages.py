"""The pages that an operator looks at: the queue, the last series, one series with its pictures.

They show UIDs, numbers and reason codes, no names. Nothing in them comes from elsewhere, and
scripts run only from `assets/`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from stillscan.deploy.gateway.record.overview import Counts, DeliveryRow, JobRow
from stillscan.operators.report.outcome import counted, noise_change, unit_suffix
from stillscan.operators.report.page import list_section, table_section

REFRESH_S = 10
BADGES = {
    "derived": "good",
    "sent": "good",
    "accept": "good",
    "queued": "busy",
    "running": "busy",
    "waiting": "busy",
    "sending": "busy",
    "clamp": "warn",
    "refused": "warn",
    "dead": "bad",
}


def overview_page(
    counts: Counts,
    jobs: Sequence[tuple[JobRow, Sequence[DeliveryRow]]],
    most_used: float,
) -> str:
    """The queue and the last series, each with where it goes."""
    full = counts.used_share >= most_used
    state = ("disk full: nothing is accepted", "bad") if full else ("running", "good")
    rows = "\n".join(_job_row(job, deliveries) for job, deliveries in jobs)
    table = (
        '<div class="wide"><table><thead><tr><th>job</th><th>state</th><th>series</th>'
        "<th>what</th><th>noise</th><th>verdict or reason</th><th>sent</th><th>since</th>"
        "</tr></thead>"
        f"<tbody>\n{rows}\n</tbody></table></div>"
        if jobs
        else '<p class="empty">No series has come yet.</p>'
    )
    return _page(
        "Gateway",
        _badge(*state),
        f"{_numbers(_overview_numbers(counts))}\n<h2>Last series</h2>\n{table}",
        refresh=True,
    )


def job_page(
    job: JobRow, deliveries: Sequence[DeliveryRow], has_report: bool, may_retry: bool
) -> str:
    """One series: pictures, verdict, where it went, and the button for another attempt."""
    sections = [_numbers(_job_numbers(job))]
    if job.reason or job.message:
        sections.append(table_section("Why", [(job.reason, job.message)]))
    if has_report:
        sections.append(
            f'<h2>Before and after</h2><iframe src="/jobs/{job.number}/report" '
            'title="before, after and residual of one slice"></iframe>'
        )
    sections += _result_sections(job.result) if not has_report else []
    if deliveries:
        sections.append(_deliveries_table(deliveries))
    sections.append(table_section("Series", _uids(job)))
    sections.append(_retry_form(job, deliveries, may_retry))
    badge = _badge(job.state, BADGES.get(job.state, ""))
    return _page(f"Job {job.number}", badge, "\n".join(sections))


def _overview_numbers(counts: Counts) -> list[tuple[str, str]]:
    jobs, deliveries = counts.jobs, counts.deliveries
    return [
        ("Receiving", f"{counts.open_series}<small> series</small>"),
        ("Queued", str(jobs.get("queued", 0))),
        ("Running", str(jobs.get("running", 0))),
        ("Waiting longest", _duration(counts.oldest_queued_s)),
        ("To be sent", str(deliveries.get("waiting", 0) + deliveries.get("sending", 0))),
        ("Derived", str(jobs.get("derived", 0))),
        ("Refused", str(jobs.get("refused", 0))),
        ("Dead", str(jobs.get("dead", 0) + deliveries.get("dead", 0))),
        ("Disk", f"{100 * counts.used_share:.0f}<small> %</small>"),
    ]


def _job_numbers(job: JobRow) -> list[tuple[str, str]]:
    numbers = [("Modality", escape(job.modality or "?")), ("Instances", str(job.instances))]
    if change := _change(job.result):
        numbers.append(("Noise", change))
    if verdict := _verdict(job.result):
        numbers.append(("Verdict", f"<small>{escape(verdict)}</small>"))
    numbers += [("Revision", str(job.revision)), ("Attempts", str(job.attempts))]
    if job.started and job.finished:
        numbers.append(("Time", _duration(job.finished - job.started)))
    return numbers


def _job_row(job: JobRow, deliveries: Sequence[DeliveryRow]) -> str:
    said = job.reason or _verdict(job.result)
    cells = [
        f'<td class="short"><a href="/jobs/{job.number}">{job.number}</a></td>',
        f'<td class="short">{_badge(job.state, BADGES.get(job.state, ""))}</td>',
        f'<td class="uid">{escape(job.series_instance_uid)}</td>',
        f'<td class="short">{escape(job.modality)}, {counted(job.instances, "instance")}</td>',
        f'<td class="short">{_change(job.result)}</td>',
        f"<td>{escape(said)}</td>",
        f'<td class="short">{_sent(deliveries)}</td>',
        f'<td class="short">{_moment(job.finished or job.started or job.created)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _sent(deliveries: Sequence[DeliveryRow]) -> str:
    """How far the deliveries of a job are."""
    if not deliveries:
        return ""
    sent = sum(each.state == "sent" for each in deliveries)
    dead = any(each.state == "dead" for each in deliveries)
    kind = "bad" if dead else "good" if sent == len(deliveries) else "busy"
    return _badge(f"{sent} of {len(deliveries)}", kind)


def _result_sections(result: Mapping[str, Any]) -> list[str]:
    """What the report would show, where there is none."""
    sections = []
    verdict = result.get("verdict") or {}
    if verdict.get("reasons"):
        sections.append(list_section("Verdict", verdict["reasons"]))
    measured = verdict.get("measurements") or {}
    rows = [(k.replace("_", " "), f"{v:.4g}") for k, v in measured.items() if v is not None]
    if rows:
        sections.append(table_section("Measurements", rows))
    if result.get("warnings"):
        sections.append(list_section("To know", result["warnings"]))
    return sections


def _deliveries_table(deliveries: Sequence[DeliveryRow]) -> str:
    rows = "\n".join(
        f"<tr><td>{escape(each.destination)}</td>"
        f'<td class="short">{_badge(each.state, BADGES.get(each.state, ""))}</td>'
        f"<td>{counted(each.instances, 'instance')}</td><td>{each.attempts}</td>"
        f"<td>{escape(': '.join(filter(None, (each.reason, each.message))))}</td></tr>"
        for each in deliveries
    )
    return (
        "<h2>Sent to</h2><table><thead><tr><th>destination</th><th>state</th><th>what</th>"
        f"<th>attempts</th><th>why</th></tr></thead><tbody>\n{rows}\n</tbody></table>"
    )


def _retry_form(job: JobRow, deliveries: Sequence[DeliveryRow], may_retry: bool) -> str:
    buttons = []
    if job.state in ("refused", "dead"):
        buttons.append((f"/jobs/{job.number}/retry", "Try this job again"))
    buttons += [
        (f"/deliveries/{each.number}/retry", f"Send to {each.destination} again")
        for each in deliveries
        if each.state == "dead"
    ]
    if not buttons:
        return ""
    if not may_retry:
        return '<p class="note">Another attempt needs a token: see web.token-file.</p>'
    shown = "".join(
        f'<button data-address="{address}">{escape(label)}</button>' for address, label in buttons
    )
    return (
        '<h2>Another attempt</h2><form id="retry"><input type="password" autocomplete="off" '
        f'placeholder="operator\'s token" aria-label="operator\'s token">{shown}'
        '<span id="note" class="note" role="status"></span></form>'
    )


def _uids(job: JobRow) -> list[tuple[str, str]]:
    rows = [("Original series", job.series_instance_uid), ("Rule", job.rule)]
    if job.derived_series_uid:
        rows.insert(1, ("Denoised series", job.derived_series_uid))
    return rows


def _verdict(result: Mapping[str, Any]) -> str:
    return str((result.get("verdict") or {}).get("decision", ""))


def _change(result: Mapping[str, Any]) -> str:
    noise = result.get("noise") or {}
    before, after = noise.get("before"), noise.get("after")
    if before is None:
        return ""
    unit = escape(unit_suffix(noise.get("unit") or ""))
    change = noise_change(before, after).replace("-", "\N{MINUS SIGN}")
    return change or f"{before:.3g}<small>{unit}</small>"


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f}<small> h</small>"
    if seconds >= 90:
        return f"{seconds / 60:.0f}<small> min</small>"
    return f"{seconds:.{0 if seconds >= 10 else 1}f}<small> s</small>"


def _moment(seconds: float) -> str:
    return time.strftime("%d %b %H:%M:%S", time.localtime(seconds))


def _badge(text: str, kind: str) -> str:
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _numbers(numbers: Iterable[tuple[str, str]]) -> str:
    inside = "\n".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in numbers)
    return f'<dl class="numbers">\n{inside}\n</dl>'


def _page(title: str, badge: str, content: str, refresh: bool = False) -> str:
    again = f'<meta http-equiv="refresh" content="{REFRESH_S}">\n' if refresh else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{again}<title>Stillscan: {escape(title)}</title>
<link rel="icon" href="/assets/icon.svg">
<link rel="stylesheet" href="/assets/status.css">
<script src="/assets/status.js" defer></script>
</head>
<body>
<main>
<header><a class="brand" href="/">Stillscan</a><h1>{escape(title)}</h1>{badge}</header>
{content}
<footer>For research and evaluation. Not a cleared medical device. Denoised series are to be read \
together with their originals, which are unchanged.</footer>
</main>
</body>
</html>
"""

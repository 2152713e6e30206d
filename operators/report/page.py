"""The pages of a report: one for each derived series, and the list of all series of a run.

Each page is one file that opens from the file system without a network.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING

from stillscan.operators.report.criteria import MINUS, criteria, summary
from stillscan.operators.report.outcome import (
    SeriesOutcome,
    SkippedFile,
    counted,
    noise_change,
    unit_suffix,
)
from stillscan.operators.report.rendering import SHARED, Number, Section, policy_of, render
from stillscan.operators.writing.provenance import Provenance

if TYPE_CHECKING:
    from stillscan.operators.report.slices import SliceTexts

POLICY = "CONTENT-SECURITY-POLICY"  # stands in the template where the policy of the page comes
SLICES = "<!--SLICES-->"  # stands where the encoded slices come


def write_series_page(file: Path, outcome: SeriesOutcome, slices: SliceTexts) -> None:
    """Write the page of a derived series."""
    page = _with_policy(
        render(
            SHARED / "series.html.j2",
            title=title_of(outcome),
            more=_more(outcome),
            summary=summary(outcome),
            intervened=bool(outcome.verdict and outcome.verdict.reasons),
            figures=[*_figures(outcome)],
            criteria=criteria(outcome),
            data=_viewer_data(outcome, slices),
            factor=slices.factor,
            sections=[*_sections(outcome)],
        )
    )
    head, tail = page.split(SLICES)
    with file.open("wb") as written:
        written.write(head.encode())
        slices.lines.seek(0)
        copyfileobj(slices.lines, written)
        written.write(tail.encode())


def index_page(outcomes: Sequence[SeriesOutcome], skipped: Sequence[SkippedFile]) -> str:
    """Return the list of all series of a run: derived, refused, not selected, and other files."""
    return _with_policy(
        render(
            SHARED / "index.html.j2",
            counts=[
                Number(name, str(sum(each.status == status for each in outcomes)))
                for name, status in (
                    ("Derived", "derived"),
                    ("Refused", "refused"),
                    ("Not selected", "not-selected"),
                )
            ],
            series=[_row(each) for each in sorted(outcomes, key=lambda each: each.status)],
            skipped=skipped,
        )
    )


def title_of(outcome: SeriesOutcome) -> str:
    """Return the name of a series if it is known, else its modality."""
    return str(outcome.name or "") or f"{outcome.modality or 'unknown'} series"


def _more(outcome: SeriesOutcome) -> str:
    named = outcome.name.more if outcome.name else ""
    parts = (outcome.modality, counted(outcome.slices, "slice"), named)
    return ", ".join(each for each in parts if each)


def _with_policy(page: str) -> str:
    return page.replace(POLICY, policy_of(page), 1)


def _row(outcome: SeriesOutcome) -> dict[str, object]:
    intervened = bool(outcome.verdict and outcome.verdict.reasons)
    lights = {"derived": "look" if intervened or outcome.warnings else "within", "refused": "stop"}
    return {
        "light": lights.get(outcome.status, "unknown"),
        "status": outcome.status.replace("-", " "),
        "title": title_of(outcome),
        "more": _more(outcome),
        "uid": outcome.uid or "",
        "page": outcome.page,
        "thumbnail": b64encode(outcome.thumbnail).decode("ascii"),
        "said": summary(outcome) if outcome.page else outcome.message,
        "reason": outcome.reason,
        "warnings": outcome.warnings,
    }


def _viewer_data(outcome: SeriesOutcome, slices: SliceTexts) -> dict[str, object]:
    assert slices.display is not None, "a series has a middle slice"
    return {
        "unit": unit_suffix(outcome.unit),
        "factor": slices.factor,
        "volumes": slices.volumes,
        **asdict(slices.display),
        "shape": slices.shape,
        "full": slices.full,
        "unsigned": slices.unsigned,
        "slices": slices.slices,
    }


def _figures(outcome: SeriesOutcome) -> Iterator[Number]:
    unit = unit_suffix(outcome.unit)
    for name, value in (("before", outcome.noise_before), ("after", outcome.noise_after)):
        if value is None:
            yield Number(f"Noise {name}, flat places", "not measured")
        else:
            yield Number(f"Noise {name}, flat places", f"{value:.3g}", unit)
    if change := noise_change(outcome.noise_before, outcome.noise_after):
        yield Number("Change, flat places", change.replace("-", MINUS))
    if outcome.error_change is not None:
        change = f"{100 * outcome.error_change:+.0f} %".replace("-", MINUS)
        yield Number("Error, foreground (expected)", change)
    yield Number("Slices", str(outcome.slices))
    yield Number("Time", f"{outcome.seconds:.1f}", " s")


def _sections(outcome: SeriesOutcome) -> Iterator[Section]:
    if outcome.warnings:
        yield Section("Warnings", outcome.warnings)
    made, derived = outcome.provenance, outcome.derived
    rows = []
    if made is not None:
        rows += [
            ("Application", made.software),
            ("Mode and strength", f"{made.mode}, {made.strength:g}"),
            ("Contrast that stays whatever the network does", _least_contrast(made)),
            ("Bundle", made.bundle),
            ("SHA-256 of the weights", made.model_sha256),
            ("Engine", f"{made.engine}, {made.precision}, {made.device}"),
        ]
    rows += [
        ("Original series", outcome.series_instance_uid or ""),
        ("Original image", outcome.sop_instance_uid),
        ("Denoised series", derived.series_instance_uid if derived else ""),
    ]
    yield Section("Method and identity", rows=[row for row in rows if row[1]])


def _least_contrast(made: Provenance) -> str:
    """State the bound at the centre of a disc of diameter D: 1 - w exp(-D^2 / (8 s^2))."""
    if not made.pass_through_mm or made.is_control:
        return ""
    share = made.strength * made.confirmed_share
    least = [
        f"{mm} mm {100 * (1 - share * math.exp(-((mm / made.pass_through_mm) ** 2) / 8)):.0f} %"
        for mm in (5, 8)
    ]
    return f"at the centre of a disc of {', of '.join(least)} (pixels of at most 1.25 mm)"

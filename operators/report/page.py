"""The HTML page of one series: a slider between before and after, the residual, the numbers.

The page is one file including its pictures and opens without a network.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator

from stillscan.operators.report.outcome import SeriesOutcome, counted, noise_change, unit_suffix
from stillscan.operators.report.pictures import (
    Comparison,
    grey_after,
    grey_before,
    grey_residual,
    png,
)
from stillscan.operators.report.rendering import SHARED, Number, Section, render
from stillscan.operators.writing.provenance import Provenance


def series_page(outcome: SeriesOutcome, comparison: Comparison) -> str:
    """Return the HTML page of a derived series."""
    rows, columns = comparison.before.shape
    low, high = comparison.window
    verdict = outcome.verdict.decision if outcome.verdict else ""
    return render(
        SHARED / "series.html.j2",
        title=f"{outcome.modality} series, {counted(outcome.slices, 'slice')}",
        verdict=verdict,
        verdict_class="accept" if verdict == "accept" else "clamp",
        figures=[*_figures(outcome)],
        aspect=f"{columns} / {rows * comparison.pixel_aspect:g}",
        before=_data_uri(png(grey_before(comparison))),
        after=_data_uri(png(grey_after(comparison))),
        residual=_data_uri(png(grey_residual(comparison))),
        slice=f"Slice {comparison.slice_number} of {outcome.slices}.",
        window=f"{low:.4g} to {high:.4g}{unit_suffix(comparison.unit)}",
        sections=[*_sections(outcome)],
    )


def _figures(outcome: SeriesOutcome) -> Iterator[Number]:
    unit = unit_suffix(outcome.unit)
    if outcome.noise_before is not None:
        yield Number("Noise before, flat places", f"{outcome.noise_before:.3g}", unit)
    if outcome.noise_after is not None:
        yield Number("Noise after, flat places", f"{outcome.noise_after:.3g}", unit)
    if change := noise_change(outcome.noise_before, outcome.noise_after):
        yield Number("Change, flat places", change.replace("-", "\N{MINUS SIGN}"))
    if outcome.error_change is not None:
        change = f"{100 * outcome.error_change:+.0f} %".replace("-", "\N{MINUS SIGN}")
        yield Number("Error, foreground (expected)", change)
    yield Number("Slices", str(outcome.slices))
    yield Number("Time", f"{outcome.seconds:.1f}", " s")


def _sections(outcome: SeriesOutcome) -> Iterator[Section]:
    if outcome.verdict and outcome.verdict.reasons:
        yield Section("Reasons", outcome.verdict.reasons)
    if outcome.warnings:
        yield Section("Warnings", outcome.warnings)
    if outcome.verdict and outcome.verdict.measurements:
        measured = outcome.verdict.measurements.items()
        rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in measured]
        yield Section("Measurements", rows=rows)
    if outcome.witnesses:
        unit = unit_suffix(outcome.unit)
        rows = [
            (each.name, f"{each.sigma:.3g}{unit}{'' if each.proven else ' (may be structure)'}")
            for each in outcome.witnesses
        ]
        yield Section("Noise by independent measurements; the lower level is used", rows=rows)
    if outcome.repeats:
        yield Section("Check by repeated acquisitions", rows=_repeats(outcome))
    if outcome.provenance:
        made = outcome.provenance
        rows = [
            ("Application", f"{made.application} {made.version}"),
            ("Mode and strength", f"{made.mode}, {made.strength:g}"),
            ("Contrast that stays whatever the network does", _least_contrast(made)),
            ("Bundle", made.bundle),
            ("SHA-256 of the weights", made.model_sha256),
            ("Engine", f"{made.engine}, {made.precision}, {made.device}"),
        ]
        yield Section("Method", rows=[row for row in rows if row[1]])
    if outcome.derived:
        uids = [
            ("Original series", outcome.series_instance_uid or ""),
            ("Original image", outcome.sop_instance_uid),
            ("Denoised series", outcome.derived.series_instance_uid),
        ]
        yield Section("Series", rows=[row for row in uids if row[1]])


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


def _repeats(outcome: SeriesOutcome) -> list[tuple[str, str]]:
    check, unit = outcome.repeats, unit_suffix(outcome.unit)
    assert check is not None, "checked by the caller"
    change = noise_change(check.before, check.after).replace("-", "\N{MINUS SIGN}")
    return [
        ("Slices compared with another acquisition", str(check.slices)),
        ("Share of the correction that they confirm", f"{100 * check.confirmed_share:.0f} %"),
        ("Difference between acquisitions, before", f"{check.before:.4g}{unit}"),
        ("Difference between acquisitions, after", f"{check.after:.4g}{unit} ({change})"),
    ]


def _data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + b64encode(picture).decode("ascii")

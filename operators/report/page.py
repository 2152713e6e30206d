"""The page of one series: a slider between before and after, the residual, the numbers.

It is one file with its pictures inside and opens from the file system without a network.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from stillscan.operators.report.outcome import SeriesOutcome, counted, noise_change, unit_suffix
from stillscan.operators.report.pictures import (
    Comparison,
    grey_after,
    grey_before,
    grey_residual,
    png,
)

PAGE = Path(__file__).with_name("templates") / "page.html"


def series_page(outcome: SeriesOutcome, comparison: Comparison) -> str:
    """The HTML page of a derived series."""
    rows, columns = comparison.before.shape
    low, high = comparison.window
    verdict = outcome.verdict.decision if outcome.verdict else ""
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{outcome.modality} series, {counted(outcome.slices, 'slice')}"),
        verdict=escape(verdict),
        verdict_class="accept" if verdict == "accept" else "clamp",
        numbers="\n".join(_number(name, value) for name, value in _numbers(outcome)),
        aspect=f"{columns} / {rows * comparison.pixel_aspect:g}",
        before=_data_uri(png(grey_before(comparison))),
        after=_data_uri(png(grey_after(comparison))),
        residual=_data_uri(png(grey_residual(comparison))),
        slice=escape(f"Slice {comparison.slice_number} of {outcome.slices}."),
        window=escape(f"{low:.4g} to {high:.4g}{unit_suffix(comparison.unit)}"),
        sections="\n".join(_sections(outcome)),
    )


def _numbers(outcome: SeriesOutcome) -> list[tuple[str, str]]:
    unit = escape(unit_suffix(outcome.unit))
    numbers = []
    if outcome.noise_before is not None:
        numbers.append(("Noise before", f"{outcome.noise_before:.3g}<small>{unit}</small>"))
    if outcome.noise_after is not None:
        numbers.append(("Noise after", f"{outcome.noise_after:.3g}<small>{unit}</small>"))
    if change := noise_change(outcome.noise_before, outcome.noise_after):
        numbers.append(("Change", change.replace("-", "\N{MINUS SIGN}")))
    numbers.append(("Slices", str(outcome.slices)))
    numbers.append(("Time", f"{outcome.seconds:.1f}<small> s</small>"))
    return numbers


def _sections(outcome: SeriesOutcome) -> list[str]:
    sections = []
    if outcome.verdict and outcome.verdict.reasons:
        sections.append(list_section("Why", outcome.verdict.reasons))
    if outcome.warnings:
        sections.append(list_section("To know", outcome.warnings))
    if outcome.verdict and outcome.verdict.measurements:
        measured = outcome.verdict.measurements.items()
        rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in measured]
        sections.append(table_section("Measurements", rows))
    if outcome.repeats:
        sections.append(table_section("Against repeats inside the series", _repeats(outcome)))
    if outcome.provenance:
        made = outcome.provenance
        rows = [
            ("Application", f"{made.application} {made.version}"),
            ("Mode and strength", f"{made.mode}, {made.strength:g}"),
            ("Bundle", made.bundle),
            ("SHA-256 of the weights", made.model_sha256),
            ("Engine", f"{made.engine}, {made.precision}, {made.device}"),
        ]
        sections.append(table_section("How it was made", [row for row in rows if row[1]]))
    if outcome.derived:
        uids = [
            ("Original series", outcome.series_instance_uid or ""),
            ("Denoised series", outcome.derived.series_instance_uid),
        ]
        sections.append(table_section("Series", uids))
    return sections


def _repeats(outcome: SeriesOutcome) -> list[tuple[str, str]]:
    check, unit = outcome.repeats, unit_suffix(outcome.unit)
    assert check is not None, "asked by who has seen it"
    change = noise_change(check.before, check.after).replace("-", "\N{MINUS SIGN}")
    return [
        ("Slices compared with another acquisition", str(check.slices)),
        ("Share of the correction that they bear out", f"{100 * check.borne_out:.0f} %"),
        ("Difference from it before", f"{check.before:.4g}{unit}"),
        ("Difference from it after", f"{check.after:.4g}{unit} ({change})"),
    ]


def _number(name: str, value: str) -> str:
    return f"  <div><dt>{escape(name)}</dt><dd>{value}</dd></div>"


def list_section(heading: str, items: Iterable[str]) -> str:
    """A heading with a list below it."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<h2>{escape(heading)}</h2><ul>{lines}</ul>"


def table_section(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    """A heading with a table of names and values below it."""
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<h2>{escape(heading)}</h2><table><tbody>{lines}</tbody></table>"


def _data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + b64encode(picture).decode("ascii")

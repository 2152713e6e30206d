"""Console output of a run: progress, then a table; plain lines without a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from stillscan.app.bundles.choice import is_preliminary, is_refused
from stillscan.app.pipeline.lines import derived_line, figures_of, refusal_line, skipped_line
from stillscan.app.pipeline.output_folder import REPORT
from stillscan.app.pipeline.pipeline import RunResult
from stillscan.app.pipeline.survey import Finding, Survey, findings_of
from stillscan.operators.report.outcome import Progress as SeriesProgress
from stillscan.operators.report.outcome import (
    SeriesOutcome,
    Watch,
    counted,
    noise_change,
    unit_suffix,
)
from stillscan.operators.report.result import series_result

SERIES_SCHEMA, FINDING_SCHEMA = "stillscan-series/1", "stillscan-finding/1"
UID_SHOWN = 18  # the end of a UID distinguishes series; the beginnings are alike


@contextmanager
def progress_bar(console: Console) -> Iterator[Watch]:
    """Show a bar for each series on a terminal, otherwise nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("slices"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        tasks = {}
        start = bars.add_task("starting", total=None)

        def watch(progress: SeriesProgress) -> None:
            uid = progress.series_instance_uid
            bars.update(start, visible=False)
            if uid not in tasks:
                tasks[uid] = bars.add_task(short_uid(uid), total=progress.slices)
            bars.update(tasks[uid], completed=progress.done)

        yield watch


def show_result(console: Console, result: RunResult, output: Path) -> None:
    """Print the outcome of every series and the place of the results."""
    derived = [each for each in result.outcomes if each.status == "derived"]
    if console.is_terminal and derived:
        console.print(_table(result.outcomes))
    for each in derived:
        if not console.is_terminal:
            console.print(derived_line(each), soft_wrap=True, highlight=False)
    if derived:
        series = {_derived_uid(each) for each in derived}
        console.print(f"{len(series)} derived series in {output}", soft_wrap=True, highlight=False)
        pages = [output / REPORT / f"{each.page}.html" for each in derived]
        pages = [output / REPORT / "index.html"] if len(pages) > 1 else pages
        for page in [each for each in pages if each.exists()]:
            console.print(f"look at {page}", soft_wrap=True, highlight=False)


def show_json(result: RunResult, names: bool) -> None:
    """Print one line of JSON for each series: its entry in `result.json`, and a schema.

    Args:
        result: of a run.
        names: with what the header calls the series, where it was chosen; null elsewhere.
    """
    known = {
        each.series_instance_uid: {
            "study_instance_uid": each.study_instance_uid,
            "series_number": each.instances[0].known.series_number,
            "series_description": each.instances[0].known.series_description,
        }
        for each in result.candidates
    }
    nothing = dict.fromkeys(("study_instance_uid", "series_number", "series_description"))
    for outcome in result.outcomes:
        named = known.get(outcome.series_instance_uid or "", nothing) if names else {}
        _print_line(SERIES_SCHEMA, series_result(outcome) | named)


def show_image(
    console: Console, name: str, outcome: SeriesOutcome, as_json: bool, path: Path | None
) -> None:
    """Print what became of a file that is no DICOM; as JSON with its path where that is given."""
    if as_json:
        known = {"file": name} | ({} if path is None else {"path": str(path)})
        _print_line(SERIES_SCHEMA, series_result(outcome) | known)
    elif outcome.status == "derived":
        line = f"denoised {name}: {figures_of(outcome)}"
        console.print(line, soft_wrap=True, highlight=False)


def show_finding(console: Console, name: str, found: Finding, as_json: bool) -> None:
    """Print what would be done with a file that is no DICOM."""
    if as_json:
        _print_line(FINDING_SCHEMA, asdict(found) | {"file": name})
    elif found.status == "would-denoise":
        slices, with_what = counted(found.slices, "slice"), f"with bundle {found.bundle}"
        line = f"would denoise {name} {with_what}: {found.modality}, {slices}"
        console.print(line, soft_wrap=True, highlight=False)
    else:
        line = f"would not denoise: {found.status} {name}: {found.reason}: {found.message}"
        console.print(line, soft_wrap=True, highlight=False)


def show_findings(found: Survey) -> None:
    """Print one line of JSON for each series of a survey."""
    for finding in findings_of(found):
        _print_line(FINDING_SCHEMA, asdict(finding))


def _print_line(schema: str, document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"schema": schema} | document, allow_nan=False) + "\n")
    sys.stdout.flush()


def short_uid(uid: str, end: int = UID_SHOWN) -> str:
    """Return the end of a UID."""
    return uid if len(uid) <= end else "\N{HORIZONTAL ELLIPSIS}" + uid[-end:]


def show_survey(console: Console, found: Survey) -> None:
    """Print for each series and file what would be done with it, and why."""
    for candidate, bundle in found.chosen:
        with_what = f"with bundle {bundle.name}" if bundle else "in identity mode"
        if bundle and is_preliminary(bundle):
            with_what += " (preliminary)"
        if bundle and is_refused(bundle):
            with_what += " (refused by its own release check)"
        console.print(
            f"would denoise {candidate.sop_instance_uid or candidate.series_instance_uid} "
            f"{with_what}: {candidate.modality}, "
            f"{counted(candidate.slices, 'slice')}, {candidate.why}",
            soft_wrap=True,
            highlight=False,
        )
    for each in found.passed_over:
        console.print(f"would not denoise: {refusal_line(each)}", soft_wrap=True, highlight=False)
    for file in found.skipped:
        console.print(f"would have {skipped_line(file)}", soft_wrap=True, highlight=False)


def names_of(outcomes: Sequence[SeriesOutcome]) -> list[str]:
    """Return a name for each series, no two alike: as its header calls it, and where needed a UID.

    Of the UID the end is shown, as much as distinguishes the series.
    """
    uids = [each.uid or "" for each in outcomes]
    plain = [str(each.name or "") for each in outcomes]
    ends = UID_SHOWN
    while len({uid[-ends:] for uid in uids}) < len(set(uids)):
        ends += 1
    return [
        name if name and plain.count(name) == 1 else f"{name} {short_uid(uid, ends)}".strip()
        for name, uid in zip(plain, uids, strict=True)
    ]


def _table(outcomes: Sequence[SeriesOutcome]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("series")
    table.add_column("modality")
    for name in ("slices", "noise before", "after", "change", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("warnings")
    for each, name in zip(outcomes, names_of(outcomes), strict=True):
        if each.status != "derived":
            continue
        unit = unit_suffix(each.unit)
        before, after = each.noise_before, each.noise_after
        table.add_row(
            name,
            each.modality,
            str(each.slices),
            "" if before is None else f"{before:.3g}{unit}",
            "" if after is None else f"{after:.3g}{unit}",
            "" if before is None or after is None else noise_change(before, after),
            f"{each.seconds:.1f}",
            each.verdict.decision if each.verdict else "",
            "\n".join(each.warnings),
        )
    return table


def _derived_uid(outcome: SeriesOutcome) -> str:
    return outcome.derived.series_instance_uid if outcome.derived else ""

"""Formats and logs the outcomes of series and files, one line each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from stillscan.app.pipeline.pipeline import RunResult
from stillscan.operators.errors import ExitCode
from stillscan.operators.report.outcome import (
    SeriesOutcome,
    SkippedFile,
    counted,
    noise_change,
    unit_suffix,
)

log = logging.getLogger("stillscan")

SKIPPED_SHOWN = 10


def log_derived(outcomes: Sequence[SeriesOutcome]) -> None:
    """Log the derived series."""
    for each in outcomes:
        if each.status == "derived":
            log.info("%s", derived_line(each))


def log_warnings(outcomes: Sequence[SeriesOutcome]) -> None:
    """Log the warnings of the derived series."""
    for each in outcomes:
        for warning in each.warnings:
            log.warning("%s", f"{each.uid}: {warning}" if each.uid else warning)


def log_refusals(result: RunResult, source: Path) -> None:
    """Log on standard error why series and files were not processed, and how the run ended."""
    for each in result.outcomes:
        if each.status != "derived":
            log.warning("%s", refusal_line(each))
    for file in result.skipped[:SKIPPED_SHOWN]:
        log.warning("%s", skipped_line(file))
    if len(result.skipped) > SKIPPED_SHOWN:
        log.warning("skipped %d more files", len(result.skipped) - SKIPPED_SHOWN)
    if result.exit_code == ExitCode.NOTHING_TO_DO:
        log.error("nothing to do: %s contains no series that can be denoised", source)
    elif result.exit_code in (ExitCode.BAD_INPUT, ExitCode.MODEL_FAULT, ExitCode.INTERNAL_FAULT):
        log.error("nothing was written: every series of %s was refused", source)


def skipped_line(file: SkippedFile) -> str:
    """Describe one skipped file in one line."""
    return f"skipped {file.name}: {file.reason}: {file.message}"


def derived_line(outcome: SeriesOutcome) -> str:
    """Describe one derived series in one line."""
    uid = outcome.derived.series_instance_uid if outcome.derived else "-"
    return f"derived {outcome.uid} -> {uid}: {figures_of(outcome)}"


def figures_of(outcome: SeriesOutcome) -> str:
    """List what was denoised and measured."""
    verdict = outcome.verdict.decision if outcome.verdict else "-"
    return (
        f"{outcome.modality}, {counted(outcome.slices, 'slice')}, noise {noise_text(outcome)}, "
        f"{outcome.seconds:.1f} s, {verdict}"
    )


def refusal_line(outcome: SeriesOutcome) -> str:
    """Describe one series that was not derived in one line."""
    status = outcome.status.replace("-", " ")
    uid = f" {outcome.uid}" if outcome.uid else ""
    return f"{status}{uid}: {outcome.reason}: {outcome.message}"


def noise_text(outcome: SeriesOutcome) -> str:
    """Format noise and expected error, `12.3 -> 3.4 HU (-72 %)`, as far as they were measured."""
    if outcome.noise_before is None:
        return "not measured"
    unit = unit_suffix(outcome.unit)
    if outcome.noise_after is None:
        return f"{outcome.noise_before:.3g}{unit}"
    change = noise_change(outcome.noise_before, outcome.noise_after)
    text = f"{outcome.noise_before:.3g} -> {outcome.noise_after:.3g}{unit} ({change})"
    if outcome.error_change is not None:
        text += f" in flat places, error {100 * outcome.error_change:+.0f} % in the foreground"
    return text

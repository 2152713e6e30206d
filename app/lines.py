"""What became of series and files, one plain line each."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from operators.outcome import SeriesOutcome, SkippedFile, noise_change, unit_suffix

log = logging.getLogger("stillscan")

SKIPPED_SHOWN = 10


def log_derived(outcomes: Sequence[SeriesOutcome]) -> None:
    """Say which series were derived."""
    for each in outcomes:
        if each.status == "derived":
            log.info("%s", derived_line(each))


def log_refusals(outcomes: Sequence[SeriesOutcome], skipped: Sequence[SkippedFile]) -> None:
    """Say on stderr why series and files were not processed."""
    for each in outcomes:
        if each.status != "derived":
            log.warning("%s", refusal_line(each))
    for file in skipped[:SKIPPED_SHOWN]:
        log.warning("skipped %s: %s: %s", file.name, file.reason, file.message)
    if len(skipped) > SKIPPED_SHOWN:
        log.warning("skipped %d more files", len(skipped) - SKIPPED_SHOWN)


def derived_line(outcome: SeriesOutcome) -> str:
    """One derived series in one line."""
    verdict = outcome.verdict.decision if outcome.verdict else "-"
    uid = outcome.derived.series_instance_uid if outcome.derived else "-"
    return (
        f"derived {outcome.series_instance_uid} -> {uid}: {outcome.modality}, "
        f"{outcome.slices} slices, noise {noise_text(outcome)}, {outcome.seconds:.1f} s, {verdict}"
    )


def refusal_line(outcome: SeriesOutcome) -> str:
    """One series that was not derived in one line."""
    status = outcome.status.replace("-", " ")
    uid = outcome.series_instance_uid or "a series without UID"
    return f"{status} {uid}: {outcome.reason}: {outcome.message}"


def noise_text(outcome: SeriesOutcome) -> str:
    """`12.3 -> 3.4 HU (-72 %)`, as far as it was measured."""
    if outcome.noise_before is None:
        return "not measured"
    unit = unit_suffix(outcome.unit)
    if outcome.noise_after is None:
        return f"{outcome.noise_before:.3g}{unit}"
    change = noise_change(outcome.noise_before, outcome.noise_after)
    return f"{outcome.noise_before:.3g} -> {outcome.noise_after:.3g}{unit} ({change})"

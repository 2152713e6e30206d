"""Denoise every series of a folder, for all commands, workers and services.

The order of imports matters, as start-up dominates for a short series. The reading process starts
first; then torch and holoscan are imported in the background while the headers are read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from stillscan import __version__
from stillscan.app.bundles.choice import identity_method, load_methods
from stillscan.app.pipeline.folder_names import require_pattern, with_named_folders
from stillscan.app.pipeline.output_folder import REPORT, publish, require_apart, staging_in
from stillscan.app.pipeline.survey import Job, Survey, survey
from stillscan.app.process_setup import import_torch
from stillscan.app.settings import OutputSection, Settings
from stillscan.models.bundle import BundleInfo
from stillscan.operators.errors import ExitCode
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Candidate, read_series
from stillscan.operators.report.outcome import (
    Progress,
    SeriesOutcome,
    SkippedFile,
    Watch,
    exit_code_of,
)

if TYPE_CHECKING:  # it imports torch
    from stillscan.operators.graph.messages import Method, SeriesSource

    Load = Callable[[Mapping[str, BundleInfo], Settings], Mapping[str, Method]]
    Derive = Callable[
        [Sequence[SeriesSource], Mapping[str, Method], Path, OutputSection, Watch],
        tuple[SeriesOutcome, ...],
    ]

log = logging.getLogger("stillscan")

# modules with `derive_all`, imported when needed
OVERLAPPED, IN_TURN = "stillscan.app.pipeline.application", "stillscan.app.pipeline.in_turn"


@dataclass(frozen=True)
class RunResult:
    """The result of a run; `candidates` are the selected series."""

    outcomes: tuple[SeriesOutcome, ...]
    skipped: tuple[SkippedFile, ...]
    exit_code: ExitCode
    seconds: float
    candidates: tuple[Candidate, ...] = ()


def _silent(progress: Progress) -> None:
    """Ignore the progress."""


def run(job: Job, watch: Watch = _silent) -> RunResult:
    """Denoise every selected series of the input; publish all derived series at the end.

    Series that cannot be derived are listed with the reason; if none could be derived, the output
    stays empty.

    Raises:
        StillscanError: for what concerns the whole run (settings, models, output).
    """
    with Decoder() as decoder:
        return run_with(job, decoder, load_methods, watch)


def holoscan_is_there() -> bool:
    """Return whether holoscan is installed (the extra `deploy`); without it stages run in turn."""
    return find_spec("holoscan") is not None


def run_with(
    job: Job,
    decoder: Decoder,
    load: Load,
    watch: Watch = _silent,
    *,
    overlapped: bool = True,
) -> RunResult:
    """Do the same as `run` for a service, with a reading process and networks that it keeps.

    Args:
        job: input, output and settings.
        decoder: the reading process, possibly started long ago.
        load: loads the method for each modality, as `load_methods` does.
        watch: called after each block.
        overlapped: run the stages in parallel on holoscan, where that is installed; otherwise one
            after the other.

    Raises:
        StillscanError: for what concerns the whole run (settings, models, output).
    """
    stages = OVERLAPPED if overlapped and holoscan_is_there() else IN_TURN
    started = time.monotonic()
    require_apart(job.source, job.output)
    if job.name:
        require_pattern(job.name)
    with staging_in(job.output) as staging:
        imports = Thread(target=_import_stages, args=(stages,))
        imports.start()
        found = survey(job, decoder)
        log.info("input read: %.2f s", time.monotonic() - started)
        outcomes = found.passed_over
        if found.chosen:
            imports.join()
            log.info("stages imported: %.2f s", time.monotonic() - started)
            outcomes += _derive(job, found, decoder, load, staging, watch, stages)
            log.info("stages run: %.2f s", time.monotonic() - started)
        chosen = tuple(candidate for candidate, _ in found.chosen)
        if job.name:
            outcomes = with_named_folders(outcomes, chosen, staging, job.output, job.name)
        result = RunResult(
            outcomes,
            found.skipped,
            exit_code_of(outcomes),
            time.monotonic() - started,
            chosen,
        )
        if any(each.status == "derived" for each in outcomes):
            if job.settings.output.report:
                _report(staging / REPORT, job, result)
            publish(staging, job.output)
            log.info("published: %.2f s", time.monotonic() - started)
    return result


def _import_stages(stages: str) -> None:
    """Import torch, and holoscan if the stages run on it, in advance."""
    with suppress(Exception):  # the import of `_derive` raises it again
        import_torch()
        import_module(stages)


def _derive(
    job: Job,
    found: Survey,
    decoder: Decoder,
    load: Load,
    staging: Path,
    watch: Watch,
    stages: str,
) -> tuple[SeriesOutcome, ...]:
    """Load the networks and send the chosen series through the stages."""
    derive_all: Derive = import_module(stages).derive_all
    methods = _methods_for(found, job.settings, load)
    output = job.settings.output
    sources = _sources_of(found, decoder, output.names)
    return derive_all(sources, methods, staging, output, watch)


def _methods_for(found: Survey, settings: Settings, load: Load) -> Mapping[str, Method]:
    """Load the method for each modality of the chosen series; none is loaded for the control.

    Raises:
        ModelError: as `load_methods`.
    """
    if settings.denoise.mode == "identity":
        control = identity_method(settings)
        return {candidate.modality: control for candidate, _ in found.chosen}
    return load({candidate.modality: info for candidate, info in found.chosen if info}, settings)


def _sources_of(found: Survey, decoder: Decoder, names: bool) -> list[SeriesSource]:
    """Return the chosen series, which are read one after the other."""
    from stillscan.operators.graph.messages import SeriesSource

    return [
        SeriesSource(
            candidate.series_instance_uid,
            tuple(each.path for each in candidate.instances),
            partial(read_series, candidate, decoder),
            candidate.sop_instance_uid,
            candidate.name if names else None,
        )
        for candidate, _ in found.chosen
    ]


def _report(folder: Path, job: Job, result: RunResult) -> None:
    """Write `result.json` beside the pages of the series."""
    from stillscan.operators.report.result import write_result

    with naming_output_faults("write the report"):
        write_result(
            folder,
            result.outcomes,
            result.skipped,
            application=(job.settings.application.title, __version__),
            exit_code=result.exit_code,
            seconds=result.seconds,
        )

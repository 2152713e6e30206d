"""The one way through the application: what `python app` and `stillscan denoise` both call.

Order and laziness matter here: a short series is mostly start-up. The reading child starts first,
then torch and holoscan are imported in the background while the headers are read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from stillscan import __version__
from stillscan.app.bundles.choice import (
    DEFAULT_BUNDLES,
    available_bundles,
    bundle_for,
    identity_method,
    load_methods,
)
from stillscan.app.pipeline.output_folder import REPORT, publish, require_apart, staging_in
from stillscan.app.process_setup import import_torch
from stillscan.app.settings import Settings
from stillscan.models.bundle import BundleInfo
from stillscan.operators.errors import ExitCode, InputError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Candidate, Refusal, find_series, read_series
from stillscan.operators.report.outcome import (
    Progress,
    SeriesOutcome,
    SkippedFile,
    Watch,
    exit_code_of,
    refused,
)

if TYPE_CHECKING:  # it imports torch
    from stillscan.operators.graph.stages import Method, SeriesSource

    Load = Callable[[Mapping[str, BundleInfo], Settings], Mapping[str, Method]]

log = logging.getLogger("stillscan")


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        source: a folder with DICOM files, or one file.
        output: the folder that gets the derived series.
        models: a folder with bundles, or a bundle.
        bundle: use only the bundle of this name; None for the one that fits the modality.
        taken_numbers: SeriesNumber of what else is known of the study of every series.
    """

    source: Path
    output: Path
    settings: Settings
    models: Path = DEFAULT_BUNDLES
    bundle: str | None = None
    taken_numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Survey:
    """What was found and what would be done with it.

    Attributes:
        chosen: the series that are going to be processed, each with its bundle (None: identity).
        passed_over: outcomes of the series that are not.
        skipped: files that are no images to process.
    """

    chosen: tuple[tuple[Candidate, BundleInfo | None], ...]
    passed_over: tuple[SeriesOutcome, ...]
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True)
class RunResult:
    """What a run did."""

    outcomes: tuple[SeriesOutcome, ...]
    skipped: tuple[SkippedFile, ...]
    exit_code: ExitCode
    seconds: float


def survey(job: Job, decoder: Decoder) -> Survey:
    """Find the series of the input and decide what is done with each; reads headers only.

    Raises:
        SettingsError: if the input is missing or the named bundle is.
        ModelError: if there are no bundles, or broken ones.
    """
    identity = job.settings.denoise.mode == "identity"
    bundles = [] if identity else available_bundles(job.models, job.bundle)
    catalogue = find_series(job.source, decoder, job.settings.selection)
    chosen: list[tuple[Candidate, BundleInfo | None]] = []
    passed_over = [_passed_over(each) for each in catalogue.refused]
    for found in catalogue.candidates:
        numbers = found.sibling_series_numbers | job.taken_numbers
        candidate = replace(found, sibling_series_numbers=numbers)
        try:
            bundle = None if identity else bundle_for(candidate.modality, bundles)
        except InputError as error:
            passed_over.append(_no_bundle(candidate, error))
        else:
            chosen.append((candidate, bundle))
    skipped = tuple(
        SkippedFile(
            str(path.relative_to(job.source)) if path != job.source else path.name,
            each.reason,
            each.message.removeprefix(f"{path.name}: "),
        )
        for each in catalogue.skipped
        for path in each.files
    )
    return Survey(tuple(chosen), tuple(passed_over), skipped)


def _passed_over(refusal: Refusal) -> SeriesOutcome:
    return SeriesOutcome(
        series_instance_uid=refusal.series_instance_uid,
        status="not-selected" if refusal.by_rules else "refused",
        reason=refusal.reason,
        message=refusal.message,
        exit_code=ExitCode.NOTHING_TO_DO if refusal.by_rules else ExitCode.BAD_INPUT,
        modality=refusal.modality,
        slices=len(refusal.files),
    )


def _no_bundle(candidate: Candidate, error: InputError) -> SeriesOutcome:
    files = tuple(each.path for each in candidate.instances)
    return refused(candidate.series_instance_uid, files, error, candidate.modality)


def _silent(progress: Progress) -> None:
    """Watch nothing."""


def run(job: Job, watch: Watch = _silent) -> RunResult:
    """Derive a quiet series from every chosen series of the input; publish all of them at the end.

    What cannot be derived is listed with its reason; where nothing could be derived, the output
    stays empty.

    Raises:
        StillscanError: for what concerns the whole run (settings, models, output).
    """
    with Decoder() as decoder:
        return run_with(job, decoder, load_methods, watch)


def run_with(
    job: Job,
    decoder: Decoder,
    load: Load,
    watch: Watch = _silent,
) -> RunResult:
    """`run` for a service: with a reading child and networks that stay from job to job.

    Args:
        job: what is to be done.
        decoder: its child may have been started long ago.
        load: gives the method for each modality, as `load_methods` does.
        watch: told after each block.

    Raises:
        StillscanError: for what concerns the whole run (settings, models, output).
    """
    started = time.monotonic()
    require_apart(job.source, job.output)
    with staging_in(job.output) as staging:
        imports = Thread(target=_import_graph)
        imports.start()
        found = survey(job, decoder)
        log.info("input read: %.2f s", time.monotonic() - started)
        outcomes = found.passed_over
        if found.chosen:
            imports.join()
            log.info("torch and holoscan imported: %.2f s", time.monotonic() - started)
            outcomes += _derive(job, found, decoder, load, staging, watch)
            log.info("graph run: %.2f s", time.monotonic() - started)
        result = RunResult(
            outcomes, found.skipped, exit_code_of(outcomes), time.monotonic() - started
        )
        if any(each.status == "derived" for each in outcomes):
            if job.settings.output.report:
                _report(staging / REPORT, job, result)
            publish(staging, job.output)
            log.info("published: %.2f s", time.monotonic() - started)
    return result


def _import_graph() -> None:
    """Import torch and holoscan ahead of need."""
    with suppress(Exception):  # the import statement of `_derive` raises it again
        import_torch()
        import_module("stillscan.app.pipeline.application")


def _derive(
    job: Job, found: Survey, decoder: Decoder, load: Load, staging: Path, watch: Watch
) -> tuple[SeriesOutcome, ...]:
    """Load the networks and send the chosen series through the graph."""
    from stillscan.app.pipeline.application import derive_all  # it imports torch and holoscan

    methods = methods_for(found, job.settings, load)
    sources = sources_of(found, decoder)
    return derive_all(sources, methods, staging, job.settings.output, watch)


def methods_for(found: Survey, settings: Settings, load: Load) -> Mapping[str, Method]:
    """The method for each modality of the chosen series; `load` is not called for the control.

    Raises:
        ModelError: as `load_methods`.
    """
    if settings.denoise.mode == "identity":
        control = identity_method(settings)
        return {candidate.modality: control for candidate, _ in found.chosen}
    return load({candidate.modality: info for candidate, info in found.chosen if info}, settings)


def sources_of(found: Survey, decoder: Decoder) -> list[SeriesSource]:
    """The chosen series, to be read one after the other."""
    from stillscan.operators.graph.stages import SeriesSource

    return [
        SeriesSource(
            candidate.series_instance_uid,
            tuple(each.path for each in candidate.instances),
            partial(read_series, candidate, decoder),
        )
        for candidate, _ in found.chosen
    ]


def _report(folder: Path, job: Job, result: RunResult) -> None:
    """Write what concerns the whole run beside the pages of its series."""
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

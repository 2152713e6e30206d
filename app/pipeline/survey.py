"""Find the series of an input and decide what is done with each; reads headers only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stillscan.app.bundles.choice import DEFAULT_BUNDLES, available_bundles, bundle_for
from stillscan.app.settings import Settings
from stillscan.models.bundle import BundleInfo
from stillscan.operators.errors import ExitCode, InputError
from stillscan.operators.internal_fault import InternalFaultError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.file_names import shown, shown_below
from stillscan.operators.reading.read_series import Candidate, Catalogue, Refusal, find_series
from stillscan.operators.report.outcome import SeriesOutcome, SkippedFile, refused


@dataclass(frozen=True)
class Job:
    """Input, output and settings of a run.

    Attributes:
        source: a folder with DICOM files, or one file.
        output: folder for the derived series.
        models: a folder with bundles, or one bundle.
        bundle: use only the bundle of this name; None: chosen by modality.
        taken_numbers: SeriesNumbers of other known series of the study.
        correction: how often the patient or order of the series had been corrected before; part of
            the derived UIDs, as series derived earlier have another patient.
        name: pattern for the folders of derived series (`folder_names`); "" for their UIDs.
    """

    source: Path
    output: Path
    settings: Settings
    models: Path = DEFAULT_BUNDLES
    bundle: str | None = None
    taken_numbers: frozenset[int] = frozenset()
    correction: int = 0
    name: str = ""


@dataclass(frozen=True)
class Survey:
    """The series of an input and what would be done with each.

    Attributes:
        chosen: the series to process, each with its bundle (None: identity).
        passed_over: outcomes of the other series.
        skipped: files that are not images to process.
    """

    chosen: tuple[tuple[Candidate, BundleInfo | None], ...]
    passed_over: tuple[SeriesOutcome, ...]
    skipped: tuple[SkippedFile, ...]


@dataclass(frozen=True)
class Finding:
    """One series of a source, and what `denoise` would do with it.

    Attributes:
        series_instance_uid: None if there is none.
        status: as in a `SeriesOutcome`, or "would-denoise".
        bundle: name of the bundle that would be used; "" for none.
        reason, message: a stable code and a sentence; "" if the series would be denoised.
    """

    series_instance_uid: str | None
    status: Literal["would-denoise", "refused", "not-selected"]
    modality: str
    slices: int
    bundle: str = ""
    reason: str = ""
    message: str = ""


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
    names = job.settings.output.names
    outcomes = [passed_over(each, names) for each in catalogue.refused]
    for found in catalogue.candidates:
        numbers = found.sibling_series_numbers | job.taken_numbers
        candidate = replace(found, sibling_series_numbers=numbers, correction=job.correction)
        try:
            bundle = None if identity else bundle_for(candidate.modality, bundles)
        except InputError as error:
            outcomes.append(_no_bundle(candidate, error, names))
        else:
            chosen.append((candidate, bundle))
    return Survey(tuple(chosen), tuple(outcomes), skipped_files(catalogue, job.source))


def skipped_files(catalogue: Catalogue, source: Path) -> tuple[SkippedFile, ...]:
    """Return the files of an input that are no images to process, with names below `source`."""
    return tuple(
        SkippedFile(
            shown_below(path, source),
            each.reason,
            each.message.removeprefix(f"{shown(path)}: "),
        )
        for each in catalogue.skipped
        for path in each.files
    )


def findings_of(found: Survey) -> tuple[Finding, ...]:
    """Return what a survey of DICOM found."""
    would = [
        Finding(
            each.series_instance_uid,
            "would-denoise",
            each.modality,
            each.slices,
            bundle.name if bundle else "",
        )
        for each, bundle in found.chosen
    ]
    would_not = [
        Finding(
            each.series_instance_uid,
            "refused" if each.status == "refused" else "not-selected",
            each.modality,
            each.slices,
            "",
            each.reason,
            each.message,
        )
        for each in found.passed_over
    ]
    return (*would, *would_not)


def passed_over(refusal: Refusal, names: bool) -> SeriesOutcome:
    """Return the outcome of a series that is not processed, with its name where `names` is on."""
    return SeriesOutcome(
        series_instance_uid=refusal.series_instance_uid,
        status="not-selected" if refusal.by_rules else "refused",
        reason=refusal.reason,
        message=refusal.message,
        exit_code=_exit_code_of(refusal),
        modality=refusal.modality,
        slices=len(refusal.files),
        sop_instance_uid=refusal.sop_instance_uid,
        name=refusal.name if names else None,
    )


def _exit_code_of(refusal: Refusal) -> ExitCode:
    if refusal.reason == InternalFaultError.reason:
        return InternalFaultError.exit_code
    return ExitCode.NOTHING_TO_DO if refusal.by_rules else ExitCode.BAD_INPUT


def _no_bundle(candidate: Candidate, error: InputError, names: bool) -> SeriesOutcome:
    files = tuple(each.path for each in candidate.instances)
    name = candidate.name if names else None
    outcome = refused(candidate.series_instance_uid, files, error, candidate.modality, name)
    return replace(outcome, sop_instance_uid=candidate.sop_instance_uid)

"""`stillscan interpolate IN OUT`: every cine of a folder, with made phases between the acquired."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from stillscan import __version__
from stillscan.app.pipeline.output_folder import REPORT, publish, require_apart, staging_in
from stillscan.app.pipeline.pipeline import RunResult
from stillscan.app.pipeline.survey import Job, passed_over
from stillscan.operators.cine import CineError
from stillscan.operators.errors import ExitCode, OutputError, StillscanError
from stillscan.operators.internal_fault import setting_aside
from stillscan.operators.interpolation.page import cine_page
from stillscan.operators.interpolation.phases import Wanted
from stillscan.operators.interpolation.write import interpolate_series
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Candidate, find_series, read_series
from stillscan.operators.report.outcome import SeriesOutcome, exit_code_of, refused
from stillscan.operators.report.result import write_result
from stillscan.operators.writing.provenance import INTERPOLATION, Provenance

PROVENANCE = Provenance(
    version=__version__,
    bundle="none",
    model_sha256="none",
    mode=INTERPOLATION,
    strength=1.0,
    engine="torch",
    precision="float32",
    device="cpu",
)


def interpolate(job: Job, wanted: Wanted, decoder: Decoder, *, allow_uneven: bool) -> RunResult:
    """Interpolate every cine of the input; publish all series at the end.

    Raises:
        SettingsError: if the input is missing, or lies in the output.
        OutputError: if the output cannot be written.
    """
    started = time.monotonic()
    require_apart(job.source, job.output)
    with staging_in(job.output) as staging:
        found = find_series(job.source, decoder, job.settings.selection)
        outcomes = [passed_over(each, job.settings.output.names) for each in found.refused]
        outcomes += [
            _outcome(each, job, wanted, decoder, staging, allow_uneven) for each in found.candidates
        ]
        result = RunResult(
            tuple(outcomes),
            (),
            exit_code_of(outcomes),
            time.monotonic() - started,
            found.candidates,
        )
        if any(each.status == "derived" for each in outcomes):
            if job.settings.output.report:
                application = (job.settings.application.title, __version__)
                with naming_output_faults("write the report"):
                    write_result(
                        staging / REPORT,
                        result.outcomes,
                        (),
                        application=application,
                        exit_code=result.exit_code,
                        seconds=result.seconds,
                    )
            publish(staging, job.output)
    return result


def _outcome(
    candidate: Candidate,
    job: Job,
    wanted: Wanted,
    decoder: Decoder,
    staging: Path,
    allow_uneven: bool,
) -> SeriesOutcome:
    """Interpolate one series, or say why not."""
    started = time.monotonic()
    uid = candidate.series_instance_uid
    try:
        with setting_aside():
            volume = read_series(candidate, decoder)
            derived, film = interpolate_series(
                volume,
                wanted,
                PROVENANCE,
                staging,
                job.settings.output.series,
                allow_uneven=allow_uneven,
            )
            made = sum(film.made)
            rows = [
                ("Phases at each place", f"{len(film.made)}, of them {made} made"),
                ("Original series", uid),
                ("Interpolated series", derived.series_instance_uid),
            ]
            with naming_output_faults("write the page of a series"):
                (staging / REPORT).mkdir(exist_ok=True)
                page = staging / REPORT / f"{derived.series_instance_uid}.html"
                page.write_text(cine_page(film, rows), encoding="utf-8")
    except OutputError:
        raise
    except StillscanError as error:
        files = tuple(each.path for each in candidate.instances)
        outcome = refused(uid, files, error, candidate.modality)
        if type(error) is CineError:  # a localizer, a stack: nothing is wrong with it
            outcome = replace(outcome, status="not-selected", exit_code=ExitCode.NOTHING_TO_DO)
        return outcome
    return SeriesOutcome(
        series_instance_uid=uid,
        status="derived",
        modality=candidate.modality,
        slices=derived.instances,
        unit=volume.unit,
        seconds=time.monotonic() - started,
        warnings=volume.warnings,
        derived=derived,
        provenance=PROVENANCE,
    )

"""Maps how unusual each place of a series is: read, assess, write, one series after the other."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from stillscan import __version__
from stillscan.app.bundles.choice import (
    BundleOfAnotherTaskError,
    NoBundleError,
    resolve_device,
)
from stillscan.app.pipeline.output_folder import REPORT, publish, require_apart, staging_in
from stillscan.app.pipeline.pipeline import RunResult
from stillscan.app.pipeline.survey import Job, passed_over, skipped_files
from stillscan.models.anomaly.bundle import load_anomaly_bundle
from stillscan.models.bundle import BundleError, OtherTaskError
from stillscan.operators.anomaly.assessing import (
    AnomalyMethod,
    Assessment,
    assess,
    require_suitable,
)
from stillscan.operators.anomaly.input_contract import InputContract
from stillscan.operators.anomaly.objects import (
    REGIONS,
    AnomalyProvenance,
    anomaly_report,
    regions_object,
)
from stillscan.operators.anomaly.objects import (
    REPORT as REPORT_OBJECT,
)
from stillscan.operators.anomaly.page import Pictures, anomaly_page
from stillscan.operators.errors import ModelError, OutputError, StillscanError
from stillscan.operators.internal_fault import setting_aside
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import Candidate, find_series, read_series
from stillscan.operators.report.outcome import SeriesOutcome, counted, exit_code_of, refused
from stillscan.operators.report.result import write_result
from stillscan.operators.writing.companions.companions import ObjectFiles, naming_what_failed
from stillscan.operators.writing.companions.parametric_maps import MapSeries, sources_of
from stillscan.operators.writing.derived_uids import derived_series_uid

MAP = "anomaly"


def load_method(folder: Path, device: str) -> AnomalyMethod:
    """Load an anomaly bundle.

    Raises:
        ModelError: if it cannot be loaded, or is for another task.
    """
    try:
        bundle = load_anomaly_bundle(folder, device)
    except OtherTaskError as error:
        raise BundleOfAnotherTaskError(str(error)) from error
    except BundleError as error:
        raise ModelError(str(error)) from error
    provenance = AnomalyProvenance(
        version=__version__,
        bundle=bundle.name,
        model_sha256=bundle.sha256,
        mode=f"{bundle.model.row} against the {bundle.model.reference}",
        strength=1.0,
        engine="torch",
        precision="float32",
        device=device,
    )
    training, candidates = bundle.settings["training"], bundle.settings["candidates"]
    facts = {
        "nominal_share": candidates["nominal"],
        "achieved_share": candidates["achieved"],
        "subjects": training["subjects"],
        "slices": training["slices"],
    }
    contract = InputContract.from_json(bundle.settings["input"])
    return AnomalyMethod(bundle.model, contract, provenance, facts)


def map_anomalies(job: Job, decoder: Decoder) -> RunResult:
    """Assess every selected series; publish all objects at the end.

    Raises:
        StillscanError: for what concerns the whole run (settings, bundle, output).
    """
    started = time.monotonic()
    require_apart(job.source, job.output)
    method = load_method(job.models, resolve_device(job.settings.denoise.device))
    with staging_in(job.output) as staging:
        catalogue = find_series(job.source, decoder, job.settings.selection)
        outcomes = [passed_over(each, job.settings.output.names) for each in catalogue.refused]
        for candidate in catalogue.candidates:
            outcomes.append(_outcome(candidate, decoder, method, staging, job))
        result = RunResult(
            tuple(outcomes),
            skipped_files(catalogue, job.source),
            exit_code_of(outcomes),
            time.monotonic() - started,
            catalogue.candidates,
        )
        if any(each.status == "derived" for each in outcomes):
            with naming_output_faults("write the report"):
                write_result(
                    staging / REPORT,
                    result.outcomes,
                    result.skipped,
                    application=(job.settings.application.title, __version__),
                    exit_code=result.exit_code,
                    seconds=result.seconds,
                )
            publish(staging, job.output)
    return result


def _outcome(
    candidate: Candidate, decoder: Decoder, method: AnomalyMethod, staging: Path, job: Job
) -> SeriesOutcome:
    """Return the outcome of one series; a fault sets it aside and leaves nothing of it."""
    begun = time.monotonic()
    files: ObjectFiles | None = None
    try:
        with setting_aside():
            if candidate.modality != method.contract.modality:
                raise NoBundleError(
                    f"Modality is {candidate.modality}, the bundle is for "
                    f"{method.contract.modality}"
                )
            volume = read_series(candidate, decoder)
            factor = job.settings.output.series.series_number_factor
            files = ObjectFiles(volume, staging, factor)
            outcome = _mapped(Assessment(volume), method, files, staging)
        return replace(outcome, seconds=time.monotonic() - begun)
    except OutputError:
        raise
    except StillscanError as error:
        if files is not None:
            files.discard()
        paths = tuple(each.path for each in candidate.instances)
        return refused(candidate.series_instance_uid, paths, error, candidate.modality)


def _mapped(
    found: Assessment, method: AnomalyMethod, files: ObjectFiles, staging: Path
) -> SeriesOutcome:
    """Assess one series and write its objects and page.

    Raises:
        StillscanError: if it is refused.
    """
    volume, provenance = found.volume, method.provenance
    require_suitable(volume, method)
    instances = {each.sop_instance_uid for each in volume.slices}
    key = derived_series_uid(volume.series_instance_uid, instances, provenance, {"task": MAP})
    pictures, sources, header = Pictures(), [], None
    for block, scores, healthy in assess(volume, method, found):
        header = header or block.headers[0]
        maps = MapSeries("anomaly", key, files.number_of(MAP, header), provenance)
        with naming_what_failed(MAP):
            made = list(maps.instances(block, scores, "1"))
        for dataset in made:
            files.write(MAP, dataset)
        pictures.add(block, scores, healthy)
        sources += sources_of(block)
    assert header is not None, "a series has slices"
    found.require_alike()
    numbers, regions = found.regions()
    segmentation = None
    with naming_what_failed(REGIONS):
        if regions:
            number = files.number_of(REGIONS, header)
            segmentation = regions_object(volume, header, sources, numbers, key, number, provenance)
            files.write(REGIONS, segmentation)
        number = files.number_of(REPORT_OBJECT, header)
        report = anomaly_report(
            found, header, sources, regions, segmentation, method.facts, key, number, provenance
        )
        files.write(REPORT_OBJECT, report)
    objects = files.finish_files()
    with naming_output_faults("write the page of a series"):
        (staging / REPORT).mkdir(exist_ok=True)
        page = anomaly_page(found, regions, pictures, provenance.bundle)
        (staging / REPORT / f"{objects[0].series_instance_uid}.html").write_text(page, "utf-8")
    alarm = ", unusual beside healthy slices" if found.alarm else ""
    return SeriesOutcome(
        series_instance_uid=volume.series_instance_uid,
        status="derived",
        message=f"{counted(len(regions), 'candidate region')}{alarm}",
        modality=volume.modality,
        slices=len(volume.slices),
        unit=volume.unit,
        warnings=volume.warnings,
        objects=objects,
        provenance=provenance,
    )

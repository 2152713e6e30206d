"""Denoise NIfTI files, one or all of a BIDS data set; sidecars say what was done."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stillscan import __version__
from stillscan.app.library.bids import (
    BidsImage,
    description_of,
    ending_off,
    find_images,
    image_of,
    inherited,
    sidecar_of,
)
from stillscan.app.library.functions import Result, denoise, inspect
from stillscan.app.library.nifti import write_nifti
from stillscan.app.pipeline.inputs import BIDS_DESCRIPTION, is_bids, is_nifti
from stillscan.app.pipeline.pipeline import RunResult
from stillscan.app.pipeline.survey import Finding, Job
from stillscan.operators.errors import ModelError, OutputError, SettingsError, StillscanError
from stillscan.operators.internal_fault import setting_aside
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.file_names import shown_below
from stillscan.operators.report.outcome import SeriesOutcome, SkippedFile, exit_code_of, refused
from stillscan.operators.report.result import series_result

DENOISED, NOISE, UNCERTAINTY = "denoised", "noise", "uncertainty"
DESCRIPTIONS = {
    DENOISED: "Noise was reduced; to be read together with the original image.",
    NOISE: "Standard deviation of the noise of the original image at each voxel.",
    UNCERTAINTY: "Standard deviation of the error of the denoised image at each voxel.",
}

Report = Callable[[Path, str, SeriesOutcome], None]  # a file, its shown name, what became of it


@dataclass(frozen=True)
class ImageTask:
    """One image, and where its results go.

    Attributes:
        image: the file, with what its name says.
        modality: None where nothing says it.
        root: folder from which sidecars are inherited.
        origin: the image, as the sidecar of the result names it.
        folder, stem: of the results; `{}` in the stem stands for what a result is.
        file: name of the denoised image, where it was chosen.
    """

    image: BidsImage
    modality: str | None
    root: Path
    origin: str
    folder: Path
    stem: str
    file: str | None = None

    def path_of(self, what: str, ending: str) -> Path:
        """Return the path of a result, such as ("noise", ".nii.gz")."""
        if what == DENOISED and self.file is not None:
            name = Path(self.file)
            return self.folder / (
                self.file if is_nifti(Path(ending)) else ending_off(name) + ending
            )
        return self.folder / (self.stem.format(what) + ending)


def denoise_files(job: Job, modality: str | None, report: Report) -> RunResult:
    """Denoise a NIfTI file, or every image of a BIDS data set; each is written when it is ready.

    Args:
        job: `source` is the file or the data set; `output` a folder, or the file to be written.
        modality: of one file; a data set says it itself.
        report: called with each outcome.

    Raises:
        SettingsError: if something is missing.
        ModelError, OutputError: they concern every image.
    """
    started = time.monotonic()
    if is_bids(job.source):
        _write_json(job.output / BIDS_DESCRIPTION, description_of(job.source, job.output))
    tasks, skipped = _tasks(job, modality)
    outcomes = []
    for task in tasks:
        began = time.monotonic()
        try:
            with setting_aside():
                outcome = _denoised(task, job)
        except (ModelError, OutputError, SettingsError):
            raise
        except StillscanError as error:
            found = refused("", [task.image.path], error, task.modality or "")
            outcome = replace(found, series_instance_uid=None, seconds=time.monotonic() - began)
        outcomes.append(outcome)
        report(task.image.path, shown_below(task.image.path, job.source), outcome)
    seconds = time.monotonic() - started
    return RunResult(tuple(outcomes), skipped, exit_code_of(outcomes), seconds)


def inspect_files(job: Job, modality: str | None) -> Iterator[tuple[str, Finding]]:
    """Say what `denoise_files` would do with each file; gives its shown name."""
    tasks, skipped = _tasks(job, modality)
    for task in tasks:
        source = task.image.path
        known = task.modality or sidecar_of(task.image, task.root).get("Modality")
        for found in inspect(source, modality=known, models=job.models, settings=job.settings):
            yield shown_below(source, job.source), found
    for file in skipped:
        yield file.name, Finding(None, "not-selected", "", 0, "", file.reason, file.message)


def _denoised(task: ImageTask, job: Job) -> SeriesOutcome:
    source, root = task.image.path, task.root
    sidecar = sidecar_of(task.image, root)
    result = denoise(
        source,
        modality=task.modality or sidecar.get("Modality"),  # as dcm2niix writes it
        settings=job.settings,
        models=job.models,
        bundle=job.bundle,
    )
    (outcome,) = result.outcomes
    ending = source.name[len(ending_off(source)) :]
    facts = series_result(outcome) | {"version": __version__}
    raw = {"SkullStripped": False} if is_bids(job.source) else {}  # derivatives have to say it
    sidecar = raw | sidecar | {"Sources": [task.origin], "Stillscan": facts}
    for what, image in _images(result, job):
        write_nifti(image, task.path_of(what, ending))
        _write_json(task.path_of(what, ".json"), sidecar | {"Description": DESCRIPTIONS[what]})
    for ending in (".bval", ".bvec"):
        own = task.folder / (ending_off(source) + ending)  # without `desc`, for all by inheritance
        target = own if is_bids(job.source) else task.path_of(DENOISED, ending)
        for file in inherited(task.image, root, ending)[:1]:
            with naming_output_faults("copy a table of directions"):
                shutil.copyfile(file, target)
    return outcome


def _images(result: Result, job: Job) -> Iterator[tuple[str, Any]]:
    objects = job.settings.output.objects
    yield DENOISED, result.image
    if objects.noise_map:
        yield NOISE, result.noise
    if objects.uncertainty_map and result.uncertainty is not None:
        yield UNCERTAINTY, result.uncertainty


def _one_file(source: Path, output: Path, modality: str | None) -> ImageTask:
    image, root = image_of(source), source.parent
    if not is_nifti(output):
        return ImageTask(image, modality, root, source.name, output, ending_off(source) + "_{}")
    stem = ending_off(output) + "_{}"
    return ImageTask(image, modality, root, source.name, output.parent, stem, output.name)


def _tasks(job: Job, modality: str | None) -> tuple[list[ImageTask], tuple[SkippedFile, ...]]:
    """Return the images of an input, and the files of a data set that are none to denoise."""
    source, output = job.source, job.output
    if source.resolve() == output.resolve():
        raise SettingsError("input and output are the same")
    if not is_bids(source):
        return [_one_file(source, output, modality)], ()
    tasks, skipped = [], []
    for image in find_images(source):
        below = image.path.relative_to(source)
        if image.modality:
            origin, stem = f"bids:raw:{below.as_posix()}", image.derived_name("{}", "")
            folder = output / below.parent
            tasks.append(ImageTask(image, image.modality, source, origin, folder, stem))
        else:
            why = f"data type {image.path.parent.name}, suffix {image.suffix}"
            skipped.append(SkippedFile(shown_below(image.path, source), "not-denoised", why))
    return tasks, tuple(skipped)


def _write_json(path: Path, document: Any) -> None:
    with naming_output_faults("write a sidecar"):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")

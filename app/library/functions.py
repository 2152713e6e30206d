"""`stillscan.denoise`, `estimate_noise` and `inspect`: one call from an image to its result.

They run the pipeline of the command line without its files: series are read, planned, denoised and
judged; a refusal raises an error.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset

from stillscan.app.bundles.choice import (
    DEFAULT_BUNDLES,
    available_bundles,
    bundle_for,
    identity_method,
)
from stillscan.app.bundles.warm_networks import WarmNetworks
from stillscan.app.library.dicom import MapsOfSeries, read_derived, write_datasets
from stillscan.app.library.images import StackedImage, stacked_array, stacked_tensor
from stillscan.app.library.nifti import read_nifti, stacked_nifti, write_nifti
from stillscan.app.pipeline.inputs import is_nifti, opened
from stillscan.app.pipeline.lines import refusal_line
from stillscan.app.pipeline.pipeline import run_with
from stillscan.app.pipeline.survey import Finding, Job, findings_of, survey
from stillscan.app.settings import Device, Mode, Settings, Strength, load_settings, with_choices
from stillscan.operators.errors import InputError, SettingsError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.report.outcome import Progress, SeriesOutcome, Watch

if TYPE_CHECKING:  # they import torch
    from stillscan.operators.denoising.gate import Verdict
    from stillscan.operators.graph.messages import Method
    from stillscan.operators.volume import Volume

NAMED = 3  # refusals in a message


def _silent(progress: Progress) -> None:
    """Ignore the progress."""


class NothingDerivedError(InputError):
    """No series of the source was denoised; `outcomes` give the reasons."""

    reason = "nothing-derived"

    def __init__(self, message: str, outcomes: tuple[SeriesOutcome, ...] = ()) -> None:
        """Set what became of every series."""
        super().__init__(message)
        self.outcomes = outcomes


@dataclass(frozen=True)
class Result:
    """A denoised image; arrays, tensors and NIfTI images have the shape and kind of the source.

    For DICOM `image` is the list of the derived instances of all series (`pydicom.Dataset`), and
    `noise` and `uncertainty` hold one array for each of them, [row, column] or [frame, row,
    column].

    Attributes:
        image: the denoised image, in the unit of the source.
        sigma: standard deviation of the noise that was measured in the source, in its unit; None if
            the source has several series (see `outcomes`).
        noise: standard deviation of the noise at each pixel of the source.
        uncertainty: standard deviation of the error at each pixel of `image`; None if the mode does
            not estimate it.
        verdict: verdict of the quality gate on the series, or on the worst of several.
        outcomes: outcomes of all series, including the refused ones.
    """

    image: Any
    sigma: float | None
    noise: Any
    uncertainty: Any
    verdict: Verdict | None
    outcomes: tuple[SeriesOutcome, ...]


@dataclass(frozen=True)
class Noise:
    """The noise of a series.

    Attributes:
        sigma: its standard deviation, in `unit`; None if the source has several series.
        map: standard deviation at each pixel, in the form of `Result.noise`.
        unit: of the pixels; "1" where they have none.
    """

    sigma: float | None
    map: Any
    unit: str


def denoise(
    source: Any,
    *,
    modality: str | None = None,
    spacing: Sequence[float] | None = None,
    strength: Strength | float | None = None,
    mode: Mode | None = None,
    device: Device | None = None,
    models: str | Path | None = None,
    bundle: str | None = None,
    settings: Settings | None = None,
    output: str | Path | None = None,
    progress: Watch | None = None,
) -> Result:
    """Denoise an image; nothing is written unless `output` is given.

    Safe to use from several threads; networks are loaded once in a process, when they are first
    needed, and one runs at a time.

    Args:
        source: a path to a folder of DICOM files, to one of them, to a DICOMDIR, to a zip archive
            or to a NIfTI file; a list of `pydicom.Dataset`; an image of nibabel; a NumPy array or a
            torch tensor [row, column], [slice, row, column] or [repeat, slice, row, column] in
            modality units (CT: HU).
        modality: DICOM Modality ("MR", "CT", "PT", "CR", "DX") of an image that does not state it.
        spacing: of an array, in mm; its last two numbers are those between rows and columns.
        strength: share of the noise to remove: "low" 0.5, "medium" 0.75, "high" 1, or a number from
            0 to 1.
        mode: the network, as for `stillscan denoise --mode`.
        device: "auto" uses a GPU if there is one; default: that of the settings, auto.
        models: a folder of bundles, or one; default: the shipped ones.
        bundle: name of the bundle; default: the one for the modality.
        settings: default: those of the shipped `app.yaml`.
        output: folder for derived DICOM series, or the NIfTI file to write.
        progress: called after each block of slices.

    Returns:
        The result, judged by the quality gate.

    Raises:
        NothingDerivedError: if every DICOM series is refused; the reasons are in its `outcomes`.
        StillscanError: if the image, the model or the arguments are refused.

    Examples:
        >>> import numpy as np
        >>> import stillscan
        >>> image = 100 + np.random.default_rng(0).normal(0, 5, (64, 64))
        >>> result = stillscan.denoise(image, modality="MR")
        >>> result.image.shape
        (64, 64)
        >>> round(float(result.sigma))
        5
        >>> bool(result.image.std() < image.std() / 2)
        True
        >>> result.verdict.decision.startswith("accept")
        True
    """
    import torch  # noqa: F401 - whole: what else uses this process may need its compiler

    chosen = with_choices(settings or load_settings(), mode, strength, device)
    bundles = Path(models) if models is not None else DEFAULT_BUNDLES
    target = None if output is None else Path(output)
    job = Job(Path(), target or Path(), chosen, bundles, bundle)
    image = _stacked(source, spacing)
    if image is None:
        return _denoise_dicom(source, job, output is not None, progress or _silent)
    if target is not None and not (is_nifti(target) and image.is_nifti):
        raise SettingsError("output: expected a NIfTI image and a name ending with .nii or .nii.gz")
    result = _denoise_stack(image, modality, job, progress or _silent)
    if target is not None:
        write_nifti(result.image, target)
    return result


def estimate_noise(source: Any, **options: Any) -> Noise:
    """Measure the noise of a series; no network is loaded.

    Args:
        source: as for `denoise`.
        options: `modality`, `spacing`, `settings` and `progress`, as for `denoise`.

    Raises:
        NothingDerivedError, StillscanError: as `denoise`.

    Examples:
        >>> import numpy as np
        >>> import stillscan
        >>> image = 100 + np.random.default_rng(0).normal(0, 5, (2, 64, 64))
        >>> noise = stillscan.estimate_noise(image, modality="CT", spacing=(0.7, 0.7))
        >>> round(noise.sigma), noise.unit, noise.map.shape
        (5, 'HU', (2, 64, 64))
    """
    result = denoise(source, **options, mode="identity")
    (unit, *_) = (each.unit for each in result.outcomes if each.status == "derived")
    return Noise(result.sigma, result.noise, unit)


def inspect(
    source: Any,
    *,
    modality: str | None = None,
    spacing: Sequence[float] | None = None,
    models: str | Path | None = None,
    settings: Settings | None = None,
) -> tuple[Finding, ...]:
    """Return what `denoise` would do with each series of a source, without denoising.

    For DICOM only headers are read; faults that are only visible in pixels, such as an image
    without noise, are not found.

    Args:
        source: as for `denoise`; also each of the following.
        modality: of an image that does not say it.
        spacing: of an array, in mm.
        models: a folder of bundles, or one.
        settings: default: those of the shipped `app.yaml`.

    Examples:
        >>> import numpy as np
        >>> import stillscan
        >>> (found,) = stillscan.inspect(np.zeros((4, 64, 64)), modality="MR")
        >>> found.status, found.slices, found.bundle
        ('would-denoise', 4, 'mr')
        >>> (found,) = stillscan.inspect(np.zeros((4, 64, 64)), modality="US")
        >>> found.status, found.reason
        ('refused', 'no-bundle-for-modality')
    """
    chosen, bundles = settings or load_settings(), Path(models) if models else DEFAULT_BUNDLES
    image = _stacked(source, spacing)
    if image is not None:
        try:
            volume = image.volume(modality)
            bundle = bundle_for(volume.modality, available_bundles(bundles, None))
        except InputError as error:
            slices = len(image.stack)
            why = error.reason, str(error)
            return (Finding(None, "refused", modality or "", slices, "", *why),)
        return (Finding(None, "would-denoise", volume.modality, len(image.stack), bundle.name),)
    with ExitStack() as stack, Decoder() as decoder:
        folder = _folder_of(source, stack)
        found = survey(Job(folder, folder, chosen, bundles), decoder)
    return findings_of(found)


_LOADED = WarmNetworks()  # of this process


def _stacked(source: Any, spacing: Sequence[float] | None) -> StackedImage | None:
    """Return an image without a DICOM header as slices; None for DICOM."""
    if isinstance(source, str | Path):
        if not is_nifti(Path(source)):
            return None
        source = read_nifti(Path(source))
    if isinstance(source, np.ndarray):
        return stacked_array(source, spacing)
    if hasattr(source, "dataobj") and hasattr(source.header, "get_xyzt_units"):
        return stacked_nifti(source)
    if hasattr(source, "detach"):
        return stacked_tensor(source, spacing)
    return None


def _denoise_stack(image: StackedImage, modality: str | None, job: Job, watch: Watch) -> Result:
    volume = image.volume(modality)
    if job.settings.denoise.mode == "identity":
        return denoise_stack(image, volume, identity_method(job.settings), watch)
    bundle = bundle_for(volume.modality, available_bundles(job.models, job.bundle))
    method = _LOADED({volume.modality: bundle}, job.settings)[volume.modality]
    return denoise_stack(image, volume, method, watch)


def denoise_stack(
    image: StackedImage, volume: Volume, method: Method, watch: Watch = _silent
) -> Result:
    """Denoise and judge an image without a DICOM header; `volume` is that of the image.

    Raises:
        StillscanError: if it is refused.
    """
    from stillscan.operators.denoising.summary import SeriesSummary
    from stillscan.operators.graph.stages import denoised_blocks

    started = time.monotonic()
    summary, plan = SeriesSummary(), None
    pixels, sigma, spread = (np.zeros_like(image.stack) for _ in range(3))
    estimated = True
    for message in denoised_blocks(volume, method):
        denoised, plan = message.content, message.series.plan
        block = slice(denoised.block.start, denoised.block.stop)
        summary.add(denoised)
        pixels[block], sigma[block] = denoised.pixels, denoised.sigma
        estimated = denoised.spread is not None
        if estimated:
            spread[block] = denoised.spread
        watch(Progress(volume.series_instance_uid, block.stop, len(pixels), denoised))
    verdict = summary.accepted()
    assert plan is not None  # an image has at least one slice
    outcome = SeriesOutcome(
        series_instance_uid=None,
        status="derived",
        modality=volume.modality,
        slices=len(pixels),
        unit=volume.unit,
        noise_before=summary.noise_before,
        noise_after=summary.noise_after,
        error_change=plan.error_change(method.strength),
        seconds=time.monotonic() - started,
        verdict=verdict,
        warnings=(*method.warnings, *plan.warnings),
        provenance=replace(method.provenance, confirmed_share=plan.confirmed_share),
        repeats=plan.repeats,
        witnesses=plan.witnesses,
    )
    return Result(
        image.restore(pixels),
        summary.noise_before,
        image.restore(sigma),
        image.restore(spread) if estimated else None,
        verdict,
        (outcome,),
    )


def _denoise_dicom(source: Any, job: Job, keep: bool, watch: Watch) -> Result:
    from stillscan.operators.denoising.gate import combine

    maps = MapsOfSeries(watch)
    with ExitStack() as stack, Decoder() as decoder:
        folder = _folder_of(source, stack)
        target = job.output if keep else _temporary(stack)
        job = replace(job, source=folder, output=target)
        found = run_with(job, decoder, _LOADED, maps, overlapped=False)
        derived = [each for each in found.outcomes if each.status == "derived"]
        images = [instance for each in derived for instance in read_derived(each, target)]
    if not derived:
        first = "; ".join(refusal_line(each) for each in found.outcomes[:NAMED])
        raise NothingDerivedError(first or "there is no DICOM image", found.outcomes)
    sigma, spread = [], []
    for each in derived:
        of_series = maps.of(each.uid or "")
        sigma += of_series[0]
        spread += of_series[1]
    return Result(
        images,
        derived[0].noise_before if len(derived) == 1 else None,
        sigma,
        spread or None,
        combine([each.verdict for each in derived if each.verdict]),
        found.outcomes,
    )


def _folder_of(source: Any, stack: ExitStack) -> Path:
    """Return a path with the DICOM files of a source; data sets in memory are written for it."""
    if isinstance(source, str | Path):
        return stack.enter_context(opened(Path(source)))
    datasets = list(source) if isinstance(source, Iterable) else []
    if not datasets or not all(isinstance(each, Dataset) for each in datasets):
        raise SettingsError(
            f"source is {type(source).__name__}; expected a path, a list of pydicom.Dataset, an "
            "image of nibabel, a NumPy array or a torch tensor"
        )
    folder = _temporary(stack)
    write_datasets(datasets, folder)
    return folder


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))

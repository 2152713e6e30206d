"""Measurements of one method: on simulated noise, on a repeated scan, on the CT phantom.

Each function returns one record: plain names and numbers, ready for a line of JSON.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from stillscan.app.datasets.repeated_scans import Repeat, with_structure
from stillscan.app.evaluation.images import ReferenceSeries
from stillscan.app.evaluation.lesions import (
    FOREGROUND,
    Lesion,
    Reading,
    contrast_to_noise,
    draw_lesions,
    insert,
    read_lesions,
    read_places,
)
from stillscan.app.evaluation.low_contrast import Dose, delivered, inserted, with_discs
from stillscan.app.evaluation.methods import Method
from stillscan.app.evaluation.noise_cases import NoiseCase
from stillscan.models.metrics.image_quality import gmsd, psnr, ssim
from stillscan.models.metrics.noise_power import (
    error_noise_correlation,
    mean_frequency_shift,
    patch_distance,
)
from stillscan.operators.volume import Place

Series = Float[Tensor, "slice height width"]
Plane = Float[Tensor, "height width"]
Record = dict[str, Any]
Extent = Literal["whole", "middle"]

SEED = 0
SQUARE = 512**2  # pixels: the image size for which seconds are stated
COSTLY_SLICES = 4  # number of slices of a repeated scan for a costly method


@dataclass(frozen=True)
class Trial:
    """A series with one noise, the same for every method.

    Attributes:
        lesions: lesions of each slice; empty for noise that is not stationary, or if not requested.
    """

    series: ReferenceSeries
    case: NoiseCase
    clean: Series
    noisy: Series
    lesions: tuple[list[Lesion], ...]


def make_trial(series: ReferenceSeries, case: NoiseCase, *, with_lesions: bool) -> Trial:
    """Draw noise and lesions; they depend only on series, noise and slice."""
    noisy, lesions = [], []
    for number, clean in enumerate(series.slices):
        noisy.append(case.add(clean, _generator(series.name, case.name, number, "noise")))
        wanted = with_lesions and case.stationary
        generator = _generator(series.name, case.name, number, "lesions")
        lesions.append(draw_lesions(clean, case, generator) if wanted else [])
    return Trial(series, case, series.slices, torch.stack(noisy), tuple(lesions))


def _generator(*names: str | int) -> Generator:
    key = zlib.crc32("/".join(map(str, names)).encode())
    return torch.Generator().manual_seed((SEED << 32) + key)


def measure_simulated(trial: Trial, method: Method, extent: Extent = "whole") -> Record | None:
    """Return one record with a row per slice and per lesion; None if the method does not apply.

    Args:
        trial: the noisy series.
        method: the method to measure.
        extent: whether these are all slices of the series or the middle that costly methods get.
    """
    truth = trial.case.profile(trial.clean)
    run = method.run(trial.noisy, trial.series.domain, truth, trial.case)
    if run is None:
        return None
    results, spread = run.denoised.slices, run.denoised.spread
    seconds = run.seconds / trial.noisy.numel() * SQUARE
    rows = [
        _slice_row(trial, at, results[at], None if spread is None else spread[at])
        | {"seconds": seconds}
        for at in range(len(trial.noisy))
    ]
    readings: list[Record] = []
    if any(trial.lesions):
        bearing = [insert(y, some) for y, some in zip(trial.noisy, trial.lesions, strict=True)]
        again = method.run(torch.stack(bearing), trial.series.domain, truth, trial.case)
        assert again is not None  # the method applied to this noise above
        for at, some in enumerate(trial.lesions):
            after = again.denoised.slices[at]
            rows[at]["cnr"] = contrast_to_noise(after, trial.clean[at], some)
            found = read_lesions(after, results[at], some)
            readings += [_lesion_row(at, each) for each in found]
    return {
        "kind": "simulated",
        "series": trial.series.name,
        "subject": trial.series.subject,
        "domain": trial.series.domain,
        "noise": trial.case.name,
        "method": method.name,
        "conditioning": method.conditioning,
        "extent": extent,
        "slices": rows,
        "lesions": readings,
    }


def _slice_row(trial: Trial, at: int, estimate: Plane, spread: Plane | None) -> Record:
    clean, noisy, case = trial.clean[at], trial.noisy[at], trial.case
    added = noisy - case.mean(clean)
    foreground = clean > FOREGROUND
    row: Record = {
        "slice": at,
        "psnr": psnr(estimate, clean),
        "psnr_foreground": psnr(estimate, clean, where=foreground) if foreground.any() else None,
        "ssim": ssim(estimate, clean),
        "gmsd": gmsd(estimate, clean),
        "patch_distance": patch_distance(estimate, clean),
        "error_noise_correlation": error_noise_correlation(estimate, clean, added),
        "mean_frequency_shift": mean_frequency_shift(estimate, clean, added),
    }
    if case.stationary:
        places = read_places(estimate, clean, case)
        row |= {
            "empty_places": places.empty,
            "invented": places.invented,
            "structures": places.structures,
            "structures_erased": places.erased,
        }
    if spread is not None and foreground.any():
        within = _within((estimate - clean)[foreground], spread[foreground])
        row |= {"within_one": within[0], "within_two": within[1]}
    return row


def _lesion_row(number: int, reading: Reading) -> Record:
    return {
        "slice": number,
        "shape": reading.kind,
        "size": reading.size,
        "contrast_sigma": reading.contrast_sigma,
        "visibility": reading.visibility,
        "share": reading.share,
    }


def _within(error: Tensor, deviation: Tensor) -> tuple[float, float]:
    """Share of the errors within one and two standard deviations."""
    ratio = error.abs() / deviation
    return float((ratio < 1).float().mean()), float((ratio < 2).float().mean())


def measure_repeat(repeat: Repeat, method: Method) -> Record | None:
    """Measure the error against the independent repeat, slice by slice, in stored units.

    Half of the squared difference of the repeats is the noise in one of them; any further
    difference between the result and the other repeat is its own error. `gain` is that error
    relative to the noise, in dB.
    """
    scale = float(np.quantile(repeat.first, 0.999))
    first, second = (
        torch.from_numpy((part / scale).astype(np.float32))
        for part in (repeat.first, repeat.second)
    )
    chosen = with_structure(repeat.first)
    places: tuple[Place, ...] | None = repeat.places
    if method.costly:
        step = max(1, len(chosen) // COSTLY_SLICES)
        chosen = chosen[::step][:COSTLY_SLICES]
        first, second, places = first[chosen], second[chosen], None
        chosen = list(range(len(chosen)))
    run = method.run(first, "mr", places=places)
    if run is None:
        return None
    rows = []
    for number in chosen:
        before = float((first[number] - second[number]).square().mean())
        after = float((run.denoised.slices[number] - second[number]).square().mean())
        own = after - before / 2
        row: Record = {
            "slice": number,
            "before": math.sqrt(before) * scale,
            "after": math.sqrt(after) * scale,
            "gain": 10 * math.log10(before / 2 / own) if own > 0 else None,
        }
        if run.denoised.spread is not None:
            lit = second[number] > FOREGROUND
            noise = float((first[number] - second[number])[lit].std()) / math.sqrt(2)
            error = (run.denoised.slices[number] - second[number])[lit]
            within = _within(
                error, torch.hypot(run.denoised.spread[number][lit], torch.tensor(noise))
            )
            row |= {"within_one": within[0], "within_two": within[1]}
        rows.append(row)
    return {"kind": "repeat", "scan": repeat.name, "method": method.name, "slices": rows}


def measure_low_contrast(dose: Dose, method: Method) -> Record | None:
    """Measure the observer's d' after the method, for inserted and for delivered discs."""
    bearing = with_discs(dose.absent)
    runs = [method.run(each, "ct") for each in (dose.absent, bearing, dose.present)]
    if any(run is None for run in runs):
        return None
    absent, with_them, present = (run.denoised.slices for run in runs if run is not None)
    ours, theirs = inserted(with_them, absent), delivered(present, absent)
    return {
        "kind": "low contrast",
        "dose": dose.percent,
        "method": method.name,
        "inserted": vars(ours),
        "delivered": vars(theirs),
    }


def coverage_rows(records: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    """Yield slices of simulated records whose method estimates its error."""
    for record in records:
        if record["kind"] == "simulated":
            yield from ((record, row) for row in record["slices"] if "within_one" in row)

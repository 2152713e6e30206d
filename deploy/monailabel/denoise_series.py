"""Denoises a series with the application's pipeline: pixels and, on request, derived DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stillscan.deploy.monailabel.errors import NotDerivedError
from stillscan.operators.denoising.repeats import RepeatCheck
from stillscan.operators.denoising.summary import SeriesSummary
from stillscan.operators.graph.messages import Method
from stillscan.operators.graph.stages import WritingStage, denoised_blocks
from stillscan.operators.volume import Volume
from stillscan.operators.writing.derive_series import DerivedSeries, OutputOptions

Stack = Float32[np.ndarray, "slice row column"]


@dataclass(frozen=True)
class DenoisedSeries:
    """A denoised series.

    Attributes:
        pixels: denoised pixels in modality units.
        noise: standard deviation of the noise of the source at each pixel.
        uncertainty: standard deviation of the error of `pixels`; 0 if the mode estimates none.
        facts: for the response to the client: noise, verdict, network.
        derived: the derived series on disk, if it was requested.
    """

    pixels: Stack
    noise: Stack
    uncertainty: Stack
    facts: dict[str, Any]
    derived: DerivedSeries | None = None


def denoise_series(
    volume: Volume,
    method: Method,
    staging: Path | None = None,
    options: OutputOptions | None = None,
) -> DenoisedSeries:
    """Denoise and judge a series as `stillscan denoise` does.

    Args:
        volume: the series, from DICOM or another format.
        method: the method for its modality.
        staging: folder for the derived series; None: no derived series (it needs a DICOM source).
        options: of the derived series.

    Raises:
        GateRefusedError: if the quality gate refuses the result.
        NotDerivedError: if the derived series is refused or cannot be written.
        StillscanError: if the series cannot be read or denoised.
    """
    writing = None
    if staging is not None:
        writing = WritingStage(
            staging, options or OutputOptions(), page_mb=None, watch=lambda _: None
        )
    summary, repeats = SeriesSummary(), None
    shape = len(volume.slices), volume.rows, volume.columns
    pixels, noise, uncertainty = (np.zeros(shape, np.float32) for _ in range(3))
    for message in denoised_blocks(volume, method):
        if writing is not None:
            writing.take(message)
        denoised, repeats = message.content, message.series.plan.repeats
        summary.add(denoised)
        block = slice(denoised.block.start, denoised.block.stop)
        pixels[block], noise[block] = denoised.pixels, denoised.sigma
        uncertainty[block] = 0 if denoised.spread is None else denoised.spread
    verdict = summary.accepted()
    facts = {
        "modality": volume.modality,
        "bundle": method.provenance.bundle,
        "mode": method.provenance.mode,
        "strength": method.strength,
        "unit": volume.unit,
        "noise_before": summary.noise_before,
        "noise_after": summary.noise_after,
        "verdict": verdict.decision,
        "reasons": list(verdict.reasons),
        "confirmed_share": repeats.confirmed_share if repeats else 1.0,
        "warnings": [*method.warnings, *_of(repeats), *volume.warnings],
    }
    derived = None if writing is None else _derived(writing)
    return DenoisedSeries(pixels, noise, uncertainty, facts, derived)


def _of(repeats: RepeatCheck | None) -> list[str]:
    return [repeats.warning] if repeats and repeats.warning else []


def _derived(writing: WritingStage) -> DerivedSeries:
    (outcome,) = writing.outcomes
    if outcome.derived is None:
        raise NotDerivedError(f"{outcome.reason}: {outcome.message}")
    return outcome.derived

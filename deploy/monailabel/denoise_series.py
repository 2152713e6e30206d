"""A series through network, gate and, where it is wanted, into a derived DICOM series."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from stillscan.deploy.monailabel.dicom_volume import Plane, planes_of
from stillscan.deploy.monailabel.errors import NotDerivedError
from stillscan.operators.denoising.denoise_series import DenoisedBlock
from stillscan.operators.denoising.gate import Verdict, combine
from stillscan.operators.denoising.repeats import RepeatCheck
from stillscan.operators.graph.stages import (
    DenoisingStage,
    GateRefusedError,
    GateStage,
    Method,
    SeriesFailed,
    WritingStage,
)
from stillscan.operators.report.outcome import Progress
from stillscan.operators.volume import Volume
from stillscan.operators.writing.derive_series import DerivedSeries, OutputOptions


@dataclass(frozen=True)
class QuietSeries:
    """What came of a series.

    Attributes:
        pixels: modality units.
        planes: where its slices lie; of no meaning where it was not DICOM.
        facts: for the answer to the client: noise, verdict, network.
        derived: the series on disk, where one was wanted.
    """

    pixels: Float32[np.ndarray, "slice row column"]
    planes: tuple[Plane, ...]
    facts: dict[str, Any]
    derived: DerivedSeries | None = None


def quiet_series(
    volume: Volume,
    method: Method,
    staging: Path | None = None,
    options: OutputOptions | None = None,
) -> QuietSeries:
    """Denoise and judge a series.

    Args:
        volume: DICOM or not.
        method: made for its modality.
        staging: folder that gets the derived series; None for none (needs a DICOM series).
        options: of the derived series.

    Raises:
        GateRefusedError: if the quality gate does not let the result pass.
        StillscanError: if the series cannot be read or denoised, or the derived one not written.
    """
    writing = None
    if staging is not None:
        writing = WritingStage(
            staging,
            {volume.modality: method},
            options or OutputOptions(),
            set(),
            report=False,
            watch=_silent,
        )
    verdicts: list[Verdict] = []
    planes: list[Plane] = []
    before, after = 0.0, []
    repeats: RepeatCheck | None = None
    pixels = np.empty((len(volume.slices), volume.rows, volume.columns), np.float32)
    for denoised in _denoised(volume, method):
        if writing is not None:
            writing.take(denoised)
        pixels[denoised.block.start : denoised.block.stop] = denoised.pixels
        planes += planes_of(denoised.block)
        verdicts.append(denoised.verdict)
        before, repeats = denoised.noise_before, denoised.repeats
        after += [] if denoised.noise_after is None else [denoised.noise_after]
    verdict = combine(verdicts)
    if verdict.decision == "refuse":
        raise GateRefusedError("; ".join(verdict.reasons))
    derived = None if writing is None else _derived(writing)
    facts = {
        "modality": volume.modality,
        "bundle": method.provenance.bundle,
        "mode": method.provenance.mode,
        "strength": method.strength,
        "unit": volume.unit,
        "noise_before": before,
        "noise_after": math.sqrt(sum(each**2 for each in after) / len(after)) if after else None,
        "verdict": verdict.decision,
        "reasons": list(verdict.reasons),
        "borne_out": repeats.borne_out if repeats else 1.0,
        "warnings": [*method.warnings, *_of(repeats), *volume.warnings],
    }
    return QuietSeries(pixels, tuple(planes), facts, derived)


def _of(repeats: RepeatCheck | None) -> list[str]:
    return [repeats.warning] if repeats and repeats.warning else []


def _denoised(volume: Volume, method: Method) -> Iterator[DenoisedBlock]:
    methods = {volume.modality: method}
    denoising, gate = DenoisingStage(methods, set()), GateStage(methods, set())
    for block in volume.blocks():
        estimated = denoising.take(block)
        result = gate.take(estimated) if estimated is not None else None
        if isinstance(result, SeriesFailed):
            raise result.error
        assert result is not None, "a stage gave up a series and said nothing"
        yield result


def _derived(writing: WritingStage) -> DerivedSeries:
    (outcome,) = writing.outcomes
    if outcome.derived is None:
        raise NotDerivedError(f"{outcome.reason}: {outcome.message}")
    return outcome.derived


def _silent(progress: Progress) -> None:
    """Watch nothing."""

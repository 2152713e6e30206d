"""The stages as plain code: series in blocks, estimates, judged blocks, derived series in staging.

The holoscan operators are doors to these. What travels between them is a `VolumeBlock`, an
`EstimatedBlock` or a `DenoisedBlock`, one at a time, so that memory does not grow with a series; a
series that cannot be processed travels on as one `SeriesFailed`, and the others are not touched by
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.operators.denoising.denoise_series import (
    DenoisedBlock,
    EstimatedBlock,
    Plan,
    checked_plan,
    estimate_block,
    judge_block,
    plan_denoising,
)
from stillscan.operators.denoising.gate import Verdict, combine
from stillscan.operators.denoising.gate_limits import GateLimits
from stillscan.operators.denoising.repeats import RepeatCheck
from stillscan.operators.errors import ModelError, OutputError, ResultError, StillscanError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.read_ahead import volume_with
from stillscan.operators.report.outcome import Progress, SeriesOutcome, Watch, refused
from stillscan.operators.report.pictures import Comparison, compare_slice
from stillscan.operators.report.result import write_series_report
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.companions.companions import ObjectOptions, SeriesObjects
from stillscan.operators.writing.companions.measurement_report import Measured
from stillscan.operators.writing.derive_series import OutputOptions, SeriesStage
from stillscan.operators.writing.provenance import Provenance

# What torch, OpenVINO and ONNX Runtime say on a CPU: they have no exception of their own for this.
NO_MEMORY = ("can't allocate memory", "bad_alloc", "Failed to allocate memory")


class DenoiserFailedError(ModelError):
    """The network failed while it ran."""


class DenoiserMemoryError(ModelError):
    """The network needed more memory than there is."""

    reason = "out-of-memory"


class GateRefusedError(ResultError):
    """The quality gate does not let the result pass, or repeats bear out none of it."""

    reason = "quality-gate"


@dataclass(frozen=True)
class SeriesFailed:
    """A series that cannot be processed, on its way to the stage that lists the outcomes."""

    series_instance_uid: str
    files: tuple[Path, ...]
    error: StillscanError


@dataclass(frozen=True)
class Method:
    """How series of one modality are denoised, and what their derived series say of it.

    Attributes:
        strength: share of the correction that is applied.
        noise_range: sigma on the network's scale that the denoiser is made for; None for any.
        limits: of the quality gate.
        warnings: what a person should know of every series that is denoised so.
    """

    denoiser: Denoiser
    provenance: Provenance
    strength: float = 1.0
    noise_range: tuple[float, float] | None = None
    limits: GateLimits = field(default_factory=GateLimits)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesSource:
    """One series that is going to be read: its UID, its files, and how they become a volume."""

    series_instance_uid: str
    files: tuple[Path, ...]
    read: Callable[[], Volume]


def read_in_blocks(
    sources: Iterable[SeriesSource], abandoned: set[str]
) -> Iterator[VolumeBlock | SeriesFailed]:
    """Read one series after the other, each in blocks; a series that cannot be read fails alone.

    `abandoned` are the series that a later stage has given up: the rest of them is not read.
    """
    for source in sources:
        try:
            for block in source.read().blocks():
                if source.series_instance_uid in abandoned:
                    break
                yield block
        except StillscanError as error:
            yield SeriesFailed(source.series_instance_uid, source.files, error)


class DenoisingStage:
    """Runs the network on blocks as they come; keeps the plan of the series that passes through."""

    def __init__(self, methods: Mapping[str, Method], abandoned: set[str]) -> None:
        """`methods` by modality; what fails here is added to `abandoned`."""
        self._methods = methods
        self._abandoned = abandoned
        self._plan: Plan | None = None

    def take(self, message: VolumeBlock | SeriesFailed) -> EstimatedBlock | SeriesFailed | None:
        """Denoise one block; None where its series has failed already."""
        if isinstance(message, SeriesFailed):
            return message
        uid = message.volume.series_instance_uid
        if uid in self._abandoned:
            return None
        method = self._methods[message.volume.modality]
        try:
            if message.start == 0:
                volume = volume_with(message)
                plan = plan_denoising(volume, method.noise_range)
                with _naming_network_faults(message):
                    self._plan = checked_plan(method.denoiser, volume, plan, method.limits)
            assert self._plan is not None, "a series begins with its first block"
            with _naming_network_faults(message):
                return estimate_block(method.denoiser, message, self._plan)
        except StillscanError as error:
            self._abandoned.add(uid)
            return _failed(message.volume, error)


class GateStage:
    """Judges blocks as they come from the network, which has the next one meanwhile."""

    def __init__(self, methods: Mapping[str, Method], abandoned: set[str]) -> None:
        """`methods` by modality; what fails here is added to `abandoned`."""
        self._methods = methods
        self._abandoned = abandoned

    def take(self, message: EstimatedBlock | SeriesFailed) -> DenoisedBlock | SeriesFailed | None:
        """Judge one block and apply the strength; None where its series has failed already."""
        if isinstance(message, SeriesFailed):
            return message
        volume = message.block.volume
        if volume.series_instance_uid in self._abandoned:
            return None
        method = self._methods[volume.modality]
        try:
            with _naming_network_faults(message.block):
                return judge_block(message, method.strength, method.limits)
        except StillscanError as error:
            self._abandoned.add(volume.series_instance_uid)
            return _failed(volume, error)


def _failed(volume: Volume, error: StillscanError) -> SeriesFailed:
    files = tuple(dict.fromkeys(each.path for each in volume.slices))
    return SeriesFailed(volume.series_instance_uid, files, error)


@contextmanager
def _naming_network_faults(block: VolumeBlock) -> Iterator[None]:
    """What torch raises becomes a `ModelError` that names the slices."""
    try:
        yield
    except MemoryError as error:
        raise DenoiserMemoryError(_where(block, "not enough memory")) from error
    except RuntimeError as error:  # torch raises nothing more precise, CUDA faults included
        no_memory = any(words in str(error) for words in NO_MEMORY)
        if type(error).__name__ == "OutOfMemoryError" or no_memory:
            raise DenoiserMemoryError(_where(block, "not enough device memory")) from error
        raise DenoiserFailedError(_where(block, type(error).__name__)) from error


def _where(block: VolumeBlock, what: str) -> str:
    volume = block.volume
    return (
        f"the network failed on slices {block.start + 1} to {block.stop} of {len(volume.slices)} "
        f"({volume.rows}x{volume.columns}): {what}"
    )


class WritingStage:
    """Stages derived series block by block and lists what became of every series."""

    def __init__(
        self,
        staging: Path,
        methods: Mapping[str, Method],
        options: OutputOptions,
        abandoned: set[str],
        *,
        report: bool,
        watch: Watch,
        objects: ObjectOptions | None = None,
    ) -> None:
        """Write below `staging`.

        With `report`, also the pictures and pages of each series; `objects` says which maps and
        measurements go with it, none by default.
        """
        self.outcomes: list[SeriesOutcome] = []
        self._staging = staging
        self._methods = methods
        self._options = options
        self._abandoned = abandoned
        self._report = report
        self._objects = objects or ObjectOptions()
        self._watch = watch
        self._open: _OpenSeries | None = None
        self._clock = time.monotonic()

    def take(self, message: DenoisedBlock | SeriesFailed) -> None:
        """Stage one block; at the end of its series judge it and finish or discard it.

        Raises:
            OutputError: if the disk does not take it; this ends the run.
        """
        if isinstance(message, SeriesFailed):
            # two stages may give up one series at the same time
            listed = {each.series_instance_uid for each in self.outcomes}
            if message.series_instance_uid not in listed:
                self._fail(message)
            return
        volume = message.block.volume
        if volume.series_instance_uid in self._abandoned:
            return
        try:
            if self._open is None:
                self._open = self._begin(message)
            self._open.add(message)
            self._watch(
                Progress(volume.series_instance_uid, message.block.stop, len(volume.slices))
            )
            if message.block.is_last:
                self._finish(self._open)
        except OutputError:
            self.discard()
            raise
        except StillscanError as error:
            self._abandoned.add(volume.series_instance_uid)
            self._fail(_failed(volume, error))

    def discard(self) -> None:
        """Remove what is staged of the series that is being written, if there is one."""
        if self._open is not None:
            self._open.stage.discard()
            self._open.objects.discard()
            self._open = None

    def _begin(self, first: DenoisedBlock) -> _OpenSeries:
        volume = first.block.volume
        method = self._methods[volume.modality]
        provenance, warnings = method.provenance, method.warnings
        if first.repeats is not None and first.repeats.warning:
            provenance = replace(provenance, borne_out=first.repeats.borne_out)
            warnings = (*warnings, first.repeats.warning)
        stage = SeriesStage(volume, provenance, self._staging, self._options)
        objects = SeriesObjects(
            volume,
            stage.series_instance_uid,
            provenance,
            self._staging,
            self._objects,
            self._options.series_number_factor,
        )
        told = (provenance, warnings, first.repeats)
        return _OpenSeries(volume, stage, objects, *told)

    def _finish(self, series: _OpenSeries) -> None:
        verdict = combine(series.verdicts)
        if verdict.decision == "refuse":
            raise GateRefusedError("; ".join(verdict.reasons))
        if series.repeats is not None and series.repeats.borne_out == 0:
            raise GateRefusedError("repeats inside the series bear out nothing of the correction")
        outcome = replace(series.outcome(verdict), seconds=self._lap())
        if self._report and series.comparison is not None:
            with naming_output_faults("write the report of a series"):
                write_series_report(self._staging / "report", outcome, series.comparison)
        self.outcomes.append(outcome)
        self._open = None

    def _fail(self, failed: SeriesFailed) -> None:
        self.discard()
        outcome = refused(failed.series_instance_uid, failed.files, failed.error)
        self.outcomes.append(replace(outcome, seconds=self._lap()))

    def _lap(self) -> float:
        """Seconds since the last series ended: what this one added to the run."""
        last, self._clock = self._clock, time.monotonic()
        return self._clock - last


class _OpenSeries:
    """A series whose blocks are arriving."""

    def __init__(
        self,
        volume: Volume,
        stage: SeriesStage,
        objects: SeriesObjects,
        provenance: Provenance,
        warnings: tuple[str, ...],
        repeats: RepeatCheck | None,
    ) -> None:
        self.volume = volume
        self.stage = stage
        self.objects = objects
        self.provenance = provenance
        self.warnings = warnings
        self.repeats = repeats
        self.verdicts: list[Verdict] = []
        self.comparison: Comparison | None = None
        self._before: list[tuple[int, float]] = []
        self._after: list[tuple[int, float]] = []

    def add(self, denoised: DenoisedBlock) -> None:
        block, slices = denoised.block, len(denoised.block.headers)
        self.stage.add(denoised)
        self.objects.add(denoised)
        self.verdicts.append(denoised.verdict)
        self._before.append((slices, denoised.noise_before))
        if denoised.noise_after is not None:
            self._after.append((slices, denoised.noise_after))
        middle = len(self.volume.slices) // 2
        if block.start <= middle < block.stop:
            self.comparison = compare_slice(denoised, middle)

    def outcome(self, verdict: Verdict) -> SeriesOutcome:
        """Finish the series; what became of it."""
        derived = self.stage.finish()
        before, after = _pooled(self._before), _pooled(self._after)
        shares = {"clipped_share": derived.clipped_share, "changed_share": derived.changed_share}
        if self.repeats is not None:
            shares["borne_out"] = self.repeats.borne_out
        objects = self.objects.finish(
            Measured(before, after, verdict, shares), derived.sop_instance_uids
        )
        return SeriesOutcome(
            series_instance_uid=self.volume.series_instance_uid,
            status="derived",
            modality=self.volume.modality,
            slices=len(self.volume.slices),
            unit=self.volume.unit,
            noise_before=before,
            noise_after=after,
            verdict=verdict,
            warnings=(*self.warnings, *self.volume.warnings, *self.objects.warnings),
            derived=derived,
            objects=objects,
            provenance=self.provenance,
            repeats=self.repeats,
        )


def _pooled(sigmas: list[tuple[int, float]]) -> float | None:
    """Root mean square of the blocks' sigmas, weighted with their slices."""
    slices = sum(count for count, _ in sigmas)
    if slices == 0:
        return None
    return float((sum(count * sigma**2 for count, sigma in sigmas) / slices) ** 0.5)

"""The stages of the pipeline: series are read and planned, then estimated, judged and written.

The stages are plain code; the holoscan operators run them in parallel, `in_turn` runs them one
after the other. They pass on one `SeriesBlock` at a time, so that memory does not grow with the
length of a series. A series that cannot be processed is passed on as one `SeriesFailed`; the others
are not affected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from stillscan.operators.denoising.denoise_series import (
    DenoisedBlock,
    EstimatedBlock,
    estimate_block,
    judge_block,
    plan_series,
)
from stillscan.operators.denoising.gate import Verdict
from stillscan.operators.denoising.summary import SeriesSummary
from stillscan.operators.errors import ModelError, OutputError, StillscanError
from stillscan.operators.graph.messages import (
    Method,
    SeriesBlock,
    SeriesFailed,
    SeriesInProgress,
    SeriesSource,
)
from stillscan.operators.internal_fault import setting_aside
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.report.display import completed_name
from stillscan.operators.report.outcome import Progress, SeriesOutcome, Watch, refused
from stillscan.operators.report.page import write_series_page
from stillscan.operators.report.slices import SliceEncoder
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.companions.companions import ObjectOptions, SeriesObjects
from stillscan.operators.writing.companions.measurement_report import Measured
from stillscan.operators.writing.derive_series import OutputOptions, SeriesWriter
from stillscan.operators.writing.derived_header import SeriesHeader

# Messages of torch and OpenVINO on a CPU, which have no exception type for this.
NO_MEMORY = ("can't allocate memory", "bad_alloc", "Failed to allocate memory")


# Held by `in_turn` while a network runs: networks are shared by the threads of a process.
_NETWORK = threading.Lock()


class DenoiserFailedError(ModelError):
    """The network failed while it ran."""


class DenoiserMemoryError(ModelError):
    """The network needed more memory than is available."""

    reason = "out-of-memory"


class ReadingStage:
    """Reads and plans the series one after the other; unreadable ones are passed on as failed."""

    def __init__(
        self,
        sources: Iterable[SeriesSource],
        methods: Mapping[str, Method],
        network: threading.Lock,
    ) -> None:
        """`methods` by modality; `network` is held while a denoiser runs."""
        self._sources = sources
        self._methods = methods
        self._network = network

    def __iter__(self) -> Iterator[SeriesBlock[VolumeBlock] | SeriesFailed]:
        """Yield the blocks of all series; a series that fails in a later stage is not read on."""
        for source in self._sources:
            try:
                with setting_aside():
                    series = self._planned(source)
                blocks = series.volume.blocks()
                while not series.failed and (block := _next(blocks)) is not None:
                    yield SeriesBlock(series, block)
            except StillscanError as error:
                yield SeriesFailed(source, error)

    def _planned(self, source: SeriesSource) -> SeriesInProgress:
        volume = source.read()
        method = self._methods[volume.modality]
        with _naming_network_faults(volume):
            volume, plan = plan_series(
                volume,
                method.denoiser,
                method.noise_range,
                method.limits,
                network=self._network,
                temporal=method.temporal,
            )
        return SeriesInProgress(source, volume, method, plan)


class EstimatingStage:
    """Runs the network on each block."""

    def __init__(self, network: threading.Lock) -> None:
        """`network` is held while a denoiser runs; the next series may be planned in parallel."""
        self._network = network

    def take(
        self, message: SeriesBlock[VolumeBlock] | SeriesFailed
    ) -> SeriesBlock[EstimatedBlock] | SeriesFailed | None:
        """Denoise one block; None if its series has already failed."""
        if isinstance(message, SeriesFailed):
            return message
        series, block = message.series, message.content
        if series.failed:
            return None
        try:
            with setting_aside(), self._network, _naming_network_faults(series.volume, block):
                estimated = estimate_block(series.method.denoiser, block, series.plan)
        except StillscanError as error:
            return series.fail(error)
        return SeriesBlock(series, estimated)


class GateStage:
    """Applies the quality gate to each block, in parallel with the network on the next block."""

    def take(
        self, message: SeriesBlock[EstimatedBlock] | SeriesFailed
    ) -> SeriesBlock[DenoisedBlock] | SeriesFailed | None:
        """Judge one block and apply the strength; None if its series has already failed."""
        if isinstance(message, SeriesFailed):
            return message
        series, estimated = message.series, message.content
        if series.failed:
            return None
        try:
            with setting_aside(), _naming_network_faults(series.volume, estimated.block):
                denoised = judge_block(estimated, series.method.strength, series.method.limits)
        except StillscanError as error:
            return series.fail(error)
        return SeriesBlock(series, denoised)


def in_turn(
    sources: Iterable[SeriesSource], methods: Mapping[str, Method]
) -> Iterator[SeriesBlock[DenoisedBlock] | SeriesFailed]:
    """Read, plan, estimate and judge without a graph, one block after the other.

    Several threads may call this with the same methods; one network runs at a time.
    """
    estimating, gate = EstimatingStage(_NETWORK), GateStage()
    for message in ReadingStage(sources, methods, _NETWORK):
        estimated = estimating.take(message)
        denoised = gate.take(estimated) if estimated is not None else None
        if denoised is not None:
            yield denoised


def denoised_blocks(volume: Volume, method: Method) -> Iterator[SeriesBlock[DenoisedBlock]]:
    """Denoise and judge a volume in the same way as the application.

    Raises:
        StillscanError: if the series is refused; the gate's verdict on blocks is not raised, see
            `SeriesSummary`.
    """
    files = tuple(dict.fromkeys(each.path for each in volume.slices))
    image = volume.slices[0].sop_instance_uid if volume.beside else ""
    source = SeriesSource(volume.series_instance_uid, files, lambda: volume, image)
    for message in in_turn([source], {volume.modality: method}):
        if isinstance(message, SeriesFailed):
            raise message.error
        yield message


def _next(blocks: Iterator[VolumeBlock]) -> VolumeBlock | None:
    with setting_aside():
        return next(blocks, None)


@contextmanager
def _naming_network_faults(volume: Volume, block: VolumeBlock | None = None) -> Iterator[None]:
    """Replace errors of torch by a `ModelError` that names the slices of the block."""
    try:
        yield
    except MemoryError as error:
        raise DenoiserMemoryError(_where(volume, block, "not enough memory")) from error
    except RuntimeError as error:  # torch has no more precise type, also for CUDA faults
        no_memory = any(words in str(error) for words in NO_MEMORY)
        if type(error).__name__ == "OutOfMemoryError" or no_memory:
            raise DenoiserMemoryError(_where(volume, block, "not enough device memory")) from error
        raise DenoiserFailedError(_where(volume, block, type(error).__name__)) from error


def _where(volume: Volume, block: VolumeBlock | None, what: str) -> str:
    slices = f"{block.start + 1} to {block.stop}" if block else "of the sample"
    return (
        f"the network failed on slices {slices} of {len(volume.slices)} "
        f"({volume.rows}x{volume.columns}): {what}"
    )


class WritingStage:
    """Writes derived series block by block and lists the outcome of every series."""

    def __init__(
        self,
        staging: Path,
        options: OutputOptions,
        *,
        page_mb: float | None,
        watch: Watch,
        objects: ObjectOptions | None = None,
    ) -> None:
        """Write below `staging`.

        With `page_mb`, also the page of each series, of about that size at most; `objects` selects
        the maps and measurements to write, none by default.
        """
        self.outcomes: list[SeriesOutcome] = []
        self._staging = staging
        self._options = options
        self._page_mb = page_mb
        self._objects = objects or ObjectOptions()
        self._watch = watch
        self._open: _OpenSeries | None = None
        self._header: SeriesHeader | None = None  # of the series that holds the last image
        self._clock = time.monotonic()

    def take(self, message: SeriesBlock[DenoisedBlock] | SeriesFailed) -> None:
        """Write one block; at the end of a series, finish or discard the series.

        Raises:
            OutputError: if it cannot be written; this ends the run.
        """
        if isinstance(message, SeriesFailed):
            self._fail(message)
            return
        series, block = message.series, message.content.block
        if series.failed:
            return
        try:
            with setting_aside():
                self._write(series, message.content)
            uid = series.source.sop_instance_uid or series.volume.series_instance_uid
            self._watch(Progress(uid, block.stop, len(series.volume.slices), message.content))
        except OutputError:
            self.discard()
            raise
        except StillscanError as error:
            failed = series.fail(error)
            if failed is not None:
                self._fail(failed)

    def discard(self) -> None:
        """Remove the files of an unfinished series."""
        if self._open is not None:
            self._open.discard()
            self._open = None

    def _write(self, series: SeriesInProgress, denoised: DenoisedBlock) -> None:
        if self._open is None:
            self._open = _OpenSeries(
                series, self._staging, self._options, self._objects, self._header, self._page_mb
            )
        self._open.add(denoised)
        self._header = self._open.header
        if denoised.block.is_last:
            self._finish(self._open)

    def _finish(self, series: _OpenSeries) -> None:
        outcome = replace(series.outcome(), seconds=self._lap())
        if series.encoder is not None:
            with naming_output_faults("write the report of a series"):
                outcome = _reported(outcome, series.encoder, self._staging / "report")
        self.outcomes.append(outcome)
        self._open = None

    def _fail(self, failed: SeriesFailed) -> None:
        self.discard()
        source = failed.source
        uid, image = source.series_instance_uid, source.sop_instance_uid
        outcome = refused(uid, source.files, failed.error, name=source.name)
        self.outcomes.append(replace(outcome, seconds=self._lap(), sop_instance_uid=image))

    def _lap(self) -> float:
        """Seconds since the previous series ended."""
        last, self._clock = self._clock, time.monotonic()
        return self._clock - last


def _reported(outcome: SeriesOutcome, encoder: SliceEncoder, folder: Path) -> SeriesOutcome:
    """Write the page of a series; return its outcome with what was found on the way."""
    slices = encoder.finish()
    with slices.lines:
        outcome = replace(outcome, signal=slices.signal, thumbnail=slices.thumbnail)
        folder.mkdir(exist_ok=True)
        write_series_page(folder / f"{outcome.page}.html", outcome, slices)
    return outcome


class _OpenSeries:
    """A series whose blocks are arriving."""

    def __init__(
        self,
        series: SeriesInProgress,
        staging: Path,
        options: OutputOptions,
        objects: ObjectOptions,
        header: SeriesHeader | None,
        page_mb: float | None,
    ) -> None:
        self._series = series
        self._name = series.source.name
        self.encoder: SliceEncoder | None = None
        if page_mb is not None:
            self.encoder = SliceEncoder(staging, series.plan, page_mb)
        self._repeats = series.plan.repeats
        self._provenance = series.method.provenance
        self._warnings = series.method.warnings
        if series.plan.pass_through is not None:
            scale_mm = series.plan.pass_through.scale_mm
            self._provenance = replace(self._provenance, pass_through_mm=scale_mm)
        self._provenance = replace(
            self._provenance,
            confirmed_share=series.plan.confirmed_share,
            temporal=series.plan.cine is not None,
        )
        self._warnings = (*self._warnings, *series.plan.warnings)
        self._summary = SeriesSummary()
        self._writer = SeriesWriter(series.volume, self._provenance, staging, options, header)
        self._objects = SeriesObjects(
            series.volume,
            self._writer.series_instance_uid,
            self._provenance,
            staging,
            objects,
            options.series_number_factor,
        )

    @property
    def header(self) -> SeriesHeader | None:
        return self._writer.header

    def add(self, denoised: DenoisedBlock) -> None:
        stored = self._writer.add(denoised)
        if self.encoder is not None:
            self.encoder.add(denoised, stored)
        self._objects.add(denoised)
        self._summary.add(denoised)
        if self._name is not None and denoised.block.start == 0:
            self._name = completed_name(self._name, denoised.block.headers[0])

    def discard(self) -> None:
        if self.encoder is not None:
            self.encoder.discard()
        self._writer.discard()
        self._objects.discard()

    def outcome(self) -> SeriesOutcome:
        """Finish the series and return its outcome.

        Raises:
            ResultError: if the series is refused.
        """
        volume, summary = self._series.volume, self._summary
        verdict: Verdict = summary.accepted()
        derived = self._writer.finish()
        shares = {"clipped_share": derived.clipped_share, "changed_share": derived.changed_share}
        if self._repeats is not None:
            shares["confirmed_share"] = self._repeats.confirmed_share
        error_change = self._series.plan.error_change(self._series.method.strength)
        if error_change is not None:
            shares["expected_error_change"] = error_change
        measured = Measured(summary.noise_before, summary.noise_after, verdict, shares)
        objects = self._objects.finish(measured, derived.sop_instance_uids)
        return SeriesOutcome(
            series_instance_uid=volume.series_instance_uid,
            sop_instance_uid=self._series.source.sop_instance_uid,
            status="derived",
            modality=volume.modality,
            slices=len(volume.slices),
            unit=volume.unit,
            noise_before=summary.noise_before,
            noise_after=summary.noise_after,
            error_change=error_change,
            verdict=verdict,
            warnings=(
                *self._warnings,
                *volume.warnings,
                *volume.found_in_pixels,
                *self._objects.warnings,
            ),
            derived=derived,
            objects=objects,
            provenance=self._provenance,
            repeats=self._repeats,
            witnesses=self._series.plan.witnesses,
            name=self._name,
            limits=self._series.method.limits,
        )

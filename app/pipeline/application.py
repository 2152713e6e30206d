"""The graph: series reader -> denoiser -> gate -> derived series writer, on holoscan.

`monai.deploy.core.Application` is `holoscan.core.Application` under another name, so this is a
MONAI Deploy application; importing it from holoscan costs 0.1 s instead of 4.8 s.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import stillscan.operators.graph.cuda_runtime  # noqa: F401 - loads a library that holoscan needs

# isort: split
from holoscan import logger
from holoscan.core import Application
from holoscan.schedulers import EventBasedScheduler

from stillscan.app.settings import OutputSection
from stillscan.operators.graph.denoise_operator import DenoiseOperator
from stillscan.operators.graph.gate_operator import GateOperator
from stillscan.operators.graph.messages import Method, SeriesBlock, SeriesFailed, SeriesSource
from stillscan.operators.graph.series_reader_operator import SeriesReaderOperator
from stillscan.operators.graph.series_writer_operator import SeriesWriterOperator
from stillscan.operators.graph.stages import (
    EstimatingStage,
    GateStage,
    ReadingStage,
    WritingStage,
)
from stillscan.operators.report.outcome import SeriesOutcome, Watch
from stillscan.operators.volume import VolumeBlock

STAGES = 4  # each has a worker, so that reading, denoising, checking and writing overlap
REST_MS = 50  # after this time without work the graph has ended


class DenoiseApp(Application):  # type: ignore[misc]  # holoscan is untyped
    """Reads, denoises, checks and writes series block by block, the four stages in parallel.

    A port holds one block: a slow stage makes the previous one wait, so that at most eight blocks
    are in memory, whatever the size of the series.
    """

    def __init__(
        self,
        blocks: Iterator[SeriesBlock[VolumeBlock] | SeriesFailed],
        estimating: EstimatingStage,
        gate: GateStage,
        writing: WritingStage,
    ) -> None:
        """Set the stages, which do the work; after `run` the outcomes are in `writing.outcomes`."""
        self._blocks = blocks
        self._estimating = estimating
        self._gate = gate
        self._writing = writing
        if "HOLOSCAN_LOG_LEVEL" not in os.environ:
            # an error of an operator is raised to the caller of `run`
            logger.set_log_level(logger.LogLevel.OFF)
        # without an empty list holoscan would parse the arguments of the process
        super().__init__([sys.executable, "stillscan"])
        # without this time the scheduler ends a graph as soon as no operator works, which on a busy
        # machine can happen between two messages
        scheduler = EventBasedScheduler(
            self,
            worker_thread_number=STAGES,
            stop_on_deadlock_timeout=REST_MS,
            name="scheduler",
        )
        self.scheduler(scheduler)

    def compose(self) -> None:
        """Connect the four operators."""
        reader = SeriesReaderOperator(self, blocks=self._blocks, name="series_reader")
        denoiser = DenoiseOperator(self, stage=self._estimating, name="denoiser")
        gate = GateOperator(self, stage=self._gate, name="gate")
        writer = SeriesWriterOperator(self, stage=self._writing, name="series_writer")
        self.add_flow(reader, denoiser, {("block", "block")})
        self.add_flow(denoiser, gate, {("estimated_block", "estimated_block")})
        self.add_flow(gate, writer, {("denoised_block", "denoised_block")})


class GraphStoppedError(RuntimeError):
    """The graph ended before every series had an outcome."""


def derive_all(
    sources: Sequence[SeriesSource],
    methods: Mapping[str, Method],
    staging: Path,
    output: OutputSection,
    watch: Watch,
) -> tuple[SeriesOutcome, ...]:
    """Send series through the graph; the derived series are in `staging` afterwards.

    Args:
        sources: the series, processed one after the other.
        methods: methods by modality, for every modality of the sources.
        staging: an empty folder.
        output: labels of derived series, and whether a report is written.
        watch: called after each block.

    Returns:
        One outcome per source, in their order.
    """
    network = threading.Lock()
    writing = WritingStage(
        staging, output.series, page_mb=output.page_mb, watch=watch, objects=output.objects
    )
    app = DenoiseApp(
        iter(ReadingStage(sources, methods, network)),
        EstimatingStage(network),
        GateStage(),
        writing,
    )
    try:
        app.run()
    finally:
        writing.discard()
    if len(writing.outcomes) != len(sources):
        raise GraphStoppedError(f"{len(writing.outcomes)} of {len(sources)} series have an outcome")
    return tuple(writing.outcomes)

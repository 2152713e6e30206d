"""The pipeline without a graph: one stage after the other, for a worker that has one core.

There is nothing to overlap on one core, and a process that does thousands of series is better off
without a graph, and its threads, for each of them: plain code takes the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stillscan.app.settings import OutputSection
from stillscan.operators.graph.messages import Method, SeriesSource
from stillscan.operators.graph.stages import WritingStage, in_turn
from stillscan.operators.report.outcome import SeriesOutcome, Watch


def derive_all(
    sources: Sequence[SeriesSource],
    methods: Mapping[str, Method],
    staging: Path,
    output: OutputSection,
    watch: Watch,
) -> tuple[SeriesOutcome, ...]:
    """See `application.derive_all`, which does the same on holoscan."""
    writing = WritingStage(
        staging, output.series, report=output.report, watch=watch, objects=output.objects
    )
    try:
        for message in in_turn(sources, methods):
            writing.take(message)
    finally:
        writing.discard()
    return tuple(writing.outcomes)

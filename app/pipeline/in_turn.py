"""The stages without a graph, one after the other, for a worker with one core.

On one core nothing can overlap, and a process that denoises thousands of series avoids creating a
graph and its threads for each of them; plain code takes the same time.
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
    """Do the same as `application.derive_all`, without holoscan."""
    writing = WritingStage(
        staging, output.series, page_mb=output.page_mb, watch=watch, objects=output.objects
    )
    try:
        for message in in_turn(sources, methods):
            writing.take(message)
    finally:
        writing.discard()
    return tuple(writing.outcomes)

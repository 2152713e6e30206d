"""The stages of the graph one after the other, for a worker that has one core.

There is nothing to overlap on one core, and a process that does thousands of series is better off
without a graph, and its threads, for each of them: plain code takes the same time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stillscan.app.pipeline.output_folder import publish, staging_in
from stillscan.app.pipeline.pipeline import Job, RunResult, methods_for, sources_of, survey
from stillscan.operators.graph.stages import DenoisingStage, GateStage, WritingStage, read_in_blocks
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.report.outcome import exit_code_of

if TYPE_CHECKING:
    from stillscan.app.pipeline.pipeline import Load


def run_one_by_one(job: Job, decoder: Decoder, load: Load) -> RunResult:
    """As `stillscan.app.pipeline.pipeline.run_with`, which see; no report is written.

    Raises:
        StillscanError: for what concerns all series (settings, models, output).
    """
    started = time.monotonic()
    with staging_in(job.output) as staging:
        found = survey(job, decoder)
        methods = methods_for(found, job.settings, load) if found.chosen else {}
        abandoned: set[str] = set()
        denoising, gate = DenoisingStage(methods, abandoned), GateStage(methods, abandoned)
        output = job.settings.output
        writing = WritingStage(
            staging,
            methods,
            output.series,
            abandoned,
            report=False,
            watch=lambda _: None,
            objects=output.objects,
        )
        try:
            for block in read_in_blocks(sources_of(found, decoder), abandoned):
                estimated = denoising.take(block)
                denoised = gate.take(estimated) if estimated is not None else None
                if denoised is not None:
                    writing.take(denoised)
        finally:
            writing.discard()
        outcomes = (*found.passed_over, *writing.outcomes)
        if any(each.status == "derived" for each in outcomes):
            publish(staging, job.output)
    seconds = time.monotonic() - started
    return RunResult(outcomes, found.skipped, exit_code_of(outcomes), seconds)

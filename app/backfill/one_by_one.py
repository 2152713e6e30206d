"""The stages of the graph one after the other, for a worker that has one core.

There is nothing to overlap on one core, and a process that does thousands of series is better off
without a graph, and its threads, for each of them: plain code takes the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from app.methods import identity_method
from app.output_folder import publish, staging_in
from app.run import Job, RunResult, survey
from app.settings import Settings
from models.bundle import BundleInfo
from operators.decoding import Decoder
from operators.outcome import exit_code_of
from operators.reading import read_series
from operators.stages import DenoisingStage, Method, SeriesSource, WritingStage, read_in_blocks

Load = Callable[[Mapping[str, BundleInfo], Settings], Mapping[str, Method]]


def run_one_by_one(job: Job, decoder: Decoder, load: Load) -> RunResult:
    """As `app.run.run_with`, which see; no report is written.

    Raises:
        StillscanError: for what concerns all series (settings, models, output).
    """
    started = time.monotonic()
    with staging_in(job.output) as staging:
        found = survey(job, decoder)
        methods: Mapping[str, Method] = {}
        if job.settings.denoise.mode == "identity":
            control = identity_method(job.settings)
            methods = {candidate.modality: control for candidate, _ in found.chosen}
        elif found.chosen:
            methods = load(
                {each.modality: info for each, info in found.chosen if info}, job.settings
            )
        abandoned: set[str] = set()
        denoising = DenoisingStage(methods, abandoned)
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
        sources = (
            SeriesSource(
                candidate.series_instance_uid,
                tuple(each.path for each in candidate.instances),
                partial(read_series, candidate, decoder),
            )
            for candidate, _ in found.chosen
        )
        try:
            for block in read_in_blocks(sources, abandoned):
                denoised = denoising.take(block)
                if denoised is not None:
                    writing.take(denoised)
        finally:
            writing.discard()
        outcomes = (*found.passed_over, *writing.outcomes)
        if any(each.status == "derived" for each in outcomes):
            publish(staging, job.output)
    seconds = time.monotonic() - started
    return RunResult(outcomes, found.skipped, exit_code_of(outcomes), seconds)

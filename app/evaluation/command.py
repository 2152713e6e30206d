"""`stillscan evaluate`: runs an evaluation plan, shows progress and writes the results."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stillscan.app.evaluation.page import write_results
from stillscan.app.evaluation.peers import need
from stillscan.app.evaluation.run import Evaluation, Plan
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder

log = logging.getLogger("stillscan")

LINE_EVERY_S = 30.0  # interval of progress lines where no bar can be shown


def evaluate(plan: Plan, command: str, decoder: Decoder, console: Console) -> ExitCode:
    """Measure, then write tables, plots and page.

    Args:
        plan: what to measure.
        command: the command line, which is written into the results.
        decoder: for DICOM files, started before torch was imported.
        console: console for the progress.

    Raises:
        StillscanError: if a folder, a name, a package or a network is missing or wrong.
    """
    need("matplotlib", "pip install '.[evaluate]' in the checkout")
    evaluation = Evaluation(plan, decoder)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("measurements"),
        TimeRemainingColumn(),
    )
    said = time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        bar = bars.add_task("starting", total=len(evaluation.tasks))
        for step in evaluation.run():
            bars.update(bar, completed=step.number, description=step.what)
            if not console.is_terminal and time.monotonic() - said > LINE_EVERY_S:
                said = time.monotonic()
                console.print(f"{step.number} of {step.total}: {step.what}", soft_wrap=True)
    page = write_results(plan.out, evaluation.records, evaluation.series, command)
    console.print(f"tables, plots and {page.name} in {plan.out}", soft_wrap=True, highlight=False)
    return ExitCode.DERIVED

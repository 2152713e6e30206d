"""A worker: one process on one core, or with one GPU, that keeps the networks warm.

It is an ordinary class; the pool makes a Ray actor of it. What goes wrong travels back as a record,
never as an exception, so that no message can quote a header on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from stillscan.app.backfill.configuration import Configuration
from stillscan.app.backfill.destinations import Destination
from stillscan.app.backfill.records import Fault, Outcome, Place, Ready
from stillscan.app.backfill.work_items import WorkItem
from stillscan.app.bundles.warm_networks import WarmNetworks
from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint
from stillscan.app.pipeline.pipeline import IN_TURN, RunResult, run_with
from stillscan.app.pipeline.survey import Job
from stillscan.app.process_setup import import_torch
from stillscan.operators.errors import ExitCode, InputError, StillscanError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series
from stillscan.operators.reading.selection import OF_ONE_IMAGE
from stillscan.operators.report.outcome import SeriesOutcome
from stillscan.operators.report.result import not_derived, result_of_series, series_result

MAX_MESSAGE = 500
SCRATCH = "stillscan-backfill-"
OWN_THREADS = Path("/proc/self/task")


@dataclass(frozen=True)
class Order:
    """What is the same for all series.

    Attributes:
        archive: where archived series are.
        scratch: a folder that every worker reaches, on the destination's file system; None for one
            of the worker's own.
    """

    configuration: Configuration
    destination: Destination
    archive: Endpoint | None = None
    scratch: Path | None = None


class Worker:
    """Does one series after the other."""

    def __init__(self, order: Order) -> None:
        """Nothing is started yet."""
        self._order = order
        self._networks = WarmNetworks()
        self._decoder = Decoder()

    def where(self) -> Place:
        """Where it runs."""
        return Place(socket.gethostname(), tuple(sorted(os.sched_getaffinity(0))), os.getpid())

    def prepare(self, core: int | None) -> Ready | Fault:
        """Start the reading child, import what takes long, load the networks.

        Args:
            core: keep all threads and children on this one; None to leave them.
        """
        if core is not None:
            for thread in OWN_THREADS.iterdir():
                os.sched_setaffinity(int(thread.name), {core})
        try:
            self._decoder.__enter__()
            import_torch()  # the child has begun
            if core is not None:
                import_module("torch").set_num_threads(1)
            import_module(IN_TURN)
            if self._order.scratch is None:
                remove_abandoned(SCRATCH)
            configuration = self._order.configuration
            return Ready(configuration.digest(), configuration.arithmetic(self._networks))
        except StillscanError as error:
            return _fault(error, error.exit_code)

    def close(self) -> None:
        """End the reading child."""
        self._decoder.close()

    def process(self, item: WorkItem, token: str) -> Outcome | Fault:
        """Try a series once; when this returns, the derived series is where it belongs.

        Args:
            item: the series.
            token: names the folder for the attempt.
        """
        try:
            with naming_output_faults("make a working folder"):
                work = self._working_folder(token)
            try:
                return self._process(item, work)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        except DicomWebError as error:
            return _fault(error, None)
        except InputError as error:
            return Outcome("refused", error.reason, _short(str(error)))
        except StillscanError as error:
            return _fault(error, error.exit_code)
        except MemoryError:
            return Fault("out-of-memory", "not enough memory for the series")

    def _working_folder(self, token: str) -> Path:
        if self._order.scratch is None:
            return Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
        folder = self._order.scratch / token
        folder.mkdir(parents=True)
        return folder

    def _process(self, item: WorkItem, work: Path) -> Outcome | Fault:
        source, output = work / "series", work / "derived"
        source.mkdir()
        not_selected = self._not_selected(item, work / "first")
        if not_selected is not None:
            return not_selected
        item.bring(source, self._order.archive)
        configuration = self._order.configuration
        job = Job(
            source,
            output,
            configuration.settings,
            configuration.models_folder,
            configuration.bundle,
            item.taken_numbers,
        )
        result = run_with(job, self._decoder, self._networks, overlapped=False)
        derived = next((each for each in result.outcomes if each.status == "derived"), None)
        if derived is None:
            return ending_of(result)
        assert derived.derived is not None, "its status says so"
        objects = [each for one in result.outcomes for each in one.objects]
        made = [each.series_instance_uid for each in objects]
        folders = [output / uid for uid in [*made, derived.derived.series_instance_uid]]
        place = self._order.destination.take(folders, item.study_instance_uid)
        return replace(
            _outcome(derived, result.seconds),
            message=_short(not_derived(result.outcomes)),
            slices=sum(each.slices for each in result.outcomes if each.status == "derived"),
            result=json.dumps(result_of_series(result.outcomes), allow_nan=False),
            derived=derived.derived.series_instance_uid,
            place=place,
        )

    def _not_selected(self, item: WorkItem, folder: Path) -> Outcome | None:
        """What one instance says against the whole series, where fetching them all would cost."""
        folder.mkdir()
        if not item.bring_one(folder, self._order.archive):
            return None
        rules = self._order.configuration.settings.selection
        found = find_series(folder, self._decoder, rules)
        for each in (*found.refused, *found.skipped):
            if each.by_rules and each.reason not in OF_ONE_IMAGE:
                return Outcome(
                    "not-selected", each.reason, _short(each.message), modality=each.modality
                )
        return None


def ending_of(result: RunResult) -> Outcome | Fault:
    """What a run that derived nothing means for its series."""
    for each in result.outcomes:
        if each.exit_code == ExitCode.MODEL_FAULT:
            return Fault(each.reason, _short(each.message))
        return _outcome(each, result.seconds)
    for skipped in result.skipped:
        return Outcome("not-selected", skipped.reason, _short(skipped.message))
    return Outcome("not-selected", "nothing-to-do", "the series has no instance")


def _outcome(series: SeriesOutcome, seconds: float) -> Outcome:
    return Outcome(
        state=series.status,
        reason=series.reason,
        message=_short(series.message),
        modality=series.modality,
        slices=series.slices,
        seconds=round(seconds, 3),
        result=json.dumps(series_result(series), allow_nan=False),
    )


def remove_abandoned(prefix: str) -> None:
    """Remove temporary folders `<prefix><process>-...` of processes that were killed here."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        process = left.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not Path("/proc", process).exists():
            shutil.rmtree(left, ignore_errors=True)


def _fault(error: StillscanError, exit_code: ExitCode | None) -> Fault:
    return Fault(error.reason, _short(str(error)), exit_code)


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"

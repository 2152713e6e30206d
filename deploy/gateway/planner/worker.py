"""The worker: takes jobs from the queue and runs the application's own graph on each.

    queue -> snapshot of the series (hard links) -> read -> denoise -> gate -> write -> outbox

torch, holoscan, the reading child and the networks stay from job to job. A job has a graph of its
own: what one series does to it ends with its attempt. An unforeseen exception fails the
attempt (`internal-fault`); a crash ends the process, and its supervisor starts another.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.bundles.warm_networks import WarmNetworks
from stillscan.app.pipeline.output_folder import REPORT
from stillscan.app.pipeline.pipeline import RunResult, run_with
from stillscan.app.pipeline.survey import Job
from stillscan.app.settings import DEFAULT_SETTINGS, Settings, load_settings
from stillscan.deploy.gateway.heart import Heart
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.planner.planner import instance_path
from stillscan.deploy.gateway.processes import died_of_its_work
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.deliveries import files_of
from stillscan.deploy.gateway.record.disk import DiskGuard
from stillscan.deploy.gateway.record.incoming_series import Task
from stillscan.deploy.gateway.record.jobs import ClaimedJob, Ending, JobQueue
from stillscan.deploy.gateway.settings import GatewaySettings, Places, StorageSection
from stillscan.operators.durable_files import sync
from stillscan.operators.errors import ExitCode, StillscanError
from stillscan.operators.internal_fault import InternalFaultError, setting_aside
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.report.result import not_derived, result_of_series, series_result

IDLE_S = 0.25
START_S = 300.0  # to load torch and holoscan
MAX_MESSAGE = 500
STATUS_FILE = Path("/proc/self/statm")


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Work until `stop`; a job that has begun is brought to its end."""
    places = Places(settings.data)
    heart = Heart(places, "worker")
    heart.beat(START_S)
    queue = JobQueue(Database(places.database), settings.worker)
    queue.recover(died_of_its_work=died_of_its_work())
    shutil.rmtree(places.work, ignore_errors=True)
    with Decoder() as decoder:
        worker = Worker(settings, places, queue, decoder)
        import_module(
            "stillscan.app.pipeline.application"
        )  # torch and holoscan: 2 s that no job should wait for
        if settings.worker.memory_mb is not None:
            limit_memory(settings.worker.memory_mb)
        guard = DiskGuard(places.data, room_for_results(settings.storage))
        while not stop.is_set():
            heart.beat()
            job = queue.claim() if guard.has_room_now() else None
            if job is None:
                stop.wait(IDLE_S)
            else:
                heart.beat(settings.worker.timeout_s + START_S)  # its supervisor counts the time
                worker.attempt(job)


class Worker:
    """Runs one attempt after the other."""

    def __init__(
        self, settings: GatewaySettings, places: Places, queue: JobQueue, decoder: Decoder
    ) -> None:
        """Read the settings of the application.

        Raises:
            SettingsError: if they are wrong.
        """
        application = load_settings(settings.application or DEFAULT_SETTINGS)
        self._settings = replace(application, output=replace(application.output, report=True))
        self._models = settings.models or DEFAULT_BUNDLES
        self._places = places
        self._queue = queue
        self._decoder = decoder
        self._networks = WarmNetworks()

    def attempt(self, job: ClaimedJob) -> None:
        """Try one job once, and record how it went.

        Raises:
            MemoryError: after the failure is recorded: this process should not go on.
        """
        about = {"job": job.number, "attempt": job.attempt, "series": job.series_uid}
        log.info("job begins", extra={**about, "instances": len(job.instances)})
        try:
            with setting_aside(MemoryError, sqlite3.OperationalError):
                ending = self._derive(job)
        except SpoolDamagedError as error:
            self._queue.lose(error.names)
            self._queue.finish(job, Ending("refused", error.reason, str(error)))
            log.error("job refused", extra={**about, "reason": error.reason})
        except StillscanError as error:
            self._failed(job, about, error.reason, str(error))
        except MemoryError:
            self._failed(job, about, "out-of-memory", "not enough memory for the series")
            raise
        else:
            self._queue.finish(job, ending)
            log.info(
                "job ends",
                extra={**about, "state": ending.state, "reason": ending.reason}
                | {"derived": ending.derived_uid},
            )
        finally:
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _failed(
        self, job: ClaimedJob, about: Mapping[str, object], reason: str, message: str
    ) -> None:
        strike = reason == InternalFaultError.reason
        self._queue.fail(job.number, job.attempt, reason, _short(message), strike=strike)
        log.warning("job failed", extra={**about, "reason": reason, "detail": _short(message)})

    def _derive(self, job: ClaimedJob) -> Ending:
        """Derive the series of a job into the outbox.

        Raises:
            StillscanError: for what may be better the next time.
        """
        source = self._snapshot(job)
        outbox = self._places.outbox / str(job.number)
        shutil.rmtree(outbox, ignore_errors=True)  # of an attempt that was killed
        result = run_with(
            Job(
                source,
                outbox,
                self._settings_for(job.task),
                self._models,
                job.task.bundle,
                job.taken_numbers,
            ),
            self._decoder,
            self._networks,
        )
        ending = ending_of(result)
        if ending.state == "derived":
            self._move_report(job, outbox)
            sync(self._places.outbox)
            return replace(ending, instances=len(files_of(self._places, job.number)))
        shutil.rmtree(outbox, ignore_errors=True)
        return ending

    def _snapshot(self, job: ClaimedJob) -> Path:
        """A folder with exactly the instances of the job, as links to the files in the spool.

        Late instances do not get into it, and whatever happens in it, the spool keeps its own.
        """
        source = self._folder(job) / "series"
        shutil.rmtree(source, ignore_errors=True)
        with naming_output_faults("make a snapshot of the series"):
            source.mkdir(parents=True)
            found = {name: self._file_of(name) for name in job.instances}
            lost = [name for name, file in found.items() if file is None]
            if lost:
                raise SpoolDamagedError(lost)
            for name, file in found.items():
                (source / name).hardlink_to(file or "")
        return source

    def _file_of(self, name: str) -> Path | None:
        # after a power cut the record may know of a rename that the disk has lost
        places = (instance_path(self._places, name), self._places.incoming / name)
        return next((each for each in places if each.is_file()), None)

    def _settings_for(self, task: Task) -> Settings:
        """The settings of the application with what the rule says."""
        denoise = self._settings.denoise
        chosen = replace(
            denoise, mode=task.mode or denoise.mode, strength=task.strength or denoise.strength
        )
        return replace(self._settings, denoise=chosen)

    def _move_report(self, job: ClaimedJob, outbox: Path) -> None:
        """Pictures and pages are for the status page, not for the PACS."""
        reports = self._places.reports / str(job.number)
        shutil.rmtree(reports, ignore_errors=True)
        with naming_output_faults("keep the report of the series"):
            reports.parent.mkdir(parents=True, exist_ok=True)
            (outbox / REPORT).rename(reports)

    def _folder(self, job: ClaimedJob) -> Path:
        return self._places.work / str(job.number)


def ending_of(result: RunResult) -> Ending:
    """What a run over one series means for its job.

    Raises:
        StillscanError: if it failed by a fault that is not the series' own (a network that failed,
            too little memory).
    """
    for each in result.outcomes:
        if each.status == "derived" and each.derived is not None:
            return Ending(
                "derived",
                derived_uid=each.derived.series_instance_uid,
                derived_number=each.derived.series_number,
                message=_short(not_derived(result.outcomes)),
                result=result_of_series(result.outcomes),
            )
    for each in result.outcomes:
        if each.exit_code in (ExitCode.MODEL_FAULT, ExitCode.INTERNAL_FAULT):
            raise JobFaultError(each.reason, each.message)
        state = "refused" if each.status == "refused" else "not-selected"
        return Ending(state, each.reason, _short(each.message), result=series_result(each))
    for skipped in result.skipped:
        return Ending("not-selected", skipped.reason, _short(skipped.message))
    return Ending("not-selected", "nothing-to-do", "no instance of the series is there")


class JobFaultError(StillscanError):
    """A series could not be processed by a fault of ours; `reason` is the series' own."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is the code of the outcome."""
        super().__init__(message)
        self.reason = reason  # type: ignore[misc]  # of this one error, not of its class


class SpoolDamagedError(StillscanError):
    """Instances of the series are no longer in the spool, or not what was received."""

    reason = "spool-damaged"

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are those of the files."""
        self.names = tuple(names)
        super().__init__(
            f"{len(names)} instances of the series are gone from the spool; send it again"
        )


def room_for_results(storage: StorageSection) -> float:
    """Share of the file system up to which jobs begin: half of what receiving leaves free.

    A job that waits for room is better than one that fails for want of it.
    """
    return (1 + storage.most_used) / 2


def limit_memory(megabytes: int) -> None:
    """Let this process take so much more address space than it has now."""
    pages = int(STATUS_FILE.read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"

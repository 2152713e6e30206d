"""The worker process: takes jobs from the queue and runs the application's pipeline on each.

    queue -> snapshot of the series (hard links) -> read -> denoise -> gate -> write -> outbox

torch, holoscan, the reading process and the networks are kept from job to job; every job has its
own pipeline graph, so that the state of one series cannot affect the next. An unexpected exception
fails the attempt (`internal-fault`); a crash ends the process, and the supervisor restarts it.
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
from stillscan.deploy.gateway.heartbeat import Heartbeat
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.planner.planner import instance_path
from stillscan.deploy.gateway.processes import previous_run_crashed
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
from stillscan.operators.reading.records import VALID_UID
from stillscan.operators.report.result import not_derived, result_of_series, series_result

IDLE_S = 0.25
START_S = 300.0  # to load torch and holoscan
MAX_MESSAGE = 500
STATUS_FILE = Path("/proc/self/statm")


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """Run jobs until `stop` is set; a running job is completed."""
    places = Places(settings.data)
    heartbeat = Heartbeat(places, "worker")
    heartbeat.beat(START_S)
    queue = JobQueue(Database(places.database), settings.worker)
    queue.recover(previous_run_crashed=previous_run_crashed())
    shutil.rmtree(places.work, ignore_errors=True)
    with Decoder() as decoder:
        worker = Worker(settings, places, queue, decoder)
        # imports torch and holoscan (2 s), so that no job waits for that
        import_module("stillscan.app.pipeline.application")
        if settings.worker.memory_mb is not None:
            limit_memory(settings.worker.memory_mb)
        guard = DiskGuard(places.data, room_for_results(settings.storage))
        while not stop.is_set():
            heartbeat.beat()
            job = queue.claim() if guard.has_room_now() else None
            if job is None:
                stop.wait(IDLE_S)
            else:
                # the supervisor enforces `timeout_s`
                heartbeat.beat(settings.worker.timeout_s + START_S)
                worker.attempt(job)


class Worker:
    """Runs attempts at jobs."""

    def __init__(
        self, settings: GatewaySettings, places: Places, queue: JobQueue, decoder: Decoder
    ) -> None:
        """Read the settings of the application.

        Raises:
            SettingsError: if they are wrong.
        """
        application = load_settings(settings.application or DEFAULT_SETTINGS)
        output = replace(application.output, report=True, names=settings.web.names)
        self._settings = replace(application, output=output)
        self._models = settings.models or DEFAULT_BUNDLES
        self._places = places
        self._queue = queue
        self._decoder = decoder
        self._networks = WarmNetworks()

    def attempt(self, job: ClaimedJob) -> None:
        """Try one job once, and record the result.

        Raises:
            MemoryError: after the failure is recorded: this process should not continue.
        """
        about = {"job": job.number, "attempt": job.attempt, "series": job.series_uid}
        log.info("job started", extra={**about, "instances": len(job.instances)})
        try:
            with setting_aside(MemoryError, sqlite3.OperationalError):
                ending = self._derive(job)
        except SpoolDamagedError as error:
            self._queue.mark_lost(error.names)
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
                "job ended",
                extra={**about, "state": ending.state, "reason": ending.reason}
                | {"derived": ending.derived_uid},
            )
        finally:
            shutil.rmtree(self._folder(job), ignore_errors=True)

    def _failed(
        self, job: ClaimedJob, about: Mapping[str, object], reason: str, message: str
    ) -> None:
        series_fault = reason == InternalFaultError.reason
        self._queue.fail(
            job.number, job.attempt, reason, _short(message), series_fault=series_fault
        )
        log.warning("job failed", extra={**about, "reason": reason, "detail": _short(message)})

    def _derive(self, job: ClaimedJob) -> Ending:
        """Derive the series of a job into the outbox.

        Raises:
            StillscanError: for a fault that a further attempt may not have.
        """
        source = self._snapshot(job)
        outbox = self._places.outbox / str(job.number)
        shutil.rmtree(outbox, ignore_errors=True)  # left by an attempt that was killed
        result = run_with(
            Job(
                source,
                outbox,
                self._settings_for(job.task),
                self._models,
                job.task.bundle,
                job.taken_numbers,
                job.correction,
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
        """A folder with hard links to exactly the instances of the job.

        Instances that arrive later are not in it, and files that are removed from it stay in the
        spool.
        """
        source = self._folder(job) / "series"
        shutil.rmtree(source, ignore_errors=True)
        with naming_output_faults("make a snapshot of the series"):
            source.mkdir(parents=True)
            found = {name: self._file_of(name) for name in job.instances}
            lost = [name for name, file in found.items() if file is None]
            if lost:
                raise SpoolDamagedError(lost)
            for uid, (name, file) in zip(job.sop_uids, found.items(), strict=True):
                (source / _link_name(source, uid, name)).hardlink_to(file or "")
        return source

    def _file_of(self, name: str) -> Path | None:
        # after a power failure the record may be ahead of the file system: the rename may be lost
        places = (instance_path(self._places, name), self._places.incoming / name)
        return next((each for each in places if each.is_file()), None)

    def _settings_for(self, task: Task) -> Settings:
        """The settings of the application with the mode and strength of the rule."""
        denoise = self._settings.denoise
        chosen = replace(
            denoise, mode=task.mode or denoise.mode, strength=task.strength or denoise.strength
        )
        return replace(self._settings, denoise=chosen)

    def _move_report(self, job: ClaimedJob, outbox: Path) -> None:
        """Move the report out of the outbox: it is for the status page, not for the PACS."""
        reports = self._places.reports / str(job.number)
        shutil.rmtree(reports, ignore_errors=True)
        with naming_output_faults("keep the report of the series"):
            reports.parent.mkdir(parents=True, exist_ok=True)
            (outbox / REPORT).rename(reports)

    def _folder(self, job: ClaimedJob) -> Path:
        return self._places.work / str(job.number)


def _link_name(folder: Path, uid: str, name: str) -> str:
    """Name of a file for messages: of the instance, which the sender knows, as far as it is one."""
    if not (VALID_UID.fullmatch(uid) and uid[0].isdigit()):
        return name
    return uid if not (folder / uid).exists() else f"{uid}_{name[-16:]}"


def ending_of(result: RunResult) -> Ending:
    """How a job ends, from the result of the pipeline for its series.

    Raises:
        StillscanError: if it failed for a reason that is not in the series (such as a network that
            failed or too little memory).
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
    return Ending("not-selected", "nothing-to-do", "the series has no instance")


class JobFaultError(StillscanError):
    """A series could not be processed; the fault is in the program or machine, not the series."""

    def __init__(self, reason: str, message: str) -> None:
        """`reason` is the code of the outcome."""
        super().__init__(message)
        self.reason = reason  # type: ignore[misc]  # an instance attribute here


class SpoolDamagedError(StillscanError):
    """Instances of the series are missing or damaged in the spool."""

    reason = "spool-damaged"

    def __init__(self, names: Sequence[str]) -> None:
        """`names` are the file names of the instances."""
        self.names = tuple(names)
        super().__init__(
            f"{len(names)} instances of the series are missing in the spool; send the series again"
        )


def room_for_results(storage: StorageSection) -> float:
    """Used share of the file system up to which jobs are started.

    It is halfway between the limit for receiving and a full disk: a job should wait for space
    rather than fail.
    """
    return (1 + storage.most_used) / 2


def limit_memory(megabytes: int) -> None:
    """Limit the address space of this process to what it uses now plus so many megabytes."""
    pages = int(STATUS_FILE.read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"

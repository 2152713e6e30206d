"""The planner process: files received instances, finds complete series and creates their jobs.

No other process adds series or jobs to the record. Headers are read in a child process with limited
resources. Every step can be repeated: if the planner is killed, it continues with the files in
`incoming` after the restart.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from stillscan import __version__
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.settings import DEFAULT_SETTINGS, load_settings
from stillscan.deploy.gateway.heartbeat import Heartbeat
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.planner.corrections import is_newer_copy, whose
from stillscan.deploy.gateway.planner.rules import choose_rule, expected_images, header_of
from stillscan.deploy.gateway.processes import previous_run_crashed
from stillscan.deploy.gateway.receiver.spool import is_whole
from stillscan.deploy.gateway.record.clock import Clock
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.incoming_series import (
    Filed,
    NewJob,
    ReadySeries,
    SeriesRecord,
    Task,
)
from stillscan.deploy.gateway.record.quarantine import MAX_CRASHES, SPOOLED, Quarantine
from stillscan.deploy.gateway.record.retention import Retention
from stillscan.deploy.gateway.settings import GatewaySettings, Places
from stillscan.models.bundle import WEIGHTS, BundleError, find_bundles
from stillscan.operators.internal_fault import InternalFaultError, setting_aside
from stillscan.operators.reading.decoder import Decoder, Scanned

TICK_S = 0.25
BATCH_SIZE = 256  # files that are filed in one round
GROUP_SIZE = 16  # files read together; if the planner crashes, one of them may be the cause
STEP_S = 300.0  # time limit of one step: a group of files each of which stops the decoder
NO_TASK = Task(None, None, None, ())
# Faults of the planner or its machine, not of the instance that it is reading.
OWN_FAULTS = (OSError, sqlite3.OperationalError, MemoryError)


@dataclass(frozen=True)
class Waiting:
    """An acknowledged instance that is not filed into a series yet."""

    path: Path
    received: float
    bytes: int


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """File instances, create jobs and apply the retention time until `stop` is set."""
    places = Places(settings.data)
    heartbeat = Heartbeat(places, "planner")
    heartbeat.beat(STEP_S)
    database = Database(places.database)
    retention = Retention(places, database, settings.storage)
    clock = Clock(database, settings)
    with Decoder() as decoder:
        planner = Planner(settings, places, database, decoder, heartbeat)
        if previous_run_crashed():
            planner.count_crash_of_current_files()
        planner.reconcile()
        while not stop.is_set():
            heartbeat.beat()
            clock.tick()
            busy = planner.tick()
            heartbeat.beat(STEP_S)
            retention.tick()
            if not busy:
                stop.wait(TICK_S)


class Planner:
    """Files instances and creates jobs; `tick` is one round."""

    def __init__(
        self,
        settings: GatewaySettings,
        places: Places,
        database: Database,
        decoder: Decoder,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """Read the settings of the application and the weights, which are part of a job's key."""
        self._settings = settings
        self._places = places
        self._heartbeat = heartbeat or Heartbeat(places, "planner")
        self._record = SeriesRecord(database)
        self._quarantine = Quarantine(places, database)
        self._decoder = decoder
        self._configuration = configuration_digest(settings)
        places.incoming.mkdir(parents=True, exist_ok=True)

    def reconcile(self) -> None:
        """Make spool and record consistent, at the start.

        A file that the record does not contain (the record was restored from a backup, or created
        anew) is filed again. A file that retention had marked as removed, but not yet deleted when
        the process ended, is deleted.
        """
        for path in self._places.instances.glob("*/*.dcm"):
            there = self._record.is_there(path.name)
            if there is None:
                path.rename(self._places.incoming / path.name)
            elif not there:
                path.unlink()

    def count_crash_of_current_files(self) -> None:
        """Record a crash for each of the instances that the previous process was reading."""
        try:
            names = self._places.in_progress("planner").read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return
        self._quarantine.count_crashes(names)

    def tick(self) -> bool:
        """File instances and create jobs of complete series; whether more instances are waiting."""
        now = time.time()
        waiting = sorted(self._waiting(now), key=lambda each: each.received)
        self._file(waiting[:BATCH_SIZE])
        left = waiting[BATCH_SIZE:]
        # Instances that are not filed yet may belong to any series: whether a series is complete
        # can only be decided up to the time at which the oldest of them was received.
        known_until = min((each.received for each in left), default=now)
        for series in self._record.ready(self._settings.completeness, known_until):
            self._close(series)
        return bool(left)

    def _waiting(self, now: float) -> Iterator[Waiting]:
        """The instances in `incoming`; everything else there is moved to the quarantine."""
        with os.scandir(self._places.incoming) as entries:
            for entry in list(entries):
                if entry.name.startswith("."):
                    continue  # it is being written
                path = self._places.incoming / entry.name
                try:
                    found = entry.stat(follow_symlinks=False)
                    is_file = entry.is_file(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not is_file or not SPOOLED.fullmatch(entry.name):
                    message = "a file or folder in 'incoming' that the receiver did not write"
                    self._quarantine.put(path, "not-from-spool", message)
                elif found.st_size == 0:
                    self._quarantine.put(path, "empty-file", "the file has no bytes")
                else:
                    yield Waiting(path, min(found.st_mtime, now), found.st_size)

    def _file(self, waiting: list[Waiting]) -> None:
        crash_counts = self._quarantine.crash_counts() if waiting else {}
        sound = [each for each in waiting if each.path.name not in crash_counts]
        groups = [sound[at : at + GROUP_SIZE] for at in range(0, len(sound), GROUP_SIZE)]
        for each in (each for each in waiting if each.path.name in crash_counts):
            if crash_counts[each.path.name] < MAX_CRASHES:
                groups.append([each])  # alone, to find out whether it is the cause of the crash
            else:
                message = f"the planner crashed or hung {MAX_CRASHES} times on this instance"
                self._quarantine.put(each.path, "planner-stopped", message)
        begun: set[str] = set()
        found = [each for group in groups for each in self._filed_of(group, begun)]
        names = [each.name for each in self._recorded(found)]
        for name in names:
            target = instance_path(self._places, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # noticed when the job of its series is created
                (self._places.incoming / name).rename(target)
        if crash_counts:
            self._quarantine.clear_crashes(names)

    def _filed_of(self, group: Sequence[Waiting], begun: set[str]) -> list[Filed]:
        """The entries of some instances; instances on which a bug occurs are quarantined."""
        self._heartbeat.beat(STEP_S)
        in_hand = self._places.in_progress("planner")
        in_hand.write_text("\n".join(each.path.name for each in group), encoding="utf-8")
        filed = []
        scans = self._decoder.scan(each.path for each in group)
        for each, scanned in zip(group, scans, strict=True):
            try:
                with setting_aside(*OWN_FAULTS):
                    filed.append(self._filed(each, scanned, begun))
            except InternalFaultError as error:
                self._quarantine.put(each.path, error.reason, str(error))
        in_hand.write_text("", encoding="utf-8")
        return filed

    def _recorded(self, filed: list[Filed]) -> list[Filed]:
        """Record the entries, together or else one by one; those that were recorded."""
        try:
            with setting_aside(*OWN_FAULTS):
                self._record.file(filed)
        except InternalFaultError as error:
            if len(filed) == 1:
                path = self._places.incoming / filed[0].name
                self._quarantine.put(path, error.reason, str(error))
                return []
            return [one for each in filed for one in self._recorded([each])]
        return filed

    def _filed(self, waiting: Waiting, scanned: Scanned, begun: set[str]) -> Filed:
        """The entry of an instance; `begun` are series of which an instance was already read."""
        known, name = scanned.known, waiting.path.name
        uid = known.series_instance_uid if known is not None else ""
        uid = uid or f"file:{name}"
        sender, expected = "", None
        if uid not in begun and not self._record.is_known(uid):
            sender = _sender_of(waiting.path)
            if scanned.instance is not None:
                expected = expected_images(header_of(waiting.path, self._decoder)[1])
        begun.add(uid)
        return Filed(
            name=name,
            series_uid=uid,
            study_uid=known.study_instance_uid if known is not None else "",
            sop_uid=(known.sop_instance_uid if known is not None else "") or name,
            modality=known.modality if known is not None else "",
            series_number=known.series_number if known is not None else None,
            sender=sender,
            images=len(scanned.frames) or 1,
            expected=expected,
            ours=known is not None and known.derived_by_us,
            bytes=waiting.bytes,
            received=waiting.received,
        )

    def _close(self, series: ReadySeries) -> None:
        self._heartbeat.beat(STEP_S)
        series = self._without_damage(series)
        try:
            with setting_aside(*OWN_FAULTS):
                series = self._newest(series)
                job = self._job_for(series)
        except InternalFaultError as error:
            job = self._ended("refused", error.reason, str(error))
        number = self._record.close(series, job, time.time())
        if number is None:
            log.info("series received again, job exists", extra={"series": series.uid})
        else:
            log.info(
                "job created",
                extra={
                    "job": number,
                    "series": series.uid,
                    "revision": series.revision + 1,
                    "instances": len(series.instances),
                    "rule": job.rule,
                    "state": job.state,
                    "reason": job.reason,
                },
            )

    def _without_damage(self, series: ReadySeries) -> ReadySeries:
        """The series without instances whose file is missing or damaged."""
        damaged = []
        for name in series.instances:
            self._heartbeat.beat(STEP_S)
            path = instance_path(self._places, name)
            if not is_whole(path):
                damaged.append(name)
                if path.exists():
                    message = "the content differs from what was received"
                    self._quarantine.put(path, "spool-damaged", message)
        return self._record.without(series, damaged) if damaged else series

    def _newest(self, series: ReadySeries) -> ReadySeries:
        """The series without older copies that show the same image as a newer one."""
        replaced, corrected = [], []
        for newest, *older in self._record.copies(series):
            self._heartbeat.beat(STEP_S)
            first = header_of(instance_path(self._places, newest), self._decoder)
            for name in older:
                second = header_of(instance_path(self._places, name), self._decoder)
                if is_newer_copy(first[0], second[0], self._decoder):
                    replaced.append(name)
                    is_known = second[0].instance is not None
                    if is_known and whose(first[1]) != whose(second[1]):
                        corrected.append(name)
        if not replaced:
            return series
        notes_to = [each.name for each in self._settings.destinations if each.rejection_notes]
        series, outdated = self._record.replace(series, replaced, corrected, notes_to)
        for job, derived in outdated:
            about = {"job": job, "series": series.uid, "derived": derived}
            log.warning("derived series outdated", extra=about)
        return series

    def _job_for(self, series: ReadySeries) -> NewJob:
        if series.ours or self._record.made_by_us(series.uid):
            return self._ended("not-selected", "already-denoised", "derived by Stillscan")
        if series.removed:
            return self._ended(
                "refused",
                "late-after-retention",
                f"{series.removed} earlier instances of the series were removed after the "
                "retention time; send the whole series again",
            )
        if series.lost:
            return self._ended(
                "refused",
                "spool-damaged",
                f"{series.lost} instances of the series are damaged or missing in the spool; send "
                "the series again",
            )
        _, header = header_of(instance_path(self._places, series.instances[0]), self._decoder)
        rule = choose_rule(self._settings.rules, header, series.sender)
        if rule is None:
            return self._ended("not-selected", "no-rule", "no rule matches the series")
        if not rule.process:
            message = "the rule excludes the series from processing"
            return self._ended("not-selected", "excluded-by-rule", message, rule.name)
        task = Task(rule.bundle, rule.mode, rule.strength, rule.destinations)
        job = NewJob(rule.name, task, rule.priority, self._configuration)
        if series.is_incomplete and self._settings.completeness.missing == "refuse":
            return NewJob(
                rule.name,
                task,
                rule.priority,
                self._configuration,
                state="refused",
                reason="series-incomplete",
                message=f"{series.images} of {series.expected} images were received",
            )
        return job

    def _ended(self, state: str, reason: str, message: str, rule: str = "") -> NewJob:
        return NewJob(rule, NO_TASK, 0, self._configuration, state, reason, message)


def instance_path(places: Places, name: str) -> Path:
    """Path of the file of a filed instance."""
    return places.instances / name[:2] / name


def configuration_digest(settings: GatewaySettings) -> str:
    """Digest of everything, besides series and rule, that can change the result of a job.

    Raises:
        SettingsError: if the settings of the application are wrong.
    """
    application = load_settings(settings.application or DEFAULT_SETTINGS)
    parts = [__version__, asdict(application), _weights(settings.models or DEFAULT_BUNDLES)]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _weights(folder: Path) -> dict[str, str]:
    """Digest of each weights file; if bundles are missing, the worker reports that."""
    try:
        files = [file for each in find_bundles(folder) for file in _files_of(each.folder)]
        return {
            str(file.relative_to(folder)): sha256(file.read_bytes()).hexdigest() for file in files
        }
    except (BundleError, OSError):
        return {}


def _files_of(bundle: Path) -> list[Path]:
    return sorted((bundle / WEIGHTS).parent.glob("*.safetensors"))


def _sender_of(path: Path) -> str:
    """The calling AE title that the spool wrote into the file meta information."""
    return str(read_file_meta_info(path).get("SourceApplicationEntityTitle", ""))

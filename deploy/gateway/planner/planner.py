"""The planner: files what has come, finds out which series are complete, and makes their jobs.

It is the only one who writes series and makes jobs. Headers are read in a limited child process.
Everything it does may be done twice: killed anywhere, it goes on with what lies in `incoming`.
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
from stillscan.deploy.gateway.heart import Heart
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.planner.rules import choose_rule, expected_images, header_of
from stillscan.deploy.gateway.processes import died_of_its_work
from stillscan.deploy.gateway.receiver.spool import is_whole
from stillscan.deploy.gateway.record.clock import Clock
from stillscan.deploy.gateway.record.database import Database
from stillscan.deploy.gateway.record.incoming_series import (
    Filed,
    NewJob,
    QuietSeries,
    SeriesRecord,
    Task,
)
from stillscan.deploy.gateway.record.quarantine import MOST_STRIKES, SPOOLED, Quarantine
from stillscan.deploy.gateway.record.retention import Retention
from stillscan.deploy.gateway.settings import GatewaySettings, Places
from stillscan.models.bundle import WEIGHTS, BundleError, find_bundles
from stillscan.operators.internal_fault import InternalFaultError, setting_aside
from stillscan.operators.reading.decoder import Decoder, Scanned

TICK_S = 0.25
BATCH = 256  # files that are filed at once
GROUP = 16  # of them are in hand at once: what is under suspicion if the planner ends
STEP_S = 300.0  # the longest that one step may take: a group of files that each stop the decoder
NO_TASK = Task(None, None, None, ())
# What concerns the planner, not the instance that it has in hand.
OWN_FAULTS = (OSError, sqlite3.OperationalError, MemoryError)


@dataclass(frozen=True)
class Waiting:
    """An acknowledged instance that is in no series yet."""

    path: Path
    received: float
    bytes: int


def run(settings: GatewaySettings, stop: threading.Event) -> None:
    """File, plan and clear away until `stop`."""
    places = Places(settings.data)
    heart = Heart(places, "planner")
    heart.beat(STEP_S)
    database = Database(places.database)
    retention = Retention(places, database, settings.storage)
    clock = Clock(database, settings)
    with Decoder() as decoder:
        planner = Planner(settings, places, database, decoder, heart)
        if died_of_its_work():
            planner.suspect_what_was_in_hand()
        planner.reconcile()
        while not stop.is_set():
            heart.beat()
            clock.tick()
            busy = planner.tick()
            heart.beat(STEP_S)
            retention.tick()
            if not busy:
                stop.wait(TICK_S)


class Planner:
    """One round after the other: `tick`."""

    def __init__(
        self,
        settings: GatewaySettings,
        places: Places,
        database: Database,
        decoder: Decoder,
        heart: Heart | None = None,
    ) -> None:
        """Settings of the application and weights are part of a job's identity: read once."""
        self._settings = settings
        self._places = places
        self._heart = heart or Heart(places, "planner")
        self._record = SeriesRecord(database)
        self._quarantine = Quarantine(places, database)
        self._decoder = decoder
        self._configuration = configuration_digest(settings)
        places.incoming.mkdir(parents=True, exist_ok=True)

    def reconcile(self) -> None:
        """Bring spool and record together, at the start.

        A file that the record does not know (it was restored from a backup, or made anew) is filed
        again; one that retention had removed from the record, and was killed over, is removed.
        """
        for path in self._places.instances.glob("*/*.dcm"):
            there = self._record.is_there(path.name)
            if there is None:
                path.rename(self._places.incoming / path.name)
            elif not there:
                path.unlink()

    def suspect_what_was_in_hand(self) -> None:
        """The planner has ended over one of the instances that it had in hand."""
        try:
            names = self._places.in_hand("planner").read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return
        self._quarantine.strike(names)

    def tick(self) -> bool:
        """File what has come and make jobs of series that are complete; whether more waits."""
        now = time.time()
        waiting = sorted(self._waiting(now), key=lambda each: each.received)
        self._file(waiting[:BATCH])
        left = waiting[BATCH:]
        # A series may have instances among those that are not filed yet: silence is only known
        # up to the oldest of them.
        known_until = min((each.received for each in left), default=now)
        for series in self._record.quiet(self._settings.completeness, known_until):
            self._close(series)
        return bool(left)

    def _waiting(self, now: float) -> Iterator[Waiting]:
        """What the receiver has put into `incoming`; everything else there is set aside."""
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
                    message = "a file or folder in 'incoming' that the receiver has not written"
                    self._quarantine.put(path, "not-from-spool", message)
                elif found.st_size == 0:
                    self._quarantine.put(path, "empty-file", "the file has no bytes")
                else:
                    yield Waiting(path, min(found.st_mtime, now), found.st_size)

    def _file(self, waiting: list[Waiting]) -> None:
        struck = self._quarantine.struck() if waiting else {}
        sound = [each for each in waiting if each.path.name not in struck]
        groups = [sound[at : at + GROUP] for at in range(0, len(sound), GROUP)]
        for each in (each for each in waiting if each.path.name in struck):
            if struck[each.path.name] < MOST_STRIKES:
                groups.append([each])  # by itself: if it is the one, no other is suspected
            else:
                message = f"the planner has ended {MOST_STRIKES} times over this instance"
                self._quarantine.put(each.path, "planner-stopped", message)
        begun: set[str] = set()
        found = [each for group in groups for each in self._filed_of(group, begun)]
        names = [each.name for each in self._recorded(found)]
        for name in names:
            target = instance_path(self._places, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # it is missed when its job is made
                (self._places.incoming / name).rename(target)
        if struck:
            self._quarantine.absolve(names)

    def _filed_of(self, group: Sequence[Waiting], begun: set[str]) -> list[Filed]:
        """What is recorded of some instances; those over which something fails are set aside."""
        self._heart.beat(STEP_S)
        in_hand = self._places.in_hand("planner")
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
        """Those that are in the record now: all at once, or what there is of them one by one."""
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
        """What is recorded of an instance; `begun` are series whose first one was seen already."""
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

    def _close(self, series: QuietSeries) -> None:
        self._heart.beat(STEP_S)
        series = self._without_damage(series)
        try:
            with setting_aside(*OWN_FAULTS):
                job = self._job_for(series)
        except InternalFaultError as error:
            job = self._ended("refused", error.reason, str(error))
        number = self._record.close(series, job, time.time())
        if number is None:
            log.info("series came again: its job was made before", extra={"series": series.uid})
        else:
            log.info(
                "job made",
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

    def _without_damage(self, series: QuietSeries) -> QuietSeries:
        """The series without the instances that the disk has lost or changed."""
        damaged = []
        for name in series.instances:
            self._heart.beat(STEP_S)
            path = instance_path(self._places, name)
            if not is_whole(path):
                damaged.append(name)
                if path.exists():
                    message = "the content is not what was received"
                    self._quarantine.put(path, "spool-damaged", message)
        return self._record.without(series, damaged) if damaged else series

    def _job_for(self, series: QuietSeries) -> NewJob:
        if series.ours or self._record.made_by_us(series.uid):
            return self._ended("not-selected", "already-denoised", "Stillscan made this series")
        if series.gone:
            return self._ended(
                "refused",
                "late-after-retention",
                f"{series.gone} earlier instances of the series were removed after the retention "
                "time; send the whole series again",
            )
        if series.lost:
            return self._ended(
                "refused",
                "spool-damaged",
                f"{series.lost} instances of the series are damaged or gone in the spool; send it "
                "again",
            )
        _, header = header_of(instance_path(self._places, series.instances[0]), self._decoder)
        rule = choose_rule(self._settings.rules, header, series.sender)
        if rule is None:
            return self._ended("not-selected", "no-rule", "no rule matches the series")
        if not rule.process:
            return self._ended("not-selected", "excluded-by-rule", "the rule says so", rule.name)
        task = Task(rule.bundle, rule.mode, rule.strength, rule.destinations)
        job = NewJob(rule.name, task, rule.priority, self._configuration)
        if series.is_short and self._settings.completeness.missing == "refuse":
            return NewJob(
                rule.name,
                task,
                rule.priority,
                self._configuration,
                state="refused",
                reason="series-incomplete",
                message=f"{series.images} of {series.expected} images have come",
            )
        return job

    def _ended(self, state: str, reason: str, message: str, rule: str = "") -> NewJob:
        return NewJob(rule, NO_TASK, 0, self._configuration, state, reason, message)


def instance_path(places: Places, name: str) -> Path:
    """Where the file of an instance lies once it is filed."""
    return places.instances / name[:2] / name


def configuration_digest(settings: GatewaySettings) -> str:
    """Of everything besides series and rule that changes what a job makes.

    Raises:
        SettingsError: if the settings of the application are wrong.
    """
    application = load_settings(settings.application or DEFAULT_SETTINGS)
    parts = [__version__, asdict(application), _weights(settings.models or DEFAULT_BUNDLES)]
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _weights(folder: Path) -> dict[str, str]:
    """Digest of each file of weights; without bundles, the worker will say what is wrong."""
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

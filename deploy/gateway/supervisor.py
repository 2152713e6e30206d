"""The supervisor: starts the parts, starts again what ends, stops what hangs, drains at the end.

It holds no state of its own, so that it can be killed like any part: the next one finds everything
in the spool and the database.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import stillscan
from stillscan.deploy.gateway.heart import Heart, late_s
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.processes import DIED_OF_ITS_WORK, OURS_ALONE, PARTS, only_one
from stillscan.deploy.gateway.record.database import Database, RecordDamagedError, count
from stillscan.deploy.gateway.record.jobs import JobQueue
from stillscan.deploy.gateway.settings import GatewaySettings, Places
from stillscan.operators.errors import ExitCode

TICK_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
STEADY_S = 20.0  # a part that has run for so long starts again without delay
START_S = 300.0  # the longest that a part may take to its first round
HANGS_S = 60.0  # a part that is late by so much is ended
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
OTHER_GATEWAY_S = 5.0  # for one that is just ending
ROOT = Path(stillscan.__path__[0]).parent


class Part:
    """One process of the gateway, over all its lives."""

    def __init__(self, name: str, settings: GatewaySettings) -> None:
        """Nothing runs yet."""
        self.name = name
        self._settings = pickle.dumps(settings)
        self._places = Places(settings.data)
        self._heart = Heart(self._places, name)
        self._hangs = False
        self._died_of_its_work = False
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._wait_s = FIRST_WAIT_S
        self._not_before = 0.0

    @property
    def process_id(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process."""
        self._heart.stop()  # it has not begun yet
        died = {DIED_OF_ITS_WORK: "1"} if self._died_of_its_work else {}
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            # -P: a folder `stillscan` in the working directory is not ours
            [sys.executable, "-P", "-m", "stillscan.deploy.gateway.processes", self.name],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the supervisor alone
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **died},
        )
        self._began = time.monotonic()
        self._tell(len(self._settings).to_bytes(4, "big") + self._settings)

    def has_ended(self) -> int | None:
        """Exit status of a process that has ended since it was last asked."""
        if self._process is None:
            return None
        status = self._process.poll()
        if status is not None:
            crashed = status == ExitCode.INTERNAL_FAULT or -status in CRASHES
            self._died_of_its_work = self._hangs or crashed
            self._hangs = False
            self._forget(steady=time.monotonic() - self._began >= STEADY_S)
        return status

    def end_if_it_hangs(self) -> bool:
        """End the process if it is not back where it promised to be; whether that was so."""
        late = late_s(self._places, self.name)
        if math.isinf(late):  # it has not begun its loop
            late = time.monotonic() - self._began - START_S
        if self._process is None or self._hangs or late < HANGS_S:
            return False
        self._hangs = True
        self.kill()
        return True

    def is_due(self) -> bool:
        """Whether it is time to start again."""
        return self._process is None and time.monotonic() >= self._not_before

    def stop(self) -> None:
        """Ask the process to come to an end."""
        self._tell(b"stop\n")

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    def _tell(self, message: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it has just ended: `has_ended` will say so
                self._process.stdin.write(message)
                self._process.stdin.flush()

    def _forget(self, *, steady: bool) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # what was not read is of no use any more
                self._process.stdin.close()
        self._process = None
        self._heart.stop()
        self._wait_s = FIRST_WAIT_S if steady else min(2 * self._wait_s, LONGEST_WAIT_S)
        self._not_before = time.monotonic() + (0 if steady else self._wait_s)


class Supervisor:
    """All parts of one gateway."""

    def __init__(self, settings: GatewaySettings, names: Sequence[str] = PARTS) -> None:
        """`names` are the parts that run; all of them, but for tests."""
        self._settings = settings
        places = Places(settings.data)
        self._database = Database(places.database)
        self._database.require_sound()
        self._queue = JobQueue(self._database, settings.worker)
        self._seen: dict[tuple[int, int], float] = {}  # job and attempt: since when, monotonic
        self._parts = {name: Part(name, settings) for name in names}

    def run(self, stop: threading.Event) -> None:
        """Keep all parts running until `stop`, then drain them."""
        for part in self._parts.values():
            part.start()
        log.info("gateway runs", extra={"parts": self._process_ids()})
        while not stop.wait(TICK_S):
            self._restart()
            self._stop_what_hangs()
        self._drain()

    def _process_ids(self) -> dict[str, int | None]:
        return {name: part.process_id for name, part in self._parts.items()}

    def _restart(self) -> None:
        for name, part in self._parts.items():
            status = part.has_ended()
            if status is not None:
                log.error("part ended", extra={"ended": name, "how": _how(status)})
                self._count(f"{name}_restarts")
            if part.is_due():
                part.start()
                log.info("part starts again", extra={"parts": self._process_ids()})

    def _stop_what_hangs(self) -> None:
        for name, part in self._parts.items():
            if part.end_if_it_hangs():
                log.error("part hangs and is ended", extra={"ended": name})
        self._stop_long_attempts()

    def _stop_long_attempts(self) -> None:
        """Give up attempts that take too long; the worker has to be killed for that."""
        worker = self._parts.get("worker")
        if worker is None:
            return
        limit, now = self._settings.worker.timeout_s, time.monotonic()
        try:
            running = self._queue.running()
            self._seen = {each: self._seen.get(each, now) for each in running}
            for (number, attempt), since in self._seen.items():
                if now - since > limit:
                    message = f"the job took longer than {limit:g} s"
                    if self._queue.fail(number, attempt, "time-out", message):
                        log.error("job timed out", extra={"job": number, "attempt": attempt})
                        worker.kill()
        except (sqlite3.OperationalError, RecordDamagedError) as error:
            log.error("%s", error)  # a full disk: the next round tries again

    def _drain(self) -> None:
        """Let what has begun come to its end, each part as long as its settings say."""
        patience_s = {
            "receiver": self._settings.receiver.drain_s,
            "worker": self._settings.worker.drain_s,
            "sender": self._settings.sender.drain_s,
        }
        began = time.monotonic()
        for part in self._parts.values():
            part.stop()
        left = dict(self._parts)
        while left:
            for name, part in list(left.items()):
                if part.process_id is None or part.has_ended() is not None:
                    del left[name]
                elif time.monotonic() - began > patience_s.get(name, 5.0):
                    log.warning("part is still busy and is ended", extra={"ended": name})
                    part.kill()
            time.sleep(TICK_S / 4)
        log.info("gateway has ended", extra={"seconds": round(time.monotonic() - began, 1)})

    def _count(self, name: str) -> None:
        try:
            with self._database.transaction() as connection:
                count(connection, {name: 1})
        except (sqlite3.OperationalError, RecordDamagedError) as error:
            log.error("%s", error)


def serve(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT, then drain it; a second signal ends it at once.

    Raises:
        GatewayRunsError: if another gateway works with the same data.
        RecordDamagedError: if the record is damaged.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the parts see the end of their input and leave
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    os.umask(OURS_ALONE)
    with only_one(settings.data / "gateway.lock", OTHER_GATEWAY_S):
        Supervisor(settings).run(stop)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name

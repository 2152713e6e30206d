"""The supervisor: starts the gateway's processes, restarts those that end, kills those that hang.

When the gateway is stopped, the supervisor drains the processes. It has no state of its own and may
be killed like any other process: after a restart, everything is found in the spool and the record.
In names, log members and metrics a process of the gateway is called a part.
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
from hashlib import sha256
from pathlib import Path

import stillscan
from stillscan.deploy.gateway.heartbeat import Heartbeat, seconds_late
from stillscan.deploy.gateway.json_logs import log
from stillscan.deploy.gateway.processes import PARTS, PREVIOUS_RUN_CRASHED, UMASK, process_lock
from stillscan.deploy.gateway.record.database import Database, RecordDamagedError, count
from stillscan.deploy.gateway.record.jobs import JobQueue
from stillscan.deploy.gateway.settings import GatewaySettings, Places
from stillscan.operators.errors import ExitCode

TICK_S = 0.2
FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 5.0
STEADY_S = 20.0  # a part that has run for so long is restarted without delay
START_S = 300.0  # time limit for a part to reach its main loop
MAX_LATE_S = 60.0  # a part whose heartbeat is overdue by so much is killed
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
LOCK_WAIT_S = 5.0  # a previous gateway may still be ending
ROOT = Path(stillscan.__path__[0]).parent


class Part:
    """One process of the gateway, over all its restarts."""

    def __init__(self, name: str, settings: GatewaySettings) -> None:
        """The process is not started yet."""
        self.name = name
        self._settings = pickle.dumps(settings)
        self._places = Places(settings.data)
        self._heartbeat = Heartbeat(self._places, name)
        self._hangs = False
        self._crashed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._wait_s = FIRST_WAIT_S
        self._not_before = 0.0

    @property
    def process_id(self) -> int | None:
        """Process ID; None while the process does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process."""
        self._heartbeat.stop()  # until the new process sends its first one
        died = {PREVIOUS_RUN_CRASHED: "1"} if self._crashed else {}
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            # -P: do not import a folder `stillscan` of the working directory
            [sys.executable, "-P", "-m", "stillscan.deploy.gateway.processes", self.name],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C goes to the supervisor only
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **died},
        )
        self._began = time.monotonic()
        self._tell(len(self._settings).to_bytes(4, "big") + self._settings)

    def has_ended(self) -> int | None:
        """Exit status if the process has ended since the last call, else None."""
        if self._process is None:
            return None
        status = self._process.poll()
        if status is not None:
            crashed = status == ExitCode.INTERNAL_FAULT or -status in CRASHES
            self._crashed = self._hangs or crashed
            self._hangs = False
            self._forget(steady=time.monotonic() - self._began >= STEADY_S)
        return status

    def kill_if_hung(self) -> bool:
        """Kill the process if its heartbeat is overdue; whether it was killed."""
        late = seconds_late(self._places, self.name)
        if math.isinf(late):  # it has not reached its main loop
            late = time.monotonic() - self._began - START_S
        if self._process is None or self._hangs or late < MAX_LATE_S:
            return False
        self._hangs = True
        self.kill()
        return True

    def is_due(self) -> bool:
        """Whether the process is to be started now."""
        return self._process is None and time.monotonic() >= self._not_before

    def stop(self) -> None:
        """Ask the process to finish its work and end."""
        self._tell(b"stop\n")

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()

    def _tell(self, message: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # it has just ended: `has_ended` reports that
                self._process.stdin.write(message)
                self._process.stdin.flush()

    def _forget(self, *, steady: bool) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # unread messages are no longer needed
                self._process.stdin.close()
        self._process = None
        self._heartbeat.stop()
        self._wait_s = FIRST_WAIT_S if steady else min(2 * self._wait_s, LONGEST_WAIT_S)
        self._not_before = time.monotonic() + (0 if steady else self._wait_s)


class Supervisor:
    """All parts of one gateway."""

    def __init__(self, settings: GatewaySettings, names: Sequence[str] = PARTS) -> None:
        """`names` are the parts to run; tests run only some of them."""
        self._settings = settings
        places = Places(settings.data)
        self._database = Database(places.database)
        self._database.require_sound()
        self._queue = JobQueue(self._database, settings.worker)
        self._seen: dict[tuple[int, int], float] = {}  # (job, attempt): start, monotonic clock
        self._parts = {name: Part(name, settings) for name in names}

    def run(self, stop: threading.Event) -> None:
        """Keep all parts running until `stop`, then drain them."""
        for part in self._parts.values():
            part.start()
        digest = sha256(repr(self._settings).encode()).hexdigest()
        rules = [rule.name for rule in self._settings.rules]
        about = {"parts": self._process_ids(), "settings": digest, "rules": rules}
        log.info("gateway started", extra=about)
        while not stop.wait(TICK_S):
            self._restart()
            self._kill_hung_processes()
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
                log.info("part restarted", extra={"parts": self._process_ids()})

    def _kill_hung_processes(self) -> None:
        for name, part in self._parts.items():
            if part.kill_if_hung():
                log.error("part hung and was killed", extra={"ended": name})
        self._stop_long_attempts()

    def _stop_long_attempts(self) -> None:
        """Fail attempts that exceed the time limit, and kill the worker that runs them."""
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
            log.error("%s", error)  # such as a full disk: the next round tries again

    def _drain(self) -> None:
        """Stop all parts; running work may be finished within the `drain-s` of each part."""
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
                    log.warning("part was still busy and was killed", extra={"ended": name})
                    part.kill()
            time.sleep(TICK_S / 4)
        log.info("gateway stopped", extra={"seconds": round(time.monotonic() - began, 1)})

    def _count(self, name: str) -> None:
        try:
            with self._database.transaction() as connection:
                count(connection, {name: 1})
        except (sqlite3.OperationalError, RecordDamagedError) as error:
            log.error("%s", error)


def serve(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT, then drain it; a second signal ends it at once.

    Raises:
        GatewayRunsError: if another gateway uses the same data folder.
        RecordDamagedError: if the record is damaged.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            os._exit(128 + number)  # the parts notice the end of their standard input and end
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    os.umask(UMASK)
    with process_lock(settings.data / "gateway.lock", LOCK_WAIT_S):
        Supervisor(settings).run(stop)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name

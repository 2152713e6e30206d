"""The five processes ("parts") of the gateway, and how each is started and stopped.

A part is a function `run(settings, stop)` that returns soon after `stop` is set: the receiver waits
for open associations, the worker for its job, the sender for its delivery. A part may also be
killed at any moment; unfinished work is found in the spool and the record after the restart. The
functions are

    receiver   receiver.receiver.run    C-STORE, C-ECHO
    web        web.routes.run           STOW-RS, status page, /metrics, /livez, /readyz
    planner    planner.planner.run      files instances, finds complete series, creates jobs
    worker     planner.worker.run       denoises
    sender     sender.sender.run        delivers

The supervisor starts this module with the name of a part, writes the settings to its standard input
and keeps that open: a line there asks the part to stop; at end of file (the supervisor has ended)
it exits at once. Signals are blocked in parts: holoscan has its own handler for SIGTERM, and the
supervisor alone handles signals that a terminal or systemd sends to all processes.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import sqlite3
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO, cast

from stillscan.app.exit_status import exit_code_of, leave
from stillscan.app.process_setup import share_one_heap
from stillscan.deploy.gateway.json_logs import log, set_up_logging
from stillscan.deploy.gateway.settings import GatewaySettings
from stillscan.operators.errors import ExitCode, OutputError
from stillscan.operators.internal_fault import kind_and_place

Run = Callable[[GatewaySettings, threading.Event], None]

PARTS = ("receiver", "web", "planner", "worker", "sender")
MODULES = {  # below deploy/gateway
    "receiver": "receiver.receiver",
    "web": "web.routes",
    "planner": "planner.planner",
    "worker": "planner.worker",
    "sender": "sender.sender",
}
ORPHANED = 70  # exit status of a part whose supervisor has ended
PREVIOUS_RUN_CRASHED = "STILLSCAN_PREVIOUS_RUN_CRASHED"  # environment variable
UMASK = 0o027  # files 0640, folders 0750
FLOCK = struct.Struct("@hhqqi")  # of fcntl(2): type, whence, start, length, process


def main(name: str) -> None:
    """Run the part of this name until its supervisor asks it to stop."""
    os.umask(UMASK)
    share_one_heap()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    set_up_logging(name, os.environ.get("STILLSCAN_LOG_LEVEL", "info"))
    control = sys.stdin.buffer
    size = int.from_bytes(control.read(4), "big")
    settings: GatewaySettings = pickle.loads(control.read(size))
    stop = threading.Event()
    threading.Thread(target=_follow_supervisor, args=(control, stop), daemon=True).start()
    threading.excepthook = _end_process

    def action() -> ExitCode:
        with process_lock(settings.data / f"{name}.lock"), _translate_faults():
            run = cast(Run, import_module(f"stillscan.deploy.gateway.{MODULES[name]}").run)
            run(settings, stop)
        return ExitCode.DERIVED

    leave(exit_code_of(action))


class PartFaultError(OutputError):
    """The disk, the record or the port of a part cannot be used at the moment."""

    reason = "part-fault"


@contextmanager
def _translate_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PartFaultError(f"{error.strerror or type(error).__name__}") from error
    except sqlite3.OperationalError as error:
        raise PartFaultError(f"the record: {error}") from error


def previous_run_crashed() -> bool:
    """Whether the previous process of this part crashed or hung.

    False if it was killed from outside: that says nothing about the instance or job it worked on.
    """
    return bool(os.environ.get(PREVIOUS_RUN_CRASHED))


class GatewayRunsError(OutputError):
    """Another gateway uses the same data folder."""

    reason = "gateway-runs"


class process_lock:  # noqa: N801  # reads as `with process_lock(lock):`
    """A lock file that one process can hold; it is released when that process ends."""

    def __init__(self, path: Path, patience_s: float = float("inf")) -> None:
        """Create the file if it does not exist; `patience_s` is how long to wait for the lock."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._patience_s = patience_s
        self._file = path.open("wb")

    def __enter__(self) -> None:
        """Wait for the lock; child processes that a library forks do not inherit it.

        Raises:
            GatewayRunsError: if another process still holds it after `patience_s`.
        """
        deadline = monotonic() + self._patience_s
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError) as error:  # POSIX allows either
                if monotonic() > deadline:
                    raise GatewayRunsError(
                        f"process {self._holder()} already uses {self._path.parent}: each gateway "
                        "needs its own data folder"
                    ) from error
            sleep(0.1)

    def __exit__(self, *exception: object) -> None:
        """Release the lock."""
        self._file.close()

    def _holder(self) -> int:
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return int(FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_GETLK, asked))[4])


def _follow_supervisor(control: BinaryIO, stop: threading.Event) -> None:
    if control.readline():
        stop.set()
        control.read()
    os._exit(ORPHANED)  # at once: a new supervisor may be starting the same part


def _end_process(arguments: threading.ExceptHookArgs) -> None:
    """End the whole part when a thread fails: otherwise the failure would not be noticed."""
    name = "" if arguments.thread is None else arguments.thread.name
    error = arguments.exc_value or arguments.exc_type()
    log.error("internal-fault: %s in thread %s", kind_and_place(error), name)
    os._exit(int(ExitCode.INTERNAL_FAULT))


if __name__ == "__main__":
    main(sys.argv[1])

"""The processes of the gateway, and how each is begun, stopped and ended.

A part is a function `run(settings, stop)` that returns soon after `stop` is set: the receiver lets
running associations end, the worker its job, the sender its delivery. A part may also be killed at
any moment; what it was doing is found in the spool and the database when it starts again. The
functions are

    receiver   receiver.receiver.run    C-STORE, C-ECHO
    web        web.routes.run           STOW-RS, status page, /metrics, /healthz
    planner    planner.planner.run      files instances, finds complete series, makes jobs
    worker     planner.worker.run       denoises
    sender     sender.sender.run        delivers

The supervisor starts this module with the name of a part, writes the settings to its standard
input and keeps that open: a line there asks the part to stop, its end (the supervisor is gone)
makes it leave at once. Signals are blocked in parts: holoscan would take SIGTERM for its own, and
what a terminal or systemd sends to all processes is the supervisor's to answer.
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
ORPHANED = 70  # exit status of a part whose supervisor is gone
DIED_OF_ITS_WORK = "STILLSCAN_PART_DIED_OF_ITS_WORK"  # how the life before has ended
OURS_ALONE = 0o027  # umask: files 0640, folders 0750
FLOCK = struct.Struct("@hhqqi")  # of fcntl(2): type, whence, start, length, process


def main(name: str) -> None:
    """Run the part of this name until its supervisor says stop."""
    os.umask(OURS_ALONE)
    share_one_heap()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    set_up_logging(name, os.environ.get("STILLSCAN_LOG_LEVEL", "info"))
    control = sys.stdin.buffer
    size = int.from_bytes(control.read(4), "big")
    settings: GatewaySettings = pickle.loads(control.read(size))
    stop = threading.Event()
    threading.Thread(target=_obey, args=(control, stop), daemon=True).start()
    threading.excepthook = _end_process

    def action() -> ExitCode:
        with only_one(settings.data / f"{name}.lock"), _naming_own_faults():
            run = cast(Run, import_module(f"stillscan.deploy.gateway.{MODULES[name]}").run)
            run(settings, stop)
        return ExitCode.DERIVED

    leave(exit_code_of(action))


class PartFaultError(OutputError):
    """The disk, the record or the port of a part is not to be used at the moment."""

    reason = "part-fault"


@contextmanager
def _naming_own_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PartFaultError(f"{error.strerror or type(error).__name__}") from error
    except sqlite3.OperationalError as error:
        raise PartFaultError(f"the record: {error}") from error


def died_of_its_work() -> bool:
    """Whether the life of this part before has ended by what it was doing: a crash, or a hang.

    What somebody else has killed says nothing about its work.
    """
    return bool(os.environ.get(DIED_OF_ITS_WORK))


class GatewayRunsError(OutputError):
    """Another gateway works with the same data."""

    reason = "gateway-runs"


class only_one:  # noqa: N801  # reads as `with only_one(lock):`
    """Wait until no other process holds this lock; a process that ends lets it go."""

    def __init__(self, path: Path, patience_s: float = float("inf")) -> None:
        """The file is made where it is not there; `patience_s` is how long to wait."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._patience_s = patience_s
        self._file = path.open("wb")

    def __enter__(self) -> None:
        """Wait for the lock; it is the process's own: a child that a library forks has no part.

        Raises:
            GatewayRunsError: if the other process does not let it go.
        """
        deadline = monotonic() + self._patience_s
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except (BlockingIOError, PermissionError) as error:  # POSIX allows either
                if monotonic() > deadline:
                    raise GatewayRunsError(
                        f"process {self._holder()} works with {self._path.parent}: one folder of "
                        "data serves one gateway"
                    ) from error
            sleep(0.1)

    def __exit__(self, *exception: object) -> None:
        """Let it go."""
        self._file.close()

    def _holder(self) -> int:
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return int(FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_GETLK, asked))[4])


def _obey(control: BinaryIO, stop: threading.Event) -> None:
    if control.readline():
        stop.set()
        control.read()
    os._exit(ORPHANED)  # at once: a new supervisor may be starting the same part


def _end_process(arguments: threading.ExceptHookArgs) -> None:
    """A thread that breaks ends its part: half a part would not be noticed."""
    name = "" if arguments.thread is None else arguments.thread.name
    error = arguments.exc_value or arguments.exc_type()
    log.error("internal-fault: %s in thread %s", kind_and_place(error), name)
    os._exit(int(ExitCode.INTERNAL_FAULT))


if __name__ == "__main__":
    main(sys.argv[1])

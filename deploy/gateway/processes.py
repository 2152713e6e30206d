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
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, cast

from stillscan.app.exit_status import exit_code_of, leave
from stillscan.app.process_setup import share_one_heap
from stillscan.deploy.gateway.json_logs import log, set_up_logging
from stillscan.deploy.gateway.settings import GatewaySettings
from stillscan.operators.errors import ExitCode

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


def main(name: str) -> None:
    """Run the part of this name until its supervisor says stop."""
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
        with only_one(settings.data / f"{name}.lock"):
            run = cast(Run, import_module(f"stillscan.deploy.gateway.{MODULES[name]}").run)
            run(settings, stop)
        return ExitCode.DERIVED

    leave(exit_code_of(action))


class only_one:  # noqa: N801  # reads as `with only_one(lock):`
    """Wait until no other process holds this lock; a process that ends lets it go."""

    def __init__(self, path: Path) -> None:
        """The file is made where it is not there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def __enter__(self) -> None:
        """Wait for the lock; it is the process's own: a child that a library forks has no part."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exception: object) -> None:
        """Let it go."""
        self._file.close()


def _obey(control: BinaryIO, stop: threading.Event) -> None:
    if control.readline():
        stop.set()
        control.read()
    os._exit(ORPHANED)  # at once: a new supervisor may be starting the same part


def _end_process(arguments: threading.ExceptHookArgs) -> None:
    """A thread that breaks ends its part: half a part would not be noticed."""
    name = "" if arguments.thread is None else arguments.thread.name
    trace = arguments.exc_traceback
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    log.error(
        "internal-fault: %s in thread %s at %s", arguments.exc_type.__name__, name, Path(place).name
    )
    os._exit(int(ExitCode.INTERNAL_FAULT))


if __name__ == "__main__":
    main(sys.argv[1])

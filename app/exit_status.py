"""Converts errors and signals that end a run to one log line and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from stillscan.operators.errors import ExitCode, StillscanError
from stillscan.operators.internal_fault import kind_and_place, log_frames

log = logging.getLogger("stillscan")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """The run was stopped by a signal (SIGINT or SIGTERM)."""

    def __init__(self, number: int) -> None:
        """`number` is the signal number."""
        super().__init__(number)
        self.number = number


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise `Stopped` on SIGINT and SIGTERM, so that staging folders are removed.

    The handlers must be set before a holoscan application runs: it then interrupts its graph and
    passes the signal on. Without them, `Application.run` returns normally after a SIGTERM.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code_of(action: Callable[[], ExitCode], left: str = "nothing was written") -> int:
    """Run `action` and return the exit code; an exception is logged as one line.

    `left` describes the state of the output after an early end, for the log line.

    The message of an unexpected exception is not logged, as it may quote the header of an image;
    its type and place are, and its stack frames at log level debug.
    """
    try:
        with stopping_on_signals():
            return int(action())
    except StillscanError as error:
        log.error("%s: %s", error.reason, " ".join(str(error).split()))
        log_frames(error)
        return int(error.exit_code)
    except Stopped as stop:
        log.error("stopped by %s; %s", signal.Signals(stop.number).name, left)
        return 128 + stop.number
    except Exception as error:
        log.error(
            "internal-fault: %s; %s (this is a bug; --verbose shows more)",
            kind_and_place(error),
            left,
        )
        log_frames(error)
        return int(ExitCode.INTERNAL_FAULT)


def leave(code: int) -> NoReturn:
    """End the process at once with an exit code.

    When a command returns, all results are published and all child processes have ended; the normal
    shutdown of torch would take 0.6 s without benefit.
    """
    logging.shutdown()
    with suppress(OSError):  # a closed pipe: its reader has ended
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)

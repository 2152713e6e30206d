"""What ends a run becomes one line for the person and one exit code for the program, here alone."""

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
    """A person or the host asked the run to stop."""

    def __init__(self, number: int) -> None:
        """`number` is that of the signal."""
        super().__init__(number)
        self.number = number


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Stopped`, so that staging is removed on the way out.

    The handlers must stand before a holoscan application runs: it then interrupts its graph and
    hands the signal on. Without them `Application.run` returns from a SIGTERM as if all were done.
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
    """Run `action`; what it raises is logged as one line and becomes the exit code.

    `left` says what an end before its time leaves behind.

    The message of an unexpected exception is not shown: it may quote the header of an image. Its
    type and place are, and its frames at log level debug.
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

    All results are published and all children are gone when a command returns; tearing torch down
    would take 0.6 s more for nothing.
    """
    logging.shutdown()
    with suppress(OSError):  # a closed pipe: its reader has ended
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)

"""What ends a run becomes one line for the person and one exit code for the program, here alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

from stillscan.operators.errors import ExitCode, StillscanError

log = logging.getLogger("stillscan")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OURS = Path(__file__).resolve().parents[1]


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
        _log_frames(error)
        return int(error.exit_code)
    except Stopped as stop:
        log.error("stopped by %s; %s", signal.Signals(stop.number).name, left)
        return 128 + stop.number
    except Exception as error:
        log.error(
            "internal-fault: %s at %s; %s (this is a bug; --verbose shows more)",
            type(error).__name__,
            _place(error.__traceback__),
            left,
        )
        _log_frames(error)
        return int(ExitCode.INTERNAL_FAULT)


def _place(trace: TracebackType | None) -> str:
    """File and line of the innermost frame that is ours."""
    place = "an unknown place"
    for frame in traceback.extract_tb(trace):
        path = Path(frame.filename)
        if path.is_relative_to(OURS) and "site-packages" not in path.parts[len(OURS.parts) :]:
            place = f"{path.relative_to(OURS)}:{frame.lineno}"
    return place


def _log_frames(error: BaseException) -> None:
    """Log types and frames of an exception and its causes, without their messages."""
    current: BaseException | None = error
    while current is not None and log.isEnabledFor(logging.DEBUG):
        frames = "".join(traceback.format_tb(current.__traceback__))
        log.debug("%s raised at\n%s", type(current).__name__, frames)
        current = current.__cause__ or current.__context__


def leave(code: int) -> NoReturn:
    """End the process at once with an exit code.

    All results are published and all children are gone when a command returns; tearing torch down
    would take 0.6 s more for nothing.
    """
    logging.shutdown()
    with suppress(OSError):  # a closed pipe: whoever read it has seen enough
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)

"""Converts unexpected exceptions, so that a bug affects only one series or instance.

    with setting_aside():
        ...                      # any unexpected exception becomes an InternalFaultError

The error states only type and place of the exception: its message may quote the header of an image.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stillscan.operators.errors import StillscanError

log = logging.getLogger("stillscan")

OURS = Path(__file__).resolve().parents[1]


class InternalFaultError(StillscanError):
    """A bug: one series or instance is refused; the others continue."""

    reason = "internal-fault"


@contextmanager
def setting_aside(*passing: type[Exception]) -> Iterator[None]:
    """Convert unexpected exceptions inside the block to an `InternalFaultError`.

    Args:
        passing: exceptions that are not converted, as they concern more than one series.

    Raises:
        InternalFaultError: instead of any other exception that is not a StillscanError.
    """
    try:
        yield
    except StillscanError:
        raise
    except passing:
        raise
    except Exception as error:
        log_frames(error)
        raise InternalFaultError(f"{kind_and_place(error)}: this is a bug") from error


def kind_and_place(error: BaseException) -> str:
    """Type and place of an exception, such as `TypeError at operators/volume.py:12`."""
    place = "an unknown place"
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(OURS) and "site-packages" not in path.parts[len(OURS.parts) :]:
            place = f"{path.relative_to(OURS)}:{frame.lineno}"
    return f"{type(error).__name__} at {place}"


def log_frames(error: BaseException) -> None:
    """Log types and frames of an exception and its causes, without their messages."""
    current: BaseException | None = error
    while current is not None and log.isEnabledFor(logging.DEBUG):
        frames = "".join(traceback.format_tb(current.__traceback__))
        log.debug("%s raised at\n%s", type(current).__name__, frames)
        current = current.__cause__ or current.__context__

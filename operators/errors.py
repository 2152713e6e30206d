"""The tree of errors: each has a stable reason code, speaks to who must act, names no patient.

StillscanError
├── InputError          the input cannot be processed as it is (a file or a series is refused)
├── NothingToDoError    no series in the input that the selection rules choose
├── ModelError          the network cannot be loaded or run
├── OutputError         the result cannot be written
└── SettingsError       the settings are wrong
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process says to whoever started it (documented in the README)."""

    DERIVED = 0
    INTERNAL_FAULT = 1
    USAGE = 2
    NOTHING_TO_DO = 3
    BAD_INPUT = 4
    PARTLY_DERIVED = 5
    MODEL_FAULT = 6
    OUTPUT_FAULT = 7


class StillscanError(Exception):
    """Root of all errors that we raise on purpose.

    `reason` is a stable code (kebab-case) that logs, `result.json` and the gateway carry.
    """

    reason: ClassVar[str] = "internal-fault"
    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_FAULT


class InputError(StillscanError):
    """A file or a series cannot be processed as it is; it is refused, the others go on."""

    reason = "bad-input"
    exit_code = ExitCode.BAD_INPUT


class NothingToDoError(StillscanError):
    """The input holds no series that the selection rules choose."""

    reason = "nothing-to-do"
    exit_code = ExitCode.NOTHING_TO_DO


class ModelError(StillscanError):
    """The network cannot be loaded or run."""

    reason = "model-fault"
    exit_code = ExitCode.MODEL_FAULT


class OutputError(StillscanError):
    """The result cannot be written: the run ends and leaves nothing."""

    reason = "output-fault"
    exit_code = ExitCode.OUTPUT_FAULT


class SettingsError(StillscanError):
    """The settings or the arguments are wrong."""

    reason = "bad-settings"
    exit_code = ExitCode.USAGE

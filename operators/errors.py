"""The tree of errors: each has a stable reason code, speaks to the person who must act, names no patient.

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

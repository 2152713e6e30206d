import logging
import signal

import pytest

from stillscan.app.exit_status import Stopped, exit_code_of, stopping_on_signals
from stillscan.operators.errors import (
    ExitCode,
    InputError,
    ModelError,
    NothingToDoError,
    OutputError,
    SettingsError,
    StillscanError,
)


def failing(error: BaseException):
    def action() -> ExitCode:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("s"), 2),
        (NothingToDoError("n"), 3),
        (InputError("i"), 4),
        (ModelError("m"), 6),
        (OutputError("o"), 7),
        (ValueError("v"), 1),
    ],
)
def test_each_branch_of_the_errors_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code_of(failing(error)) == code


def test_an_expected_error_is_one_line_with_reason_and_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exit_code_of(failing(OutputError("no room left")))
    assert caplog.messages == ["output-fault: no room left"]


def test_an_unexpected_error_is_one_line_with_its_place_and_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exit_code_of(failing(ValueError("bad value CANARY^NAME")))
    (line,) = caplog.messages
    assert line.startswith("internal-fault: ValueError at tests/app/test_faults.py:")
    assert "CANARY" not in line


def test_frames_are_shown_at_level_debug_without_messages(
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "^".join(["CANARY", "CAUSE"])
    try:
        raise KeyError(name)
    except KeyError as cause:
        error = StillscanError("readable")
        error.__cause__ = cause
    with caplog.at_level(logging.DEBUG, "stillscan"):
        exit_code_of(failing(error))
    assert "test_faults.py" in caplog.text
    assert "KeyError raised at" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_its_own_exit_code(number: signal.Signals) -> None:
    def action() -> ExitCode:
        signal.raise_signal(number)
        return ExitCode.DERIVED

    assert exit_code_of(action) == 128 + number


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), stopping_on_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before

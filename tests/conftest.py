"""What every test may ask for: the development data, and the Debian tools of the test bench.

Tests run in any order (pytest-randomly), and several at a time (pytest-xdist).
"""

import gc
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_TOOLS = os.environ.get("STILLSCAN_REQUIRE_TOOLS") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays, so Python need not look through it for what is no longer used."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def same_random_numbers() -> None:
    """Let torch draw the same numbers in every test, whichever ran before."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    same_random_numbers()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    same_random_numbers()


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Take back what a command run in the test's own process sets up: level, handlers, warnings."""
    loggers = [logging.getLogger(name) for name in ("stillscan", "pydicom")]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    show_warning = warnings.showwarning
    yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers
    warnings.showwarning = show_warning


def need(condition: bool, reason: str) -> None:
    """Skip the test with a reason; where the tools are required, fail it instead."""
    if not condition:
        if REQUIRE_TOOLS:
            pytest.fail(f"{reason}; STILLSCAN_REQUIRE_TOOLS=1 does not allow a skip")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def stillscan_data() -> Path:
    """The folder with `dev` and `bad`: real series and bad inputs."""
    data = os.environ.get("STILLSCAN_DATA", "")
    need(bool(data), "STILLSCAN_DATA is not set: the development data is not on this machine")
    need((Path(data) / "dev").is_dir(), f"STILLSCAN_DATA={data} holds no folder 'dev'")
    return Path(data)


@pytest.fixture(scope="session")
def tool():
    """`tool("dciodvfy")` gives the path of a Debian tool, or skips with the reason."""

    def find(name: str) -> str:
        # /usr/bin first: pynetdicom installs a storescp of its own into the environment
        path = shutil.which(name, path="/usr/bin:/usr/sbin") or shutil.which(name)
        need(path is not None, f"{name} is not installed (see .ci/run for the Debian packages)")
        assert path is not None
        return path

    return find

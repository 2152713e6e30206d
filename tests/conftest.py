"""What every test may ask for: the development data, and the Debian tools of the test bench."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REQUIRE_TOOLS = os.environ.get("STILLSCAN_REQUIRE_TOOLS") == "1"


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

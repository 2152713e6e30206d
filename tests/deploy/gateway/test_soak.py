"""The gateway's promises in their quick form: real processes, a real PACS, real faults.

Each scenario runs inside network and mount namespaces of its own; `make soak` runs the full form.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.robustness.soak.__main__ import SCENARIOS

ROOT = Path(__file__).resolve().parents[3]
LONGEST_S = 600
AT_ONCE = 3  # most of a scenario is waiting

pytestmark = [pytest.mark.tools, pytest.mark.slow]

Runs = dict[str, Future[subprocess.CompletedProcess[str]]]


def run(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.robustness.soak", "--quick", "--only", name]
    command += ["--work", str(folder / "work"), "--out", str(folder / f"{name}.json")]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("soak")


@pytest.fixture(scope="module")
def runs(folder: Path, tool, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """The scenarios that this session asks for; they begin together, some at a time."""
    for program in ("unshare", "ip", "Orthanc", "dcmsend"):
        tool(program)
    of_this_file = [item for item in request.session.items if item.path == request.path]
    asked = {item.callspec.params["name"] for item in of_this_file}  # type: ignore[attr-defined]
    pool = ThreadPoolExecutor(AT_ONCE)
    # the last of the list take longest
    yield {name: pool.submit(run, name, folder) for name in reversed(SCENARIOS) if name in asked}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_gateway_keeps_its_promises(name: str, folder: Path, runs: Runs) -> None:
    done = runs[name].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken" not in json.loads((folder / f"{name}.json").read_text())["scenarios"][name]

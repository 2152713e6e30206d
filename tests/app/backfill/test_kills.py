"""Real workers on Ray; some of them, and the command itself, end with `kill -9`."""

import csv
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.app.backfill.in_process import derived_in
from tests.conftest import need
from tests.series_factory import make_series

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SERIES, SLICES = 12, 2
PATIENCE_S = 240.0
CLUSTER = (
    "import os, ray; c = ray.init(address='local', num_cpus=2, include_dashboard=False, "
    "log_to_driver=False); print(c.address_info['gcs_address'], flush=True); input()"
)
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve series."""
    need(importlib.util.find_spec("ray") is not None, "Ray (the extra `backfill`) is not installed")
    folder = tmp_path_factory.mktemp("archive")
    for seed in range(SERIES):
        make_series(folder / str(seed), seed=seed, slices=SLICES)
    return folder


@pytest.fixture
def cluster() -> Iterator[str]:
    """The address of a Ray with two cores that outlives its users."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **QUIET},
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("\n")


def start(*arguments: object, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from stillscan.app.cli import main; main()", "backfill"]
    options = ["--mode", "identity", "--workers", "2"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, *map(str, arguments), *options],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )


def wait_for(true: Callable[[], bool], run: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        try:
            if child.cmdline()[0].startswith("ray::OwnProcess.process"):
                found.append(child)
        except (psutil.NoSuchProcess, IndexError):
            pass
    return found


def listening_addresses(process: psutil.Process) -> set[str]:
    """Where a process and its children take connections."""
    return {
        connection.laddr.ip
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def assert_complete(dest: Path) -> None:
    """Every series once, every instance once, and the table says so."""
    folders = derived_in(dest)
    assert len(folders) == SERIES
    assert len({name.partition("/")[2] for name in folders}) == SERIES
    instances = [uid for each in folders.values() for uid in each]
    assert len(instances) == len(set(instances)) == SERIES * SLICES
    state = dest / ".stillscan-backfill"
    with (state / "series.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["state"] for row in rows} == {"derived"}
    assert {row["derived"] for row in rows} == {name.partition("/")[2] for name in folders}
    assert not list((state / "work").iterdir())


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    archive: Path, cluster: str, tmp_path: Path
):
    dest, log = tmp_path / "out", tmp_path / "log"
    run = start(archive, dest, "--ray", cluster, log=log, **QUIET)
    wait_for(lambda: len(derived_in(dest)) >= SERIES // 3, run, log)
    (head,) = [each for each in psutil.Process().children() if CLUSTER in each.cmdline()]
    wait_for(lambda: bool(workers_of(head)), run, log)
    workers_of(head)[0].kill()
    assert run.wait(PATIENCE_S) == 0, log.read_text()
    assert_complete(dest)
    assert "1 workers replaced" in log.read_text()


def test_a_killed_run_goes_on_where_it_was(archive: Path, tmp_path: Path):
    dest, log = tmp_path / "out", tmp_path / "log"
    run = start(archive, dest, log=log)
    wait_for(lambda: len(derived_in(dest)) >= SERIES // 3, run, log)
    listening = listening_addresses(psutil.Process(run.pid))
    run.kill()
    assert run.wait() == -signal.SIGKILL
    resumed = start(archive, dest, "--resume", log=log)
    assert resumed.wait(PATIENCE_S) == 0, log.read_text()
    assert_complete(dest)
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, "Ray can be reached from outside"
    assert listening
    assert f"{SERIES} of {SERIES} series; {SERIES} of them" not in log.read_text()

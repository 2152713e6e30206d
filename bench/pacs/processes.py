"""The gateway and Orthanc as processes that can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import Places

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 60.0


def wait_until(true: Callable[[], bool], timeout_s: float, what: str, every_s: float = 0.1) -> None:
    """Wait until `true()`.

    Raises:
        TimeoutError: names `what` did not happen in time.
    """
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


def listens(port: int) -> bool:
    """Return whether something accepts connections on this loopback port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Gateway:
    """`stillscan-gateway serve` with settings of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Write the settings; `folder` holds settings, data and log."""
        folder.mkdir(parents=True, exist_ok=True)
        self.places = Places(folder / "data")
        self.log_file = folder / "gateway.log"
        self._config = folder / "gateway.yaml"
        self._config.write_text(yaml.safe_dump({"data": str(self.places.data), **settings}))
        self._process: subprocess.Popen[bytes] | None = None
        self._overview: Overview | None = None

    def __enter__(self) -> Gateway:
        """Start the gateway and wait until it receives."""
        self.start_and_listen()
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill the gateway."""
        self.kill()

    @property
    def overview(self) -> Overview:
        """Overview of the gateway's record."""
        if self._overview is None:
            self._overview = Overview(self.places)
        return self._overview

    def start(self) -> None:
        """Start the service."""
        command = [
            sys.executable,
            "-m",
            "stillscan.deploy.gateway.cli",
            "serve",
            "-c",
            str(self._config),
        ]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log)

    def start_and_listen(self, port: int = 11112) -> None:
        """Start the service and wait until it receives."""
        self.start()
        wait_until(lambda: listens(port), START_S, "the gateway receives")

    def parts(self) -> dict[str, psutil.Process]:
        """Return the running processes of the gateway."""
        assert self._process is not None, "the gateway was started"
        found = {}
        try:
            for child in psutil.Process(self._process.pid).children():
                line = child.cmdline()
                if "stillscan.deploy.gateway.processes" in line:
                    found[line[-1]] = child
        except psutil.NoSuchProcess:
            pass
        return found

    def kill_part(self, name: str) -> bool:
        """Kill one process (`kill -9`); return False if it is not running."""
        part = self.parts().get(name)
        if part is None:
            return False
        part.kill()
        return True

    def kill(self) -> None:
        """Kill the supervisor (`kill -9`); the other processes notice and exit."""
        if self._process is not None:
            parts = list(self.parts().values())
            self._process.kill()
            self._process.wait()
            psutil.wait_procs(parts, timeout=10)

    def stop(self, timeout_s: float = 120.0) -> int:
        """Send SIGTERM, wait until the gateway has finished, and return its exit status."""
        assert self._process is not None, "the gateway was started"
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log so far; lines that are not JSON were printed by a library."""
        lines = []
        for line in self.log_file.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"message": line, "level": "stray"})
        return lines

    def is_idle(self) -> bool:
        """Return whether nothing is waiting or running."""
        counts = self.overview.counts()
        busy_jobs = counts.jobs.get("queued", 0) + counts.jobs.get("running", 0)
        busy = counts.pending_deliveries
        return not (counts.open_series or counts.unfiled or busy_jobs or busy)


@dataclass
class Orthanc:
    """Orthanc on loopback; use it in a network namespace, as it listens on all addresses."""

    program: str
    folder: Path
    http_port: int = 8042
    dicom_port: int = 4242

    def __post_init__(self) -> None:
        """Write the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False,
            "RemoteAccessAllowed": False,
            "DicomThreadsCount": 8,
            "SyncStorageArea": False,
            "Plugins": ["/usr/share/orthanc/plugins"],
        }
        (self.folder / "orthanc.json").write_text(json.dumps(settings))

    def start(self) -> None:
        """Start Orthanc and wait until it answers."""
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, str(self.folder / "orthanc.json")],
                stdout=log,
                stderr=log,
                env=os.environ | {"TCP_NODELAY": "1"},  # dcmtk waits 40 ms per instance without
            )
        wait_until(self._answers, START_S, "Orthanc answers")

    def kill(self) -> None:
        """Kill Orthanc (`kill -9`)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Make Orthanc hang: it accepts connections and does not answer."""
        assert self._process is not None, "Orthanc was started"
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Make Orthanc answer again."""
        assert self._process is not None, "Orthanc was started"
        self._process.send_signal(signal.SIGCONT)

    def get(self, path: str) -> Any:
        """Return an answer of Orthanc's REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=60) as got:
            return json.loads(got.read())

    def series(self) -> dict[str, int]:
        """Return the number of instances of each series, by SeriesInstanceUID."""
        return {
            each["MainDicomTags"]["SeriesInstanceUID"]: len(each["Instances"])
            for each in self.get("/series?expand")
        }

    def _answers(self) -> bool:
        assert self._process is not None, "Orthanc was started"
        if self._process.poll() is not None:
            raise RuntimeError(f"Orthanc ended; see {self.folder / 'orthanc.log'}")
        try:
            self.get("/system")
        except (urllib.error.URLError, OSError):
            return False
        return True

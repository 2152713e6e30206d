"""Orthanc's script while the gateway is away: `python -m tests.deploy.gateway.orthanc_script WORK`.

Inside a network namespace of its own, since Orthanc listens on all addresses.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from bench.demo.demo_pacs import pacs
from bench.pacs import namespace
from bench.pacs.processes import wait_until
from bench.robustness.network_abuse import free_port
from tests.deploy.gateway.listening import receiving
from tests.series_factory import make_series

PATIENCE_S = 60.0


def main(work: Path) -> None:
    """Raises where what the gateway could not take does not come when it can."""
    files = make_series(work / "series", slices=3)
    orthanc, port = pacs(work), free_port()
    configuration = orthanc.folder / "orthanc.json"
    settings = json.loads(configuration.read_text())
    settings["DicomModalities"]["stillscan"][2] = port
    settings["ExecuteLuaEnabled"] = True
    configuration.write_text(json.dumps(settings))
    orthanc.start()
    try:
        dcmsend = shutil.which("dcmsend", path="/usr/bin") or ""
        subprocess.run(
            [dcmsend, "-aec", "ORTHANC", "127.0.0.1", "4242", *map(str, files)], check=True
        )
        wait_until(
            lambda: [job["State"] for job in orthanc.get("/jobs?expand")] == ["Failure"],
            PATIENCE_S,
            "the job fails while the gateway is away",
        )
        with receiving(work / "data", port=port) as listening:
            execute(b"OnHeartBeat()")  # Orthanc 1.10 has no heart beat of its own
            wait_until(lambda: len(listening.files()) == 3, PATIENCE_S, "the series comes")
    finally:
        orthanc.kill()


def execute(script: bytes) -> None:
    """Let Orthanc run a line of Lua."""
    request = urllib.request.Request("http://127.0.0.1:8042/tools/execute-script", data=script)
    urllib.request.urlopen(request, timeout=30).close()


if __name__ == "__main__":
    namespace.enter(["tests.deploy.gateway.orthanc_script", *sys.argv[1:]])
    main(Path(sys.argv[1]))

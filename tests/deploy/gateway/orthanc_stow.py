"""A real Orthanc sends a series by STOW-RS: `python -m tests.deploy.gateway.orthanc_stow WORK`.

Inside a network namespace of its own, since Orthanc listens on all addresses.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from bench.pacs import namespace
from bench.pacs.processes import Orthanc
from tests.deploy.gateway.listening import encoded
from tests.deploy.gateway.serving import TOKEN, serving
from tests.series_factory import make_series


def main(work: Path) -> None:
    """Raises where something does not arrive as it was."""
    files = make_series(work / "series", slices=5)
    with serving(work / "web") as web:
        orthanc = Orthanc(shutil.which("Orthanc", path="/usr/sbin:/usr/bin") or "", work / "pacs")
        name_server(orthanc.folder / "orthanc.json", web.address)
        orthanc.start()
        try:
            dcmsend = shutil.which("dcmsend", path="/usr/bin") or ""
            subprocess.run(
                [dcmsend, "-aec", "ORTHANC", "127.0.0.1", "4242", *map(str, files)], check=True
            )
            (series,) = post("/tools/find", {"Level": "Series", "Query": {}})
            answer = post("/dicom-web/servers/gateway/stow", {"Resources": [series]})
            assert int(answer["InstancesCount"]) == len(files), answer
        finally:
            orthanc.kill()
        kept = {encoded(file.read_bytes()) for file in web.places.incoming.glob("*.dcm")}
    assert kept == {encoded(file.read_bytes()) for file in files}


def name_server(configuration: Path, address: str) -> None:
    """Tell Orthanc where the gateway is, and the token."""
    settings = json.loads(configuration.read_text())
    server = {"Url": f"{address}/", "HttpHeaders": {"Authorization": f"Bearer {TOKEN}"}}
    settings["DicomWeb"] = {"Servers": {"gateway": server}}
    configuration.write_text(json.dumps(settings))


def post(path: str, body: object) -> Any:
    """An answer of Orthanc's REST interface."""
    request = urllib.request.Request(
        f"http://127.0.0.1:8042{path}", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


if __name__ == "__main__":
    namespace.enter(["tests.deploy.gateway.orthanc_stow", *sys.argv[1:]])
    main(Path(sys.argv[1]))

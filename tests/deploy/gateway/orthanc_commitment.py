"""Orthanc confirms deliveries: `python -m tests.deploy.gateway.orthanc_commitment WORK`.

Inside a network namespace of its own, since Orthanc listens on all addresses.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

from bench.demo.demo_pacs import pacs
from bench.pacs import namespace
from bench.pacs.processes import wait_until
from stillscan.deploy.gateway.receiver.receiver import reports_to
from stillscan.deploy.gateway.settings import Destination
from tests.deploy.gateway.listening import HOST, receiving
from tests.deploy.gateway.test_commitment import Sending

PORT = 11112


def main(work: Path) -> None:
    """Raises where a delivery does not end as it should."""
    orthanc = pacs(work)
    configuration = orthanc.folder / "orthanc.json"
    settings = json.loads(configuration.read_text())
    settings["DicomModalities"]["stillscan"] = ["STILLSCAN", HOST, PORT]
    settings.pop("LuaScripts", None)
    configuration.write_text(json.dumps(settings))
    orthanc.start()
    destination = Destination(
        "pacs",
        "c-store",
        host=HOST,
        port=orthanc.dicom_port,
        ae_title="ORTHANC",
        confirmation="storage-commitment",
    )
    web = Destination("pacs", "stow-rs", url=f"http://{HOST}:8042/dicom-web", confirmation="query")
    try:
        sending = Sending(work / "confirmed")
        report = reports_to(sending.outbox, sending.settings)
        with receiving(work / "in", report=report, port=PORT):
            sending.to(destination)
            wait_until(lambda: sending.delivery().state == "sent", 60, "Orthanc commits")
        assert sending.delivery().attempts == 1
        # with nobody to report to, Orthanc confirms nothing
        never = Sending(work / "never", confirm_s=0.0)
        assert never.to(destination).state == "unconfirmed"
        assert never.to(replace(destination, port=1)).reason == "unreachable"
        listed = Sending(work / "listed")
        assert listed.to(web).state == "sent"
        assert sum(orthanc.series().values()) == 3
        for each in orthanc.get("/instances"):
            urllib.request.urlopen(
                urllib.request.Request(f"http://{HOST}:8042/instances/{each}", method="DELETE"),
                timeout=30,
            ).close()
    finally:
        orthanc.kill()


if __name__ == "__main__":
    namespace.enter(["tests.deploy.gateway.orthanc_commitment", *sys.argv[1:]])
    main(Path(sys.argv[1]))

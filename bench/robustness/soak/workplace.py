"""Common parts of the scenarios: folder, size, gateway, PACS and promises."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.pacs.processes import Gateway, Orthanc
from bench.pacs.scanner import Sender
from stillscan.deploy.gateway.record.overview import JobRow

PORT = 11112
Figures = dict[str, Any]

# a hospital waits a minute for the next slice; tests wait shorter
HASTY = {"quiet-s": 2.0, "settled-s": 0.5, "patience-s": 60.0}
ORTHANC = {
    "name": "pacs",
    "kind": "c-store",
    "host": "127.0.0.1",
    "port": 4242,
    "ae-title": "ORTHANC",
}
# identity: all but the network, which is not tested here
TO_PACS = [{"name": "all", "mode": "identity", "destinations": ["pacs"]}]


class BrokenPromiseError(AssertionError):
    """The gateway broke a promise."""


def promise(holds: bool, fact: str) -> None:
    """Check a promise.

    Raises:
        BrokenPromiseError: names it.
    """
    if not holds:
        raise BrokenPromiseError(fact)


@dataclass(frozen=True)
class Workplace:
    """The folder of one scenario and its size.

    Attributes:
        full: all of it, or as much as a test run has time for.
    """

    folder: Path
    full: bool

    def gateway(self, name: str = "gateway", **sections: Any) -> Gateway:
        """Return a gateway that is not started yet; names of sections use `_` for `-`."""
        settings: Mapping[str, Any] = {
            "completeness": HASTY,
            "destinations": [ORTHANC],
            "rules": TO_PACS,
            **{key.replace("_", "-"): value for key, value in sections.items()},
        }
        return Gateway(self.folder / name, settings)

    def orthanc(self) -> Orthanc:
        """Return a PACS that is not started yet."""
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/bin")
        promise(program is not None, "Orthanc is installed (see .ci/run)")
        return Orthanc(str(program), self.folder / "orthanc")

    def dcmsend(self) -> str:
        """Return the program of dcmtk."""
        program = shutil.which("dcmsend", path="/usr/bin:/usr/local/bin")
        promise(program is not None, "dcmtk is installed (see .ci/run)")
        return str(program)


def sender(**arguments: Any) -> Sender:
    """Return a sender to the gateway."""
    return Sender("127.0.0.1", PORT, **arguments)


def last_job(gateway: Gateway, series_uid: str) -> JobRow | None:
    """Return the last job of a series, or None."""
    jobs = [
        each
        for each in gateway.overview.recent_jobs(100_000)
        if each.series_instance_uid == series_uid
    ]
    return jobs[0] if jobs else None


def has_ended(job: JobRow | None) -> bool:
    """Return whether a job exists and has ended."""
    return job is not None and job.state not in ("queued", "running")

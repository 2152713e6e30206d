"""Health checks of the gateway.

    /livez    the web process answers
    /readyz   no heartbeat is overdue (`heartbeat.py`), the receiver's port is open, the record can
              be read, the disk has room, no certificate has expired

A restart does not help against a full disk, so only /readyz reports it.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from stillscan.deploy.gateway.certificates import expires_at, tls_sections
from stillscan.deploy.gateway.heartbeat import seconds_late
from stillscan.deploy.gateway.processes import PARTS
from stillscan.deploy.gateway.receiver.spool import Spool
from stillscan.deploy.gateway.record.database import RecordDamagedError
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import GatewaySettings, Places

PROBE_S = 1.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class Health:
    """The checks; `ready` runs all of them."""

    def __init__(self, settings: GatewaySettings, overview: Overview, spool: Spool) -> None:
        """Nothing is checked yet."""
        self._settings = settings
        self._places = Places(settings.data)
        self._overview = overview
        self._spool = spool

    def ready(self) -> dict[str, bool]:
        """Results of the checks, by name; True: passed."""
        # the supervisor creates these files; in tests the web process runs without one
        parts = [part for part in PARTS if self._places.heartbeat(part).exists()]
        alive = {part: seconds_late(self._places, part) <= 0 for part in parts}
        return {
            **alive,
            # if another program holds the port, the receiver cannot start and has no heartbeat
            "receiver": alive.get("receiver", True) and self._receiver_listens(),
            "record": self._record_answers(),
            "disk": self._spool.has_room(),
            **{
                f"certificate of {place}": at > time.time()
                for place, at in certificates(self._settings)
            },
        }

    def _record_answers(self) -> bool:
        try:
            self._overview.counts()
        except (sqlite3.Error, RecordDamagedError):
            return False
        return True

    def _receiver_listens(self) -> bool:
        host, port = self._settings.receiver.host, self._settings.receiver.port
        try:
            socket.create_connection((WILDCARDS.get(host, host), port), PROBE_S).close()
        except OSError:
            return False
        return True


def certificates(settings: GatewaySettings) -> Iterator[tuple[str, float]]:
    """Name of the setting and expiry time (seconds since the epoch) of each own certificate.

    A certificate that cannot be read counts as expired (time 0).
    """
    for section, tls in tls_sections(settings):
        if tls.certificate is not None:
            yield section, _expires_at(tls.certificate)


def _expires_at(certificate: Path) -> float:
    try:
        return expires_at(certificate)
    except (OSError, ValueError):
        return 0.0

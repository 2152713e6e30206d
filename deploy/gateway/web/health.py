"""Whether the gateway is alive, and whether it does what it is there for.

    /livez    the web part answers: nothing that a restart would mend is wrong
    /readyz   every part keeps its promises (`heart.py`), the record answers, the disk has room, no
              certificate has expired

A full disk is no reason to restart anything: it is seen in /readyz alone.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from stillscan.deploy.gateway.certificates import expires_at
from stillscan.deploy.gateway.heart import late_s
from stillscan.deploy.gateway.processes import PARTS
from stillscan.deploy.gateway.receiver.spool import Spool
from stillscan.deploy.gateway.record.database import RecordDamagedError
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import GatewaySettings, Places

PROBE_S = 1.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class Health:
    """The checks; `ready` asks all of them."""

    def __init__(self, settings: GatewaySettings, overview: Overview, spool: Spool) -> None:
        """Of this gateway."""
        self._settings = settings
        self._places = Places(settings.data)
        self._overview = overview
        self._spool = spool

    def ready(self) -> dict[str, bool]:
        """Each check by its name."""
        # their supervisor makes the files: without one, the web part runs by itself
        parts = [part for part in PARTS if self._places.heart(part).exists()]
        alive = {part: late_s(self._places, part) <= 0 for part in parts}
        return {
            **alive,
            # its own loop owns the port: one that somebody else holds leaves it without a heart
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
    """Each certificate of ours by the place of its setting, and when it expires (epoch).

    One that cannot be read has expired long ago.
    """
    places = {"receiver": settings.receiver.tls, "web": settings.web.tls}
    places |= {f"destinations.{each.name}": each.tls for each in settings.destinations}
    for place, tls in places.items():
        if tls is not None and tls.certificate is not None:
            yield place, _expires_at(tls.certificate)


def _expires_at(certificate: Path) -> float:
    try:
        return expires_at(certificate)
    except (OSError, ValueError):
        return 0.0

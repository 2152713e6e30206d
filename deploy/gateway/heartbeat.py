"""Heartbeats: each part states the time by which its next heartbeat is due.

Before every step a part states how long the step may take. The due time is stored as the
modification time of a file, in seconds of the monotonic clock: this writes no data, so it works on
a full disk, and a change of the wall clock cannot hide that a part hangs.
"""

from __future__ import annotations

import math
import os
import threading
import time

from stillscan.deploy.gateway.settings import Places

LOOP_S = 10.0  # time limit of one round of a main loop


class Heartbeat:
    """The heartbeat of one part; safe to use from several threads."""

    def __init__(self, places: Places, part: str) -> None:
        """Create the file if it does not exist."""
        self._path = places.heartbeat(part)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}

    def beat(self, within_s: float = LOOP_S, loop: str = "") -> None:
        """Announce the next heartbeat of a loop; the part is as late as the latest of its loops.

        Args:
            within_s: seconds until the next heartbeat is due.
            loop: name of the loop, if the part has several.
        """
        with self._lock:
            self._due[loop] = time.monotonic() + within_s
            until_ns = int(min(self._due.values()) * 1e9)
            os.utime(self._path, ns=(until_ns, until_ns))

    def stop(self) -> None:
        """Withdraw the heartbeat: the part does not run, or has not reached its main loop."""
        with self._lock:
            self._due.clear()
            os.utime(self._path, ns=(0, 0))


def seconds_late(places: Places, part: str) -> float:
    """Seconds since the heartbeat of a part was due; infinite if it has not sent one yet."""
    try:
        until_ns = places.heartbeat(part).stat().st_mtime_ns
    except OSError:
        until_ns = 0
    return time.monotonic() - until_ns / 1e9 if until_ns else math.inf

"""Whether a part is alive: until when it has promised to be back at the head of its loop.

A part says before every step how long the step may take. The moment by which it will be back is
kept as the time of change of a file, by the monotonic clock: that writes nothing, so it works on a
full disk, and no wrong clock can keep a part alive that hangs.
"""

from __future__ import annotations

import math
import os
import threading
import time

from stillscan.deploy.gateway.settings import Places

LOOP_S = 10.0  # of a round in which nothing is done


class Heart:
    """The promises of one part; safe to use from several threads."""

    def __init__(self, places: Places, part: str) -> None:
        """The file is made where it is not there."""
        self._path = places.heart(part)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()
        self._lock = threading.Lock()
        self._promised: dict[str, float] = {}

    def beat(self, within_s: float = LOOP_S, loop: str = "") -> None:
        """Be back within so many seconds; the part is as late as the latest of its loops."""
        with self._lock:
            self._promised[loop] = time.monotonic() + within_s
            until_ns = int(min(self._promised.values()) * 1e9)
            os.utime(self._path, ns=(until_ns, until_ns))

    def stop(self) -> None:
        """The part does not run: it is late by all that there was."""
        with self._lock:
            self._promised.clear()
            os.utime(self._path, ns=(0, 0))


def late_s(places: Places, part: str) -> float:
    """Seconds since the part should have been back; infinite where it has promised nothing yet."""
    try:
        until_ns = places.heart(part).stat().st_mtime_ns
    except OSError:
        until_ns = 0
    return time.monotonic() - until_ns / 1e9 if until_ns else math.inf

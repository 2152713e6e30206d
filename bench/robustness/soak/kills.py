"""`kill -9` at random moments: no acknowledged instance is lost, none exists twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from bench.pacs.processes import Gateway, wait_until
from bench.pacs.scanner import make_series
from bench.robustness.soak.load import require_whole
from bench.robustness.soak.workplace import Figures, Workplace, promise, sender

# relative frequency of each; the worker needs some seconds to load torch
VICTIMS = {"receiver": 6, "sender": 6, "worker": 5, "planner": 3, "service": 1}


def kills(place: Workplace) -> Figures:
    """Kill receiver, planner, worker, sender and supervisor while series are received and sent."""
    count, slices, wanted = (60, 40, 60) if place.full else (8, 12, 8)
    series = [make_series(place.folder / "in" / str(n), n, slices, 128) for n in range(count)]
    orthanc = place.orthanc()
    orthanc.start()
    patient = {"attempts": 50, "backoff-s": 0.2}
    with place.gateway(worker=patient, sender=patient) as gateway:
        executioner = Executioner(gateway, wanted, seed=6)
        senders = [sender(timeout_s=5.0) for _ in range(4)]
        pause_s = 0.03 if place.full else 0.05  # so that the kills hit running transfers
        threads = [
            threading.Thread(
                target=each.send,
                args=([file for one in series[n::4] for file in one.files],),
                kwargs={"stored": lambda file: time.sleep(pause_s)},
            )
            for n, each in enumerate(senders)
        ]
        for thread in threads:
            thread.start()
        executioner.run()
        for thread in threads:
            thread.join()
        wait_until(gateway.is_idle, 900, "everything finishes", 0.5)
        lost = require_whole(gateway, orthanc, series)
        acknowledged = sum(len(each.acknowledged) for each in senders)
    orthanc.kill()
    promise(acknowledged == count * slices, "every instance was acknowledged in the end")
    return {
        "kills": dict(executioner.killed),
        "kills in all": sum(executioner.killed.values()),
        "instances": count * slices,
        "associations that broke": sum(each.breaks for each in senders),
        "acknowledged and lost": lost,
        "derived series": count,
        "in the PACS twice": 0,
        "partial in the PACS": 0,
    }


class Executioner:
    """Kills processes at random moments, `wanted` times."""

    def __init__(self, gateway: Gateway, wanted: int, seed: int) -> None:
        """Set the number of kills."""
        self.killed: Counter[str] = Counter()
        self._gateway = gateway
        self._wanted = wanted
        self._chance = random.Random(seed)

    def run(self) -> None:
        """Kill one process."""
        while sum(self.killed.values()) < self._wanted:
            time.sleep(self._chance.uniform(0.1, 2.5))
            (victim,) = self._chance.choices(list(VICTIMS), list(VICTIMS.values()))
            if victim == "service":
                self._gateway.kill()
                self._gateway.start()
                self.killed[victim] += 1
            elif self._gateway.kill_part(victim):
                self.killed[victim] += 1

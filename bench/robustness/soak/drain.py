"""SIGTERM: work in progress is finished, the rest waits, and the next start continues."""

from __future__ import annotations

import threading
import time

from bench.pacs.processes import wait_until
from bench.pacs.scanner import make_series
from bench.robustness.soak.load import require_whole
from bench.robustness.soak.workplace import Figures, Workplace, last_job, promise, sender


def drain(place: Workplace) -> Figures:
    """Stop the gateway while it receives, works and sends; then start it again."""
    count, slices = (12, 40) if place.full else (5, 16)
    series = [make_series(place.folder / "in" / str(n), n, slices, 128) for n in range(count)]
    late = make_series(place.folder / "in" / "late", 777, slices, 128)
    orthanc = place.orthanc()
    orthanc.start()
    with place.gateway() as gateway:
        for each in series:
            sender().send(each.files)
        wait_until(
            lambda: gateway.overview.counts().jobs.get("running", 0) > 0, 60, "a job runs", 0.02
        )
        (running,) = (each for each in gateway.overview.recent_jobs() if each.state == "running")
        slow = sender()
        receiving = threading.Thread(
            target=slow.send, args=(late.files,), kwargs={"stored": lambda file: time.sleep(0.1)}
        )
        receiving.start()
        wait_until(lambda: len(slow.acknowledged) > 0, 10, "an association is open", 0.01)
        began = time.monotonic()
        status = gateway.stop()
        took_s = time.monotonic() - began
        receiving.join(1.0)
        promise(status == 0, f"a drained gateway ends with 0, not {status}")
        promise(len(slow.acknowledged) == slices, "the association that was open came to its end")
        promise(slow.breaks == 0, "and was not broken")
        job = gateway.overview.job(running.number)
        promise(job is not None and job.state == "derived", "the job that ran came to its end")
        waiting = gateway.overview.counts().jobs.get("queued", 0)
        gateway.start_and_listen()
        wait_until(
            lambda: gateway.is_idle() and last_job(gateway, late.uid) is not None,
            300,
            "the rest is done after the next start",
        )
        require_whole(gateway, orthanc, [*series, late])
        attempts = [each.attempts for each in gateway.overview.recent_jobs()]
    orthanc.kill()
    promise(set(attempts) == {1}, "no job lost an attempt")
    return {
        "seconds to drain": round(took_s, 1),
        "jobs that waited for the next start": waiting,
        "attempts that were lost": 0,
    }

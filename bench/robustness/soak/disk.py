"""Full disk: senders get status 0xA700, stored files are complete, and reception resumes later."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from bench.pacs.namespace import small_disk
from bench.pacs.processes import wait_until
from bench.pacs.scanner import Sender, SentSeries, make_series
from bench.robustness.soak.workplace import HASTY, PORT, Figures, Workplace, promise

OUT_OF_RESOURCES = 0xA700


def disk_full(place: Workplace) -> Figures:
    """Fill a small disk with four associations, then enlarge it."""
    small, large = (96, 512) if place.full else (32, 160)
    count, slices = (12, 80) if place.full else (8, 32)
    series = [make_series(place.folder / "in" / str(n), n, slices) for n in range(count)]
    small_disk(place.folder / "gateway", small)
    out = place.folder / "out"
    gateway = place.gateway(
        completeness=HASTY | {"patience-s": 600.0},
        worker={"attempts": 50, "backoff-s": 1.0},
        destinations=[{"name": "out", "kind": "folder", "folder": str(out)}],
        rules=[{"name": "all", "mode": "identity", "destinations": ["out"]}],
    )
    with gateway:
        senders = [Sender("127.0.0.1", PORT) for _ in range(4)]
        _send_once(senders, series)
        refused = [status for each in senders for status in each.refused]
        acknowledged = {file for each in senders for file in each.acknowledged}
        promise(len(refused) > 0, "the disk is full before everything is sent")
        promise(set(refused) == {OUT_OF_RESOURCES}, "a full disk is answered with 0xA700 alone")
        whole = _require_intact(place, {file.read_bytes()[-100_000:] for file in acknowledged})
        subprocess.run(
            ["mount", "-o", f"remount,size={large}m", str(place.folder / "gateway")], check=True
        )
        _send_once(senders, series)
        promise(
            sum(len(each.acknowledged) for each in senders) == count * slices,
            "with room, everything is acknowledged",
        )
        wait_until(gateway.is_idle, 300, "everything finishes", 0.5)
        totals = gateway.overview.counts()
    derived = [len(list(folder.glob("*.dcm"))) for folder in out.iterdir()]
    promise(derived == [slices] * count, f"{count} whole series are derived, not {derived}")
    return {
        "instances": count * slices,
        "answered with 0xA700": len(refused),
        "acknowledged on the full disk": len(acknowledged),
        "of these intact": whole,
        "derived series with room": len(derived),
        "jobs": dict(totals.jobs),
    }


def _send_once(senders: list[Sender], series: list[SentSeries]) -> None:
    def send(number: int) -> None:
        files = [file for each in series[number :: len(senders)] for file in each.files]
        senders[number].send(files, again=lambda: False)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(len(senders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _require_intact(place: Workplace, ends: set[bytes]) -> int:
    """Check that every acknowledged instance is in the spool, with all its bytes."""
    found = instances_in(place.folder / "gateway" / "data")
    promise(ends <= found, f"{len(ends - found)} acknowledged instances are not in the spool")
    return len(ends & found)


def instances_in(spool: Path) -> set[bytes]:
    """Return the last bytes of all instances in the spool of a running gateway.

    Without room the record cannot be written either: some instances may wait to be filed, and each
    of them may be filed between the listing and the reading. They go from `incoming` to `instances`
    and never back, so who looks in this order misses none.

    Raises:
        FileNotFoundError: if an instance vanishes that was filed.
        InvalidDicomError: if one is not whole.
    """
    found = set()
    for waiting in spool.glob("incoming/[!.]*.dcm"):
        with suppress(FileNotFoundError):
            found.add(_end_of_whole(waiting))
    for filed in spool.glob("instances/*/*.dcm"):
        found.add(_end_of_whole(filed))
    return found


def _end_of_whole(file: Path) -> bytes:
    content = file.read_bytes()
    dcmread(BytesIO(content))
    return content[-100_000:]

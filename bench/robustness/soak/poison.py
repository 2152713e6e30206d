"""Hostile instances in the middle of the load: the good series are derived, no process restarts.

What is hostile: every kind of `bench.robustness.headers`, the files of `STILLSCAN_DATA/hostile`,
and files in `incoming` that the receiver did not write.
"""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np

from bench.pacs.processes import Gateway, wait_until
from bench.pacs.scanner import make_series
from bench.robustness.headers.__main__ import base_files
from bench.robustness.headers.kinds import KINDS, header_mutant
from bench.robustness.headers.tree import HeaderTree
from bench.robustness.soak.workplace import Figures, Workplace, last_job, promise, sender

UIDS = (b"\x02\0\x03\0UI", b"\x08\0\x18\0UI", b"\x20\0\x0e\0UI")  # of instance and series
WEB = "http://127.0.0.1:8080"
TOKEN = "poison"


def poison(place: Workplace) -> Figures:
    """Send hostile and good instances at the same time; retry what was quarantined."""
    count, slices, mutants = (40, 40, 4 * len(KINDS)) if place.full else (2, 8, 8)
    series = [make_series(place.folder / "in" / str(n), n, slices, 128) for n in range(count)]
    hostile = _hostile_files(place.folder / "hostile", mutants)
    out, token = place.folder / "out", place.folder / "token"
    token.write_text(TOKEN)
    gateway = place.gateway(
        web={"token-file": str(token)},
        destinations=[{"name": "out", "kind": "folder", "folder": str(out)}],
        rules=[{"name": "all", "mode": "identity", "destinations": ["out"]}],
    )
    with gateway:
        junk = ("0" * 32 + "-" + "0" * 24 + ".dcm", "junk.dcm", "notes.txt")
        for name in junk:
            (gateway.places.incoming / name).write_bytes(b"" if name[0] == "0" else b"junk")
        good, bad = sender(), sender()
        threads = [
            threading.Thread(target=bad.send, args=(hostile, lambda: False)),
            threading.Thread(
                target=good.send, args=([file for each in series for file in each.files],)
            ),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        promise(len(bad.acknowledged) == len(hostile), "every hostile instance is acknowledged")
        wait_until(gateway.is_idle, 900, "everything finishes", 0.5)
        set_aside = gateway.overview.quarantine.listed()
        promise(len(set_aside) == len(junk), f"junk alone is quarantined: {set_aside}")
        ended = _require_all_well(gateway, len(hostile) + count)
        for each in series:
            job = last_job(gateway, each.uid)
            derived = [] if job is None else list((out / job.derived_series_uid).glob("*.dcm"))
            promise(len(derived) == slices, f"series {each.uid} is delivered whole")
        for one in set_aside:
            _post(f"/quarantine/{one.name}/retry")
        wait_until(
            lambda: len(gateway.overview.quarantine.listed()) == len(junk),
            30,
            "what an operator files again, and still cannot be filed, is quarantined again",
        )
        _require_all_well(gateway, len(hostile) + count)
    return {
        "hostile instances": len(hostile),
        "good series derived and delivered": count,
        "quarantined": len(junk),
        "restarts of processes": 0,
        "how the series ended": dict(ended),
    }


def with_own_uids(content: bytes, number: int) -> bytes:
    """Give a file UIDs of instance and series that no other has: their last digits are changed."""
    for tag in UIDS:
        if found := re.search(re.escape(tag) + rb"..([0-9.]{20,})", content, re.DOTALL):
            content = content.replace(found[1], found[1][:-3] + b"%03d" % (100 + number))
    return content


def _hostile_files(folder: Path, mutants: int) -> list[Path]:
    folder.mkdir(parents=True)
    trees = [HeaderTree.of(each) for each in base_files(folder)]
    contents = [
        header_mutant(trees[n % len(trees)], kind, np.random.default_rng([1, n]))
        for n, kind in enumerate((list(KINDS) * 4)[:: 4 * len(KINDS) // mutants][:mutants])
    ]
    if "STILLSCAN_DATA" in os.environ:
        files = sorted(Path(os.environ["STILLSCAN_DATA"], "hostile").glob("*.dcm"))
        contents += [each.read_bytes() for each in files]
    written = []
    for number, content in enumerate(contents):
        written.append(folder / f"hostile-{number:03d}.dcm")
        written[-1].write_bytes(with_own_uids(content, number))
    return written


def _require_all_well(gateway: Gateway, series: int) -> Counter[str]:
    """Check that every series ended with a reason, and that the gateway is ready."""
    jobs = gateway.overview.recent_jobs(100_000)
    ended = Counter(each.reason or each.state for each in jobs)
    promise(len(jobs) >= series * 9 // 10, f"the series have jobs: {len(jobs)} of {series}")
    promise(not ended["internal-fault"], f"no series ends with a bug: {ended}")
    promise({each.state for each in jobs} <= {"derived", "refused", "not-selected"}, str(ended))
    restarts = [name for name in gateway.overview.counts().totals if name.endswith("_restarts")]
    promise(not restarts, f"no process was restarted, but {restarts}")
    with urllib.request.urlopen(f"{WEB}/readyz", timeout=10) as answer:  # 503 raises
        promise(json.load(answer)["status"] == "ok", "the gateway is ready")
    return ended


def _post(path: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    urllib.request.urlopen(
        urllib.request.Request(WEB + path, method="POST", headers=headers), timeout=10
    ).close()

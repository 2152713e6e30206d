"""Many instances at once: none is lost or mixed up, memory does not grow."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from statistics import median

import psutil

from bench.pacs.processes import Gateway, Orthanc, wait_until
from bench.pacs.scanner import SentSeries, dcmsend, make_series
from bench.robustness.soak.workplace import PORT, Figures, Workplace, promise
from stillscan.deploy.gateway.processes import PARTS

ASSOCIATIONS = 4
MIXED = 16
SIZES = {True: (100, 100), False: (10, 40)}  # series, slices of each; of the full form or not
WARM = 4
MEGABYTE = 1e6


def receiving(place: Workplace) -> Figures:
    """Send slices of 131 kB over four associations of dcmtk; they are stored and not processed."""
    count, slices = SIZES[place.full]
    series = [make_series(place.folder / "in" / str(n), n, slices) for n in range(count)]
    keep = [{"name": "keep", "process": False}]
    with place.gateway(rules=keep, destinations=[]) as gateway:
        dcmsend(place.dcmsend(), PORT, make_series(place.folder / "warm", 99_000, slices).files)
        wait_until(gateway.is_idle, 120, "the first series is filed")
        memory = Memory(gateway, ("receiver", "planner", "web"))  # the worker still loads torch
        received_s = _receive(place, series)
        wait_until(gateway.is_idle, 300, "everything is filed", 0.5)
        memory.sample()
        jobs = gateway.overview.recent_jobs(100_000)
        lost = _require_in_spool(gateway, series)
    promise(len(jobs) == count + 1, f"there are {count + 1} jobs, not {len(jobs)}")
    promise({each.instances for each in jobs} == {slices}, "each series is whole")
    rate = count * slices / received_s
    # a test runs beside other things, the full form has the machine to itself
    promise(rate >= 100 or not place.full, f"100 instances per second are received, not {rate:.0f}")
    return {
        "slices": count * slices,
        "associations": ASSOCIATIONS,
        "instances received per second": round(rate),
        "lost": lost,
        "memory growth MB": round(memory.growth(), 1),
        "memory MB": {name: round(value) for name, value in memory.last().items()},
    }


def throughput(place: Workplace) -> Figures:
    """Do the same while every series is derived and delivered."""
    count, slices = SIZES[place.full]
    series = [make_series(place.folder / "in" / str(n), n, slices) for n in range(count)]
    orthanc = place.orthanc()
    orthanc.start()
    with place.gateway() as gateway:
        warm_up(place, gateway, slices)
        memory = Memory(gateway)
        began = time.monotonic()
        received_s = _receive(place, series)
        wait_until(
            lambda: memory.sample() and _delivered(gateway) >= count + WARM,
            60 + 0.5 * count * slices,
            f"{count} series are delivered",
            every_s=0.5,
        )
        took_s = time.monotonic() - began
        lost = require_whole(gateway, orthanc, series)
        growth = memory.growth()
    orthanc.kill()
    if place.full:  # a few series are too short a run: whether the worker is at work decides
        promise(growth < 50, f"memory grows by less than 50 MB, not by {growth:.0f}: {memory}")
    return {
        "slices": count * slices,
        "associations": ASSOCIATIONS,
        "instances received per second": round(count * slices / received_s),
        "lost": lost,
        "seconds until all are delivered": round(took_s),
        "memory growth MB": round(growth, 1),
        "memory MB": {name: round(value) for name, value in memory.last().items()},
    }


def mixed(place: Workplace) -> Figures:
    """Send slices of all series over each of sixteen associations; series must not mix."""
    slices = 48 if place.full else 16
    series = [make_series(place.folder / "in" / str(n), n, slices) for n in range(MIXED)]
    shares: dict[int, list[Path]] = defaultdict(list)
    for number, each in enumerate(series):
        for index, file in enumerate(each.files):
            shares[(number + index) % MIXED].append(file)
    orthanc = place.orthanc()
    orthanc.start()
    with place.gateway() as gateway:
        began = time.monotonic()
        # by slice, so that each association goes round all series
        in_turns = [sorted(share, key=lambda file: file.name[6:]) for share in shares.values()]
        _in_parallel(place.dcmsend(), in_turns)
        received_s = time.monotonic() - began
        wait_until(lambda: _delivered(gateway) >= MIXED, 600, "all series are delivered", 0.5)
        lost = require_whole(gateway, orthanc, series)
    orthanc.kill()
    return {
        "associations at once": MIXED,
        "series in each": MIXED,
        "slices": MIXED * slices,
        "instances received per second": round(MIXED * slices / received_s),
        "lost": lost,
        "crossed over": 0,
    }


def warm_up(place: Workplace, gateway: Gateway, slices: int) -> None:
    """Send some series first, so that everything is loaded before memory is compared."""
    for number in range(WARM):
        first = make_series(place.folder / "warm", 99_000 + number, slices)
        dcmsend(place.dcmsend(), PORT, first.files)
    wait_until(lambda: _delivered(gateway) >= WARM, 300, "the first series are delivered")


def require_whole(gateway: Gateway, orthanc: Orthanc, series: list[SentSeries]) -> int:
    """Check that every series has one derived series in the PACS, with all its slices.

    Returns:
        Zero: how many source instances have no derived one.

    Raises:
        BrokenPromiseError: names the first series that is not so.
    """
    jobs = gateway.overview.recent_jobs(100_000)
    derived_of = {each.series_instance_uid: each for each in jobs if each.state == "derived"}
    there = sources_in(orthanc)
    for each in series:
        job = derived_of.get(each.uid)
        promise(job is not None, f"series {each.uid} is derived")
        assert job is not None
        patient, sources = there.get(job.derived_series_uid, (set(), []))
        promise(sorted(sources) == sorted(each.sop_uids), f"{each.uid} has all its slices once")
        promise(len(patient) == 1, f"{each.uid} is of one patient")
    known = {each.derived_series_uid for each in derived_of.values()}
    promise(set(there) <= known, "nothing is in the PACS that no job has derived")
    promise(len(derived_of) == len(jobs), "every job ended with a derived series")
    return 0


def sources_in(orthanc: Orthanc) -> dict[str, tuple[set[str], list[str]]]:
    """Return patients and source UIDs of each series in the PACS, by SeriesInstanceUID."""
    found = {}
    for each in orthanc.get("/series?expand"):
        tags = orthanc.get(f"/series/{each['ID']}/instances-tags?simplify").values()
        found[each["MainDicomTags"]["SeriesInstanceUID"]] = (
            {tag["PatientID"] for tag in tags},
            [tag["SourceImageSequence"][0]["ReferencedSOPInstanceUID"] for tag in tags],
        )
    return found


class Memory:
    """Resident memory of processes and their children, sampled while they work."""

    def __init__(self, gateway: Gateway, parts: Sequence[str] = PARTS) -> None:
        """Start with these processes; the first sample is taken at once."""
        self._gateway = gateway
        self._parts = parts
        self._samples = [self._now()]

    def __str__(self) -> str:
        """Return first and last sample."""
        first, last = self._samples[0], self.last()
        return ", ".join(f"{name} {first[name]:.0f} to {last.get(name, 0):.0f}" for name in first)

    def sample(self) -> bool:
        """Take a sample and return True."""
        self._samples.append(self._now())
        return True

    def last(self) -> dict[str, float]:
        """Return MB of each process."""
        return self._samples[-1]

    def growth(self) -> float:
        """Return the growth in MB of all processes: medians of the last and first samples.

        A worker has some blocks of a series in memory while it works, and none before.
        """
        fifth = max(len(self._samples) // 5, 1)
        first, last = self._samples[:fifth], self._samples[-fifth:]
        return _median_of_sums(last) - _median_of_sums(first)

    def _now(self) -> dict[str, float]:
        return {
            name: _resident(part)
            for name, part in self._gateway.parts().items()
            if name in self._parts
        }


def _median_of_sums(samples: list[dict[str, float]]) -> float:
    return median(sum(each.values()) for each in samples)


def _resident(part: psutil.Process) -> float:
    """Return MB of a process and its children."""
    total = 0.0
    for each in [part, *part.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # a reading child that has just ended
            total += each.memory_info().rss / MEGABYTE
    return total


def _receive(place: Workplace, series: list[SentSeries]) -> float:
    """Send all series over a few associations at once and return the seconds it took."""
    shares = [series[n::ASSOCIATIONS] for n in range(ASSOCIATIONS)]
    began = time.monotonic()
    _in_parallel(place.dcmsend(), [[f for each in share for f in each.files] for share in shares])
    return time.monotonic() - began


def _require_in_spool(gateway: Gateway, series: list[SentSeries]) -> int:
    """Check that every sent instance is in the spool with all its pixels.

    Returns:
        Zero: how many do not.

    Raises:
        BrokenPromiseError: if there are any.
    """
    spool = {_end_of(file) for file in gateway.places.instances.glob("*/*.dcm")}
    lost = sum(_end_of(file) not in spool for each in series for file in each.files)
    promise(lost == 0, f"{lost} instances are not in the spool")
    return lost


def _end_of(file: Path) -> bytes:
    """Return a digest of the pixels of a file, which are its end."""
    return sha256(file.read_bytes()[-2 * 256 * 256 :]).digest()


def _in_parallel(program: str, shares: list[list[Path]]) -> None:
    """Send each share over an association of its own."""
    threads = [threading.Thread(target=dcmsend, args=(program, PORT, each)) for each in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _delivered(gateway: Gateway) -> int:
    return gateway.overview.counts().totals.get("deliveries_sent", 0)

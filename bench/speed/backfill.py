"""Speed of back-fill: `python -m bench.speed.backfill`.

Generates a number of series and derives them with the student three times: with one worker on one
core, with two, and with two of which one is killed (`kill -9`) in the middle. Says how much faster
two are than one, and counts what came out. Exit code 1 where something is lost, is there twice, or
the gain is below the target.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pydicom

from bench.machine import describe_machine
from bench.phantom.acquisition import Image, Protocol, acquire
from bench.phantom.series import write_series

STATE = ".stillscan-backfill"
WORKER = "ray::OwnProcess"
TARGET = 1.7
RUNS = ("one worker", "two workers", "two workers, one killed")


@dataclass(frozen=True)
class Measured:
    """One run of the command.

    Attributes:
        seconds: wall time from its first series to its last.
        whole_s: wall time of the command: Ray and the workers start, too.
        derived: series folders that are there.
        instances: files in them; `distinct` of them have a UID of their own.
        killed: whether a worker was.
    """

    name: str
    seconds: float
    whole_s: float
    derived: int
    instances: int
    distinct: int
    killed: bool
    load: float


def main() -> int:
    """Measure, print, and return whether the targets are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--matrix", type=int, default=192)
    parser.add_argument("--json", type=Path, help="file for the figures")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stillscan-bench-") as name:
        folder = Path(name)
        print(f"writing {asked.series} series of {asked.slices} x {asked.matrix} x {asked.matrix}")
        write_archive(folder / "in", asked.series, asked.slices, asked.matrix)
        runs = [measure(folder / "in", folder / each, each, asked.series) for each in RUNS]
        same = {frozenset(uids(folder / each)) for each in RUNS}
    for each in runs:
        print(
            f"{each.name}: {each.seconds:.1f} s, {3600 * asked.series / each.seconds:.0f} "
            f"series an hour, the command {each.whole_s:.1f} s; {each.derived} series, "
            f"{each.instances} instances, {each.distinct} different; load before {each.load:.1f}"
        )
    one, two, _ = runs
    gain = one.seconds / two.seconds
    print(f"two workers do {gain:.2f} times what one does (target {TARGET:g})")
    complete = all(
        each.derived == asked.series
        and each.instances == each.distinct == asked.series * asked.slices
        for each in runs
    )
    killed = runs[-1].killed
    print(
        f"complete, nothing twice: {complete}; a worker was killed: {killed}; "
        f"the same UIDs each time: {len(same) == 1}"
    )
    if asked.json:
        figures = {"gain": gain, "machine": describe_machine(), "runs": [*map(asdict, runs)]}
        asked.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if complete and killed and len(same) == 1 and gain >= TARGET else 1


def write_archive(folder: Path, series: int, slices: int, matrix: int) -> None:
    """Write series of one generated head, each with its own noise and UIDs."""
    protocol = Protocol(matrix=matrix, phase_steps=matrix * 3 // 4, slices=slices, first_mm=8.0)
    painted = list(acquire(protocol, 7))
    for seed in range(series):
        rng = np.random.default_rng(seed)

        def imaged(source: Image, rng: np.random.Generator = rng) -> Image:
            real, imaginary = rng.standard_normal((2, matrix, matrix), dtype=np.float32)
            noise = np.hypot(source.truth + protocol.noise * real, protocol.noise * imaginary)
            return replace(source, noisy=noise)

        write_series(folder / f"{seed:04d}", map(imaged, painted), protocol, seed)


def measure(source: Path, dest: Path, name: str, series: int) -> Measured:
    """Run the command once; with `killed` kill a worker in the middle."""
    workers = 1 if name == RUNS[0] else 2
    command = [sys.executable, "-c", "from stillscan.app.cli import main; main()", "backfill"]
    load = os.getloadavg()[0]
    began = time.monotonic()
    with subprocess.Popen([*command, source, dest, "--workers", str(workers)]) as run:
        killed = name == RUNS[2] and kill_one(run, dest, series // 2)
    whole = time.monotonic() - began
    if run.returncode:
        raise SystemExit(f"{name}: exit code {run.returncode}")
    found = list(uids(dest))
    return Measured(
        name=name,
        seconds=seconds_of(dest),
        whole_s=whole,
        derived=len(list(series_folders(dest))),
        instances=len(found),
        distinct=len(set(found)),
        killed=killed,
        load=load,
    )


def kill_one(run: subprocess.Popen[bytes], dest: Path, after: int) -> bool:
    """Kill a worker (`kill -9`) that processes a series, once so many are derived."""
    while run.poll() is None:
        if len(list(series_folders(dest))) >= after:
            for child in psutil.Process(run.pid).children(recursive=True):
                try:
                    line = child.cmdline()
                    if line and line[0].startswith(f"{WORKER}.process"):
                        child.kill()
                        return True
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.05)
    return False


def series_folders(dest: Path) -> Iterator[Path]:
    """Yield the folders of derived series."""
    for folder in dest.glob("*/*"):
        if folder.parent.name != STATE:
            yield folder


def uids(dest: Path) -> Iterator[str]:
    """Return the SOPInstanceUID of every instance, from its header."""
    for folder in series_folders(dest):
        for file in folder.iterdir():
            yield str(pydicom.dcmread(file, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


def seconds_of(dest: Path) -> float:
    """Return the seconds from the first series given to a worker to the last end in the record."""
    with sqlite3.connect(dest / STATE / "backfill.sqlite") as record:
        rows = record.execute("SELECT ended, seconds FROM outcome ORDER BY ended").fetchall()
    return float(rows[-1][0] - (rows[0][0] - rows[0][1]))


if __name__ == "__main__":
    sys.exit(main())

"""Times the real command line on a generated series and watches its memory, children included."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil

from bench.phantom.acquisition import Image, Protocol, acquire
from bench.phantom.series import write_series

STILLSCAN = Path(sys.executable).with_name("stillscan")
PAINTED_SLICES = 8  # a long series repeats them with fresh noise
SAMPLE_S = 0.02


@dataclass(frozen=True)
class WholeRun:
    """One run of `stillscan denoise`.

    Attributes:
        seconds: wall time from the start of the process to its end.
        core_seconds: of all processes of the run.
        parent_mib: peak resident memory of the process itself.
        child_mib: peak resident memory of its largest child.
        total_mib: peak of all together, shared pages counted once (PSS).
    """

    slices: int
    matrix: int
    seconds: float
    core_seconds: float
    parent_mib: float
    child_mib: float
    total_mib: float


def measure_whole_run(slices: int, matrix: int, arguments: tuple[str, ...] = ()) -> WholeRun:
    """Write a series, derive it, throw both away."""
    with tempfile.TemporaryDirectory(prefix="stillscan-bench-") as name:
        folder = Path(name)
        write_long_series(folder / "in", slices, matrix)
        command: list[str | Path] = [
            STILLSCAN,
            "denoise",
            folder / "in",
            folder / "out",
            *arguments,
        ]
        return _watched(command, slices, matrix)


def write_long_series(folder: Path, slices: int, matrix: int, seed: int = 7) -> None:
    """A generated head series of any length: a few painted slices, every instance noisy anew."""
    protocol = Protocol(
        matrix=matrix, phase_steps=matrix * 3 // 4, slices=min(slices, PAINTED_SLICES), first_mm=8.0
    )
    painted = list(acquire(protocol, seed))
    rng = np.random.default_rng(seed)

    def image(number: int) -> Image:
        source = painted[number % len(painted)]
        real, imaginary = rng.standard_normal((2, matrix, matrix), dtype=np.float32)
        noise = np.hypot(source.truth + protocol.noise * real, protocol.noise * imaginary)
        return replace(source, noisy=noise)

    long = replace(protocol, slices=slices, spacing_mm=0.7, thickness_mm=0.7)
    write_series(folder, (image(number) for number in range(slices)), long, seed)


class _Watch:
    """Samples the memory of a process and its children until told to stop."""

    def __init__(self, process: psutil.Process):
        self.parent = self.child = self.total = 0.0
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            try:
                own = self._process.memory_full_info()
                self.parent = max(self.parent, own.rss / 2**20)
                total = own.pss / 2**20
                for child in self._process.children(recursive=True):
                    used = child.memory_full_info()
                    self.child = max(self.child, used.rss / 2**20)
                    total += used.pss / 2**20
                self.total = max(self.total, total)
            except psutil.NoSuchProcess:  # one of them ended between two lines
                continue


def _watched(command: list[str | Path], slices: int, matrix: int) -> WholeRun:
    before = psutil.Process().cpu_times()
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watch = _Watch(psutil.Process(process.pid))
        code = process.wait()
        seconds = time.perf_counter() - began
        watch.stop()
    if code:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {code}")
    after = psutil.Process().cpu_times()
    core_seconds = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return WholeRun(slices, matrix, seconds, core_seconds, watch.parent, watch.child, watch.total)

"""Measures time and memory of the command line on a generated series, children included."""

from __future__ import annotations

import re
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
PAINTED_SLICES = 8  # number of different slices; a long series repeats them with new noise
SAMPLE_S = 0.1


@dataclass(frozen=True)
class WholeRun:
    """One run of `stillscan denoise`.

    Attributes:
        seconds: wall time from the start of the process to its end.
        core_seconds: of all processes of the run.
        parent_mib: peak resident memory of the process itself.
        child_mib: peak resident memory of its largest child.
    """

    slices: int
    matrix: int
    seconds: float
    core_seconds: float
    parent_mib: float
    child_mib: float


def measure_whole_run(slices: int, matrix: int, arguments: tuple[str, ...] = ()) -> WholeRun:
    """Write a series, denoise it, remove both and return the measurement."""
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
    """Write a generated head series of any length from a few slices with new noise in each."""
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
    """Reads the peak memory of a process and its children until it is stopped."""

    def __init__(self, process: psutil.Process):
        self._process = process
        self._peaks: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> tuple[float, float]:
        """Return peak MiB of the process and of its largest child."""
        self._done.set()
        self._thread.join()
        own = self._peaks.pop(self._process.pid, 0.0)
        return own, max(self._peaks.values(), default=0.0)

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:  # it has just ended
                return
            for process in family:
                self._peaks[process.pid] = _peak_mib(process.pid) or self._peaks.get(process.pid, 0)


def _peak_mib(pid: int) -> float:
    """Return VmHWM, the peak resident size that the kernel records."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _watched(command: list[str | Path], slices: int, matrix: int) -> WholeRun:
    before = psutil.Process().cpu_times()
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watch = _Watch(psutil.Process(process.pid))
        code = process.wait()
        seconds = time.perf_counter() - began
        parent, child = watch.stop()
    if code:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {code}")
    after = psutil.Process().cpu_times()
    core_seconds = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return WholeRun(slices, matrix, seconds, core_seconds, parent, child)

"""Messages of workers: their place, that they are ready, the outcome of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stillscan.operators.errors import ExitCode

State = Literal["derived", "refused", "not-selected", "failed"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one series.

    Attributes:
        state: `derived`; `refused` (the series cannot be processed); `not-selected` (by the rules);
            `failed` (a fault outside the series: the next run tries again).
        reason: stable code; empty for a derived series.
        derived: SeriesInstanceUID of the derived series.
        place: folder of the derived series, relative to the destination; "" in an archive.
        seconds: time of the worker.
        result: the series' entry of `result.json`, as JSON.
    """

    state: State
    reason: str = ""
    message: str = ""
    derived: str = ""
    place: str = ""
    modality: str = ""
    slices: int = 0
    seconds: float = 0.0
    result: str = ""


@dataclass(frozen=True)
class Place:
    """The machine on which a worker runs, and the cores that it may use."""

    machine: str
    cores: tuple[int, ...]
    process: int


@dataclass(frozen=True)
class Ready:
    """A worker is ready.

    Attributes:
        digest: digest of its configuration.
        arithmetic: backend, precision and device; others give other pixels and other UIDs.
    """

    digest: str
    arithmetic: str


@dataclass(frozen=True)
class Fault:
    """An attempt failed.

    Attributes:
        exit_code: exit code of the run if the fault affects all series; None for a fault that
            another attempt, or another worker, may not have.
    """

    reason: str
    message: str
    exit_code: ExitCode | None = None

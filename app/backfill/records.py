"""What workers say: where they are, that they are ready, what became of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stillscan.operators.errors import ExitCode

State = Literal["derived", "refused", "not-selected", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one series.

    Attributes:
        state: `derived`; `refused` (something is wrong with it); `not-selected` (by the rules);
            `failed` (by a fault that is not its own: the next run tries again).
        reason: stable code, empty where the series was derived.
        derived: SeriesInstanceUID of the derived series.
        place: folder of the derived series, relative to the destination; "" in an archive.
        seconds: of the worker.
        result: as in `result.json`, as JSON.
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
    """Where a worker runs: the machine, and the cores that it may use there."""

    machine: str
    cores: tuple[int, ...]
    process: int


@dataclass(frozen=True)
class Ready:
    """A worker can begin.

    Attributes:
        digest: of its configuration.
        arithmetic: what its networks run on; another one makes other pixels and other UIDs.
    """

    digest: str
    arithmetic: str


@dataclass(frozen=True)
class Fault:
    """An attempt came to no end.

    Attributes:
        exit_code: what the run ends with, where the fault concerns all series; None for a fault
            that another attempt, or another worker, may not have.
    """

    reason: str
    message: str
    exit_code: ExitCode | None = None

"""Which phases an interpolated cine has: the acquired ones, and made ones between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stillscan.operators.cine import CARDIAC, CineSeries, PhasesDifferError
from stillscan.operators.errors import InputError, SettingsError


class EnoughPhasesError(InputError):
    """A cine has as many phases as are asked for, or more."""

    reason = "phases-already-there"


class NothingToFillError(InputError):
    """No phase of a cine is missing or of a rejected beat."""

    reason = "nothing-to-fill"


@dataclass(frozen=True)
class Wanted:
    """What is asked for: one of a number of phases, a factor, and filling.

    Attributes:
        frames: phases at each place of the result.
        factor: phases of the result for each acquired one.
        fill: make only phases that are missing, or whose beat was rejected.
    """

    frames: int | None = None
    factor: int | None = None
    fill: bool = False

    def __post_init__(self) -> None:
        """Require exactly one of them (SettingsError)."""
        given = sum((self.frames is not None, self.factor is not None, self.fill))
        if given != 1 or (self.factor is not None and self.factor < 2):
            raise SettingsError("expected one of --frames N, --factor N (2 or more) and --fill")


@dataclass(frozen=True)
class MadePhase:
    """One phase of the result.

    Attributes:
        first: index in `volume.slices` of the acquired phase before it, or of itself.
        second: index of the acquired phase after it; `first` where it was acquired.
        gamma: where it lies between the two, 0 to 1; 0 where it was acquired.
        time: in the unit of `CineSeries.times`.
        sources: SOPInstanceUIDs of the two, or of the one.
        between: numbers of the two acquired phases, counted from 1.
    """

    first: int
    second: int
    gamma: float
    time: float
    sources: tuple[str, ...]
    between: tuple[int, int]

    @property
    def is_made(self) -> bool:
        """Whether its pixels are made, not acquired."""
        return len(self.sources) > 1

    @property
    def nearer(self) -> int:
        """Index of the acquired phase that is nearer in time."""
        return self.second if self.gamma > 0.5 else self.first

    @property
    def description(self) -> str:
        """The beginning of DerivationDescription."""
        if not self.is_made:
            return "Acquired frame, unchanged"
        one, other = self.between
        return f"Made frame, between phases {one} and {other} at {self.gamma:.3g}"


def planned_phases(cine: CineSeries, wanted: Wanted) -> list[list[MadePhase]]:
    """Return the phases of each place, in the order of time, equally many at each.

    Raises:
        EnoughPhasesError: if no more phases are asked for than were acquired.
        NothingToFillError: if there is nothing to fill.
        PhasesDifferError: if the places would have different numbers of phases.
    """
    places = []
    for indices, times in zip(cine.indices, cine.times, strict=True):
        slices = [cine.volume.slices[index] for index in indices]
        kept = [n for n, each in enumerate(slices) if not (wanted.fill and each.timing.rejected)]
        known = [(indices[number], times[number], number + 1) for number in kept]
        interval = cine.interval_ms if cine.attribute in CARDIAC else None
        closes = bool(interval) and (wanted.fill or cine.closes)
        gaps = list(pairwise(known))
        if closes and interval:
            again, time, number = known[0]
            gaps.append((known[-1], (again, time + interval, number)))
        counts = _counts(gaps, cine, wanted, len(indices))
        places.append(list(_of_place(cine, gaps, counts, last=None if closes else known[-1])))
    if len({len(each) for each in places}) > 1:
        raise PhasesDifferError("after filling, the places have different numbers of phases")
    if not any(each.is_made for place in places for each in place):
        raise NothingToFillError("no phase is missing, and no beat was rejected")
    return places


Known = tuple[int, float, int]  # index, time, number


def _counts(
    gaps: Sequence[tuple[Known, Known]], cine: CineSeries, wanted: Wanted, acquired: int
) -> list[int]:
    """Return how many phases are made in each gap."""
    if wanted.fill:
        return [max(0, round((after[1] - before[1]) / cine.step) - 1) for before, after in gaps]
    if wanted.factor is not None:
        return [wanted.factor - 1] * len(gaps)
    missing = (wanted.frames or 0) - acquired
    if missing < 1:
        raise EnoughPhasesError(f"--frames {wanted.frames}: the cine has {acquired} phases already")
    ends = [round(missing * number / len(gaps)) for number in range(len(gaps) + 1)]
    return [after - before for before, after in pairwise(ends)]


def _of_place(
    cine: CineSeries,
    gaps: Sequence[tuple[Known, Known]],
    counts: Sequence[int],
    last: Known | None,
) -> Iterator[MadePhase]:
    def acquired(one: Known) -> MadePhase:
        index, time, number = one
        uid = cine.volume.slices[index].sop_instance_uid
        return MadePhase(index, index, 0.0, time, (uid,), (number, number))

    for (before, after), count in zip(gaps, counts, strict=True):
        yield acquired(before)
        for number in range(1, count + 1):
            gamma = number / (count + 1)
            pair = before[0], after[0]
            uids = tuple(cine.volume.slices[index].sop_instance_uid for index in pair)
            time = (1 - gamma) * before[1] + gamma * after[1]
            yield MadePhase(*pair, gamma, time, uids, (before[2], after[2]))
    if last is not None:
        yield acquired(last)

"""A cine: the slices of a volume as places and phases, and where the phases lie in time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from stillscan.operators.errors import InputError
from stillscan.operators.volume import Place, Volume

FEWEST_PHASES = 5
LONGEST_BEAT_MS = 2000.0  # 30 beats a minute: a later "trigger" is a time since the scan began
UNEVEN = 0.25  # of the usual step between phases
CARDIAC = ("TriggerTime", "NominalCardiacTriggerDelayTime")
ORDER_OF_TRUST = (
    *CARDIAC,
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "InstanceNumber",
)


class CineError(InputError):
    """A series is no cine whose phases can be told apart."""

    reason = "not-a-cine"


class PhasesDifferError(CineError):
    """The places of a cine have different numbers of phases."""

    reason = "phases-differ-between-places"


class PhasesNotMonotoneError(CineError):
    """Two images of one place have the same time, or two attributes order them differently."""

    reason = "phases-not-monotone"


class UnevenPhasesError(CineError):
    """The steps between the phases of a cine differ."""

    reason = "phase-spacing-uneven"


class NotATriggerError(CineError):
    """TriggerTime is not the time since the R wave: Philips dynamics, GE inversion times."""

    reason = "trigger-time-is-not-a-trigger"


@dataclass(frozen=True)
class CineSeries:
    """The slices of a volume by place and phase.

    Attributes:
        volume: the series.
        indices: for each place and phase, the index in `volume.slices`.
        times: for each place and phase: ms where `attribute` is one of `CARDIAC`, else a number
            that rises with the phase.
        attribute: keyword of the attribute that the phases were told from.
        interval_ms: nominal R-R interval; None where the header has none.
    """

    volume: Volume
    indices: tuple[tuple[int, ...], ...]
    times: tuple[tuple[float, ...], ...]
    attribute: str
    interval_ms: float | None = None

    @property
    def phases(self) -> int:
        """Number of phases at each place."""
        return max(map(len, self.indices))

    @property
    def step(self) -> float:
        """Usual step between neighbouring phases, in the unit of `times`."""
        return _step(self.times)

    @property
    def closes(self) -> bool:
        """Whether the last phase is followed by the first: the phases cover the whole beat.

        Retrospective gating does; a prospective series ends before the next R wave.
        """
        if self.attribute not in CARDIAC or not self.interval_ms:
            return False
        return all(
            abs(self.interval_ms - (times[-1] - times[0]) - self.step) <= UNEVEN * self.step
            for times in self.times
        )


def cine_series(
    volume: Volume, *, allow_uneven: bool = False, allow_missing: bool = False
) -> CineSeries:
    """Tell places and phases of a cine, from the most trusted attribute that differs at a place.

    Args:
        volume: classic or multi-frame.
        allow_uneven: accept steps between phases that differ by more than 25 %.
        allow_missing: accept places with different numbers of phases.

    Raises:
        CineError: if it is no cine, or its phases contradict each other; see the leaves.
    """
    attribute, values = _told_apart(volume)
    at_place: dict[Place, list[int]] = defaultdict(list)
    for index, each in enumerate(volume.slices):
        assert each.place is not None, "checked by _told_apart"
        at_place[each.place].append(index)
    indices = tuple(tuple(sorted(each, key=values.__getitem__)) for each in at_place.values())
    times = tuple(tuple(values[index] for index in each) for each in indices)
    _require_rising(volume, attribute, indices, times)
    counts = {len(each) for each in times}
    if len(counts) > 1 and not allow_missing:
        raise PhasesDifferError(
            f"{attribute}: found {min(counts)} to {max(counts)} phases at a place; expected "
            "the same number at each"
        )
    if max(counts) < FEWEST_PHASES:
        raise CineError(f"found {max(counts)} phases at a place, expected {FEWEST_PHASES} or more")
    step = _step(times)
    farthest = max(abs(b - a - step) for each in times for a, b in pairwise(each))
    if farthest > UNEVEN * step and not allow_uneven:
        raise UnevenPhasesError(
            f"{attribute}: a step differs by {farthest:.4g} from the usual {step:.4g}"
        )
    interval = volume.slices[indices[0][0]].timing.interval_ms
    return CineSeries(volume, indices, times, attribute, interval)


def heart_phases(volume: Volume) -> list[tuple[int, ...]]:
    """Return the phase of the heart of each slice, in microseconds; () where it has none.

    Slices of one place and one phase are repeated acquisitions. Time points that the heart does not
    define (a dynamic series) are no phases.
    """
    try:
        attribute, values = _told_apart(volume)
    except CineError:
        attribute, values = "", []
    if attribute not in CARDIAC:
        return [()] * len(volume.slices)
    return [(round(1000 * value),) for value in values]


def _told_apart(volume: Volume) -> tuple[str, list[float]]:
    """Return the most trusted attribute that tells images of one place apart, and its values.

    Raises:
        CineError: if there is none, or a trigger time is none.
    """
    places = [each.place for each in volume.slices]
    if None in places:
        raise CineError("images without ImagePositionPatient: which show one place is not known")
    known = [
        (
            each.timing.trigger_time_ms,
            each.timing.delay_ms,
            each.timing.temporal_identifier,
            each.timing.temporal_index,
            each.instance_number,
        )
        for each in volume.slices
    ]
    largest = max(Counter(places).values())
    for number, attribute in enumerate(ORDER_OF_TRUST):
        found = [each[number] for each in known]
        values = [float(each) for each in found if each is not None]
        if len(values) < len(found):
            continue
        if attribute == "InstanceNumber" and volume.slices[0].timing.phases != largest:
            continue  # a number alone: of directions, echoes or phases?
        at_place: dict[Place | None, set[float]] = defaultdict(set)
        for place, value in zip(places, values, strict=True):
            at_place[place].add(value)
        if max(map(len, at_place.values())) < FEWEST_PHASES:
            continue
        if attribute in CARDIAC:
            interval = max(each.timing.interval_ms or 0.0 for each in volume.slices)
            _require_triggers(attribute, list(at_place.values()), interval)
        return attribute, values
    raise CineError(f"found no place with {FEWEST_PHASES} images that differ in time")


def _require_triggers(attribute: str, at_place: Sequence[set[float]], interval_ms: float) -> None:
    """Require times within one beat that begin at the same time at each place."""
    limit = max(interval_ms, LONGEST_BEAT_MS)
    first, last = [min(each) for each in at_place], [max(each) for each in at_place]
    step = _step([sorted(each) for each in at_place])
    if min(first) < 0 or max(last) > limit or max(first) - min(first) > step:
        raise NotATriggerError(
            f"{attribute}: found {min(first):.4g} to {max(last):.4g} ms, first of a place up to "
            f"{max(first):.4g} ms; expected times within one beat (at most {limit:.4g} ms) that "
            "are the same at each place"
        )


def _require_rising(
    volume: Volume,
    attribute: str,
    indices: Sequence[Sequence[int]],
    times: Sequence[Sequence[float]],
) -> None:
    for of_place, at in zip(indices, times, strict=True):
        counted = [volume.slices[index].timing.temporal_identifier for index in of_place]
        stated = [each for each in counted if each is not None]
        differ = len(stated) == len(counted) and len(set(stated)) > 1 and stated != sorted(stated)
        if differ or any(a >= b for a, b in pairwise(at)):
            raise PhasesNotMonotoneError(
                f"{attribute}: two images of one place have the same value, or "
                "TemporalPositionIdentifier orders them differently"
            )


def _step(times: Sequence[Sequence[float]]) -> float:
    return median([b - a for each in times for a, b in pairwise(each)] or [0.0])

"""Orders slices in space and time, and warns about unusual geometry.

Slices are denoised one by one, so no geometry is refused: several stacks, repeated positions and
gaps are processed image by image, with a warning.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import median

from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.records import FrameAttributes, Instance, Triple

SAME_DIRECTION = 1e-3  # of direction cosines: real GE series differ in the sixth digit
SAME_POSITION_MM = 1e-3
GAP = 1.5  # a gap is a step of more than so many times the usual step
AROUND = tuple(product((-1, 0, 1), repeat=3))
LAST = 2**63  # the place of instances without InstanceNumber


@dataclass(frozen=True, slots=True)
class PlacedSlice:
    """A frame and its position along the normal of its stack, in mm; None without geometry."""

    instance: Instance
    frame: int
    position: float | None

    @property
    def attributes(self) -> FrameAttributes:
        """The attributes of the frame."""
        return self.instance.frames[self.frame]

    @property
    def name(self) -> str:
        """File and frame number, for messages."""
        of_many = f", frame {self.frame + 1}" if len(self.instance.frames) > 1 else ""
        return shown(self.instance.path) + of_many


def in_space(instances: Iterable[Instance]) -> tuple[list[PlacedSlice], list[str]]:
    """Order frames by stack, repetition and position; returns them with warnings.

    A stack has one direction (and one StackID). Its first repetition contains the first image at
    every position (by InstanceNumber and by the dimension indices of the frame), its second
    repetition the second image, as in multi-echo, diffusion and dynamic series. The frames of an
    instance stay together, at the place of the first of them.
    """
    in_file = [PlacedSlice(each, frame, None) for each in instances for frame in _frames(each)]
    counted = sorted(in_file, key=_number)
    directions = [_direction(each.attributes) for each in counted]
    located = [
        (slice_, direction)
        for slice_, direction in zip(counted, directions, strict=True)
        if direction is not None
    ]
    if len(located) < len(counted):
        return counted, list(_warnings_without_geometry(counted[0].instance))
    stacks = [_repetitions(stack) for stack in _stacks(located)]
    placed = [slice_ for stack in stacks for repetition in stack for slice_ in repetition]
    warnings = [*_warnings_of_stacks(stacks)]
    for stack in stacks:
        warnings += _warnings_of_gaps(stack)
    return _instance_by_instance(placed), warnings


def _frames(instance: Instance) -> range:
    return range(len(instance.frames))


def _number(slice_: PlacedSlice) -> tuple[int, str, tuple[int, ...], int]:
    known = slice_.instance.known
    number = LAST if known.instance_number is None else known.instance_number
    return number, known.sop_instance_uid, slice_.attributes.volume_index, slice_.frame


def _direction(frame: FrameAttributes) -> Triple | None:
    """The slice normal; None if the image has no geometry."""
    if frame.position is None or frame.orientation is None:
        return None
    (a, b, c), (x, y, z) = frame.orientation
    normal = (b * z - c * y, c * x - a * z, a * y - b * x)
    length = math.sqrt(_product(normal, normal))
    if length <= 0.5:
        return None
    return normal[0] / length, normal[1] / length, normal[2] / length


def _product(one: Triple, other: Triple) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def _stacks(located: Iterable[tuple[PlacedSlice, Triple]]) -> list[list[PlacedSlice]]:
    """Group frames by direction; positions are along the direction of the first frame.

    Stacks are looked up by their direction, rounded to the tolerance, so that the time does not
    grow with the square of the number of images if every image has another direction.
    """
    stacks: list[tuple[Triple, list[PlacedSlice]]] = []
    known: dict[tuple[str, int, int, int], list[int]] = defaultdict(list)
    for slice_, normal in located:
        frame = slice_.attributes
        i, j, k = (math.floor(each / SAME_DIRECTION) for each in normal)
        near = (
            number
            for di, dj, dk in AROUND
            for number in known.get((frame.stack, i + di, j + dj, k + dk), ())
            if _is_one_direction(stacks[number][0], normal)
        )
        found = min(near, default=None)
        if found is None:
            found = len(stacks)
            stacks.append((normal, []))
            known[frame.stack, i, j, k].append(found)
        direction, slices = stacks[found]
        position = _product(direction, frame.position or (0.0, 0.0, 0.0))
        slices.append(PlacedSlice(slice_.instance, slice_.frame, position))
    return [slices for _, slices in stacks]


def _is_one_direction(one: Triple, other: Triple) -> bool:
    return all(abs(a - b) <= SAME_DIRECTION for a, b in zip(one, other, strict=True))


def _repetitions(stack: Iterable[PlacedSlice]) -> list[list[PlacedSlice]]:
    """Group the n-th image of every position, ordered by position."""
    repetitions: list[list[PlacedSlice]] = []
    seen: dict[int, int] = {}
    for slice_ in stack:
        place = round((slice_.position or 0.0) / SAME_POSITION_MM)
        number = seen[place] = seen.get(place, -1) + 1
        if number == len(repetitions):
            repetitions.append([])
        repetitions[number].append(slice_)
    for repetition in repetitions:
        repetition.sort(key=lambda slice_: slice_.position or 0.0)
    return repetitions


def _instance_by_instance(placed: Iterable[PlacedSlice]) -> list[PlacedSlice]:
    """The same order, but with the frames of an instance together, at its first frame."""
    of_instance: dict[str, list[PlacedSlice]] = defaultdict(list)
    for slice_ in placed:
        of_instance[slice_.instance.known.sop_instance_uid].append(slice_)
    return [slice_ for slices in of_instance.values() for slice_ in slices]


def _warnings_without_geometry(instance: Instance) -> Iterator[str]:
    if instance.known.modality in ("MR", "CT", "PT"):
        yield (
            "instances without ImagePositionPatient or ImageOrientationPatient: "
            "in the order of InstanceNumber, no geometry"
        )


def _warnings_of_stacks(stacks: Sequence[Sequence[Sequence[PlacedSlice]]]) -> Iterator[str]:
    if len(stacks) > 1:
        yield (
            f"{len(stacks)} stacks or orientations in one series: each image is processed "
            "separately"
        )
    repeated = sum(len(repetition) for stack in stacks for repetition in stack[1:])
    if repeated:
        yield f"images at positions of others: {repeated}; each image is processed separately"


def _warnings_of_gaps(stack: Sequence[Sequence[PlacedSlice]]) -> Iterator[str]:
    """Warnings of gaps, for the first repetition that has any."""
    for repetition in stack:
        steps = [
            ((second.position or 0.0) - (first.position or 0.0), first, second)
            for first, second in pairwise(repetition)
        ]
        usual = median(step for step, _, _ in steps) if len(steps) > 1 else 0.0
        gaps = [each for each in steps if 0 < usual * GAP < each[0]]
        if gaps:
            step, first, second = gaps[0]
            yield (
                f"steps between slices wider than the usual {usual:.3g} mm: {len(gaps)}, first "
                f"from {first.name} to {second.name}, {step:.3g} mm"
            )
            return

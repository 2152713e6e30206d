"""Slices in their order in space, and what is unusual about it.

The model works slice by slice, so nothing here is a condition: stacks of several directions,
repeated positions and gaps are processed, image for image, and a person is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from jaxtyping import Float

from operators.instance import Instance

Vector = Float[np.ndarray, "3"]

SAME_DIRECTION = 1e-3  # of direction cosines: real GE series differ in the sixth digit
SAME_POSITION_MM = 1e-3
GAP = 1.5  # times the usual step
LAST = 2**63  # the place of instances without InstanceNumber


@dataclass(frozen=True)
class PlacedSlice:
    """An instance and where it lies along the normal of its stack, in mm; None without geometry."""

    instance: Instance
    position: float | None


def in_space(instances: Sequence[Instance]) -> tuple[list[PlacedSlice], list[str]]:
    """The instances by stack, repetition and position, and warnings about what is unusual.

    A stack has one direction. Its first repetition holds the first image (by InstanceNumber) of
    every position, its second the second, as multi-echo, diffusion and dynamic series have them.
    """
    by_number = sorted(instances, key=_instance_number)
    located = [(each, *where) for each in by_number if (where := _location(each)) is not None]
    if len(located) < len(by_number):
        placed = [PlacedSlice(each, None) for each in by_number]
        return placed, list(_warnings_without_geometry(by_number[0]))
    stacks = [_repetitions(stack) for stack in _stacks(located)]
    repetitions = [repetition for stack in stacks for repetition in stack]
    placed = [slice_ for repetition in repetitions for slice_ in repetition]
    warnings = [*_warnings_of_stacks(stacks)]
    for repetition in repetitions:
        warnings += _warnings_of_gaps(repetition)
    return placed, warnings


def _instance_number(instance: Instance) -> tuple[int, str]:
    number = instance.known.instance_number
    return (LAST if number is None else number), instance.known.sop_instance_uid


def _location(instance: Instance) -> tuple[Vector, Vector] | None:
    """Slice normal and position; None where the image has no geometry."""
    image = instance.image
    if image.position is None or image.orientation is None:
        return None
    normal = np.cross(*image.orientation)
    length = float(np.linalg.norm(normal))
    return (normal / length, np.array(image.position)) if length > 0.5 else None


def _stacks(located: Iterable[tuple[Instance, Vector, Vector]]) -> list[list[PlacedSlice]]:
    """Instances of one direction together; positions are along the direction of the first."""
    stacks: list[tuple[Vector, list[PlacedSlice]]] = []
    for instance, normal, position in located:
        stack = next((s for s in stacks if np.allclose(s[0], normal, atol=SAME_DIRECTION)), None)
        if stack is None:
            stack = (normal, [])
            stacks.append(stack)
        stack[1].append(PlacedSlice(instance, float(stack[0] @ position)))
    return [slices for _, slices in stacks]


def _repetitions(stack: list[PlacedSlice]) -> list[list[PlacedSlice]]:
    """The n-th image of every position together, by position."""
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


def _warnings_without_geometry(instance: Instance) -> Iterator[str]:
    if instance.known.modality in ("MR", "CT", "PT"):
        yield (
            "instances without ImagePositionPatient or ImageOrientationPatient: "
            "in the order of InstanceNumber, no geometry"
        )


def _warnings_of_stacks(stacks: Sequence[Sequence[Sequence[PlacedSlice]]]) -> Iterator[str]:
    if len(stacks) > 1:
        yield f"{len(stacks)} orientations in one series: each image is processed by itself"
    repeated = sum(len(repetition) for stack in stacks for repetition in stack[1:])
    if repeated:
        yield f"images at positions of others: {repeated}; each image is processed by itself"


def _warnings_of_gaps(repetition: Sequence[PlacedSlice]) -> Iterator[str]:
    steps = [
        ((second.position or 0.0) - (first.position or 0.0), first, second)
        for first, second in pairwise(repetition)
    ]
    usual = median(step for step, _, _ in steps) if len(steps) > 1 else 0.0
    gaps = [each for each in steps if 0 < usual * GAP < each[0]]
    if gaps:
        step, first, second = gaps[0]
        yield (
            f"steps between slices wider than the usual {usual:.3g} mm: {len(gaps)}, first from "
            f"{first.instance.path.name} to {second.instance.path.name}, {step:.3g} mm"
        )

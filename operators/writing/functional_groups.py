"""What a derived multi-frame instance says of its frames, in their functional groups (W6).

Each frame names the source frame that it was made from, and what was done to it; its FrameType says
that it is derived. Everything else in the functional groups, geometry and rescale among it, stays
byte for byte as it is in the source, and so does the dimension module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydicom import Dataset

from stillscan.operators.dicom.attributes import (
    Item,
    append_item,
    append_items_of,
    own_items,
    put_text,
    tag_of,
    text_of,
)
from stillscan.operators.writing.derivation_items import item

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
DERIVATION = "DerivationImageSequence"
FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")
# What a legacy converted instance keeps of the classic headers that have no functional group.
UNASSIGNED = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)


def has_functional_groups(header: Dataset) -> bool:
    """Whether the instance says of each of its frames what it is."""
    return tag_of(PER_FRAME) in header


def describe_frames(
    derived: Dataset, derivation: Callable[[int], Item], untrue: Iterable[int]
) -> None:
    """Say of every frame what was done to it.

    Args:
        derived: the header of the derived instance.
        derivation: makes the item of DerivationImageSequence for a frame, counted from 1.
        untrue: tags of what is true of the source's pixels alone, removed where a legacy
            converted instance keeps it.
    """
    shared, frames = own_items(derived, SHARED), own_items(derived, PER_FRAME)
    for group in (*shared, *frames):
        _mark_as_derived(group)
        for keyword in UNASSIGNED:
            for kept in own_items(group, keyword):
                _remove(kept, untrue)
    for number, frame in enumerate(frames, start=1):
        for group in shared:  # a functional group is shared or per frame, never both
            if tag_of(DERIVATION) in group:
                append_items_of(frame, DERIVATION, group)
        append_item(frame, DERIVATION, derivation(number))
    for group in shared:
        _remove(group, [tag_of(DERIVATION)])


def refer_to_evidence(derived: Dataset, study: str, series: str, instance: Item) -> None:
    """Name the source in SourceImageEvidenceSequence, which has one item per study and series.

    PS3.3 C.8.13.1: required as soon as a frame refers to its source.
    """
    of_series = item(SeriesInstanceUID=series, ReferencedSOPSequence=[instance])
    evidence = own_items(derived, "SourceImageEvidenceSequence")
    same_study = [each for each in evidence if text_of(each, "StudyInstanceUID") == study]
    if not same_study:
        of_study = item(StudyInstanceUID=study, ReferencedSeriesSequence=[of_series])
        append_item(derived, "SourceImageEvidenceSequence", of_study)
        return
    known = own_items(same_study[0], "ReferencedSeriesSequence")
    same_series = [each for each in known if text_of(each, "SeriesInstanceUID") == series]
    if same_series:
        append_item(same_series[0], "ReferencedSOPSequence", instance)
    else:
        append_item(same_study[0], "ReferencedSeriesSequence", of_series)


def _mark_as_derived(group: Dataset) -> None:
    """Value 1 of FrameType; its value 2 is PRIMARY in all of these classes."""
    for keyword in FRAME_TYPES:
        for frame_type in own_items(group, keyword):
            values = text_of(frame_type, "FrameType").split("\\")
            put_text(frame_type, "FrameType", "\\".join(["DERIVED", "PRIMARY", *values[2:]]))


def _remove(group: Dataset, tags: Iterable[int]) -> None:
    for tag in tags:
        if tag in group:
            del group[tag]

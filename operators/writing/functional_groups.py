"""Describes the frames of a derived multi-frame instance in their functional groups (W6).

Each frame names its source frame and the processing; its FrameType is DERIVED. Everything else in
the functional groups, geometry and rescale included, stays byte for byte as in the source, and so
does the dimension module.
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
# Where a legacy converted instance keeps the classic attributes that have no functional group.
UNASSIGNED = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)


def has_functional_groups(header: Dataset) -> bool:
    """Return whether the header has functional groups, so is that of a multi-frame instance."""
    return tag_of(PER_FRAME) in header


def describe_frames(
    derived: Dataset, derivation: Callable[[int], Item], untrue: Iterable[int]
) -> None:
    """Describe the processing in the functional groups of every frame.

    Args:
        derived: the header of the derived instance.
        derivation: makes the item of DerivationImageSequence for a frame, counted from 1.
        untrue: tags that hold for the source's pixels only, removed where a legacy converted
            instance keeps them.
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
    """Set value 1 of FrameType to DERIVED; value 2 is PRIMARY in all of these classes."""
    for keyword in FRAME_TYPES:
        for frame_type in own_items(group, keyword):
            values = text_of(frame_type, "FrameType").split("\\")
            put_text(frame_type, "FrameType", "\\".join(["DERIVED", "PRIMARY", *values[2:]]))


def _remove(group: Dataset, tags: Iterable[int]) -> None:
    for tag in tags:
        if tag in group:
            del group[tag]

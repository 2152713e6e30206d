"""Decides from headers alone which series are processed, and gives a reason for the others.

A rule never reports a fault of a series, only that the series is not to be denoised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from pydicom.uid import UID

from stillscan.operators.reading.image_kinds import AttributeValue, Facts, kinds_of
from stillscan.operators.reading.kind_table import (
    CALCULATION,
    COMPONENT,
    DESCRIPTION,
    MAPPED_UNIT,
    QUANTITY,
    UNIT,
    KindRow,
)
from stillscan.operators.reading.records import VALID_UID, FrameAttributes, Identification, Instance

Policy = Literal["refuse", "process"]

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "CR",
    "1.2.840.10008.5.1.4.1.1.1.1": "DX",  # for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1": "DX",  # for processing
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
MULTI_FRAME_SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
)
LOSSY_SYNTAXES = (
    *(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 53, 55, 81, 91)),
    "1.2.840.10008.1.2.4.203",  # HTJ2K
)
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
# Radiographs are projections, each with its own matrix and noise: a series contains the views of an
# examination and is not a volume.
RADIOGRAPHS = frozenset({"CR", "DX", "IO", "MG", "PX"})

# Reasons that one image may have while others of its series are selected.
OF_ONE_IMAGE = frozenset(
    {
        "localizer",
        "phase-or-complex",
        "quantitative-map",
        "reformatted",
        "mixed-frame-types",
        "burned-in-annotation",
        "dynamic-series",
        "single-photon",
        "lossy-compression",
        "too-few-pixels",
    }
)
IN_COLOUR = frozenset({"COLOR", "TRUE_COLOR", "MIXED"})


@dataclass(frozen=True)
class SelectionRules:
    """Which series are processed; the section `selection` of `app.yaml`.

    Attributes:
        modalities: modalities that are processed.
        min_matrix: smallest number of rows and of columns.
        localizers, complex_images, maps, reformatted: images of these kinds, by the table of
            `kind_table`.
        burned_in: images with BurnedInAnnotation YES.
        lossy: images that were compressed with loss at any time.
        denoised: series that were derived by Stillscan.
        image_kinds: rows of the site, which come before those of the table.
        descriptions: patterns (`*t1*`, not case-sensitive), one of which SeriesDescription must
            match; none: any description.
        excluded_descriptions: patterns that SeriesDescription must not match.
    """

    modalities: tuple[str, ...] = ("MR", "CT", "PT", "CR", "DX")
    min_matrix: int = 32
    localizers: Policy = "refuse"
    complex_images: Policy = "refuse"
    maps: Policy = "refuse"
    reformatted: Policy = "refuse"
    burned_in: Policy = "refuse"
    lossy: Policy = "refuse"
    denoised: Policy = "refuse"
    image_kinds: tuple[KindRow, ...] = ()
    descriptions: tuple[str, ...] = ()
    excluded_descriptions: tuple[str, ...] = ()


@dataclass(frozen=True)
class NotSelected:
    """The reason why an image is not processed: a stable code and a sentence."""

    reason: str
    message: str


def name_of_uid(uid: str) -> str:
    """Return the name of a UID in PS3.6; the UID itself if it has none."""
    return UID(uid).name if VALID_UID.fullmatch(uid) else "no UID"


def why_not_an_image_to_denoise(
    instance: Identification, rules: SelectionRules
) -> NotSelected | None:
    """Return the first reason why no image of this kind is processed; None if there is none.

    These rules come before any check for faults, so that a damaged screenshot is only not selected.
    """
    return next(_kind_reasons(instance, rules), None)


def why_not_selected(instance: Instance, rules: SelectionRules) -> NotSelected | None:
    """Return the first rule that excludes this image; None if it is selected."""
    return next(_image_reasons(instance, rules), None)


def why_not_by_header(known: Identification, rules: SelectionRules) -> NotSelected | None:
    """Return the first rule that excludes an image with a fault, by its header alone."""
    return next(_header_reasons(known, rules), None)


def _kind_reasons(instance: Identification, rules: SelectionRules) -> Iterator[NotSelected]:
    uid = instance.sop_class_uid
    if uid not in SOP_CLASSES and uid not in MULTI_FRAME_SOP_CLASSES:
        yield NotSelected("unsupported-sop-class", f"SOPClassUID: found {name_of_uid(uid)}")
    if instance.modality not in rules.modalities:
        yield NotSelected(
            "unsupported-modality",
            f"Modality: found {instance.modality[:16]!r}, expected {', '.join(rules.modalities)}",
        )
    if instance.photometric and instance.photometric not in MONOCHROME:
        yield NotSelected(
            "colour", f"PhotometricInterpretation: found {instance.photometric[:16]!r}"
        )
    if instance.samples_per_pixel not in (None, 1):
        yield NotSelected(
            "colour", f"SamplesPerPixel: found {instance.samples_per_pixel}, expected 1"
        )
    if rules.lossy == "refuse" and instance.transfer_syntax_uid in LOSSY_SYNTAXES:
        yield NotSelected(
            "lossy-compression",
            f"TransferSyntaxUID: found {name_of_uid(instance.transfer_syntax_uid)}",
        )


def _image_reasons(instance: Instance, rules: SelectionRules) -> Iterator[NotSelected]:
    known, image = instance.known, instance.image
    sop_class = name_of_uid(known.sop_class_uid)
    if known.sop_class_uid not in MULTI_FRAME_SOP_CLASSES and image.frames > 1:
        yield NotSelected(
            "multi-frame-not-supported",
            f"NumberOfFrames: found {image.frames}, expected 1 in {sop_class}",
        )
    yield from _frame_reasons(known, instance.frames, rules)
    yield from _header_reasons(known, rules)
    if known.pixel_presentation in IN_COLOUR:
        yield NotSelected("colour", f"PixelPresentation: found {known.pixel_presentation}")
    if rules.burned_in == "refuse" and known.burned_in == "YES":
        yield NotSelected("burned-in-annotation", "BurnedInAnnotation: found YES")
    if rules.lossy == "refuse" and known.lossy == "01":
        yield NotSelected("lossy-compression", "LossyImageCompression: found 01")
    if min(image.rows, image.columns) < rules.min_matrix:
        yield NotSelected(
            "too-few-pixels",
            f"Rows x Columns: found {image.rows} x {image.columns}, "
            f"expected at least {rules.min_matrix} x {rules.min_matrix}",
        )
    yield from _description_reasons(known, rules)


def _frame_reasons(
    known: Identification, frames: Sequence[FrameAttributes], rules: SelectionRules
) -> Iterator[NotSelected]:
    """Yield the rules that exclude all frames, or some: only whole instances are derived (W1)."""
    facts = dict.fromkeys(_facts_of_frame(known, frame) for frame in frames)
    reasons = [next(_content_reasons(each, rules), None) for each in facts]
    found = [reason for reason in reasons if reason is not None]
    if found and len(found) < len(reasons):
        yield NotSelected(
            "mixed-frame-types",
            f"some frames are images, others are not to be processed: {found[0].message}",
        )
    yield from found


def _header_reasons(known: Identification, rules: SelectionRules) -> Iterator[NotSelected]:
    """Yield the rules that exclude an instance as a whole, by its header."""
    if known.interpolated:
        yield NotSelected("already-interpolated", "some of its phases were made by Stillscan")
    if known.derived_by_us and rules.denoised == "refuse":
        yield NotSelected("already-denoised", "derived by Stillscan")
    yield from _content_reasons(_facts_of_instance(known), rules)


def _content_reasons(facts: Facts, rules: SelectionRules) -> Iterator[NotSelected]:
    policies = {
        "localizer": rules.localizers,
        "phase-or-complex": rules.complex_images,
        "quantitative-map": rules.maps,
        "reformatted": rules.reformatted,
        "burned-in-annotation": rules.burned_in,
    }
    for kind in kinds_of(facts, rules.image_kinds):
        if policies.get(kind.reason, "refuse") == "refuse":
            yield NotSelected(kind.reason, kind.message)


def _facts_of_instance(known: Identification) -> Facts:
    given = (
        AttributeValue(COMPONENT, known.complex_component),
        AttributeValue(DESCRIPTION, known.series_description),
        *(AttributeValue(name, value) for name, value in known.private),
    )
    return Facts(known.modality, known.image_type, given)


def _facts_of_frame(known: Identification, frame: FrameAttributes) -> Facts:
    given = (
        AttributeValue(COMPONENT, frame.complex_component),
        AttributeValue(CALCULATION, frame.calculation),
        AttributeValue(UNIT, frame.unit),
        *(AttributeValue(MAPPED_UNIT, unit) for unit in frame.mapped_units),
        *(AttributeValue(QUANTITY, code) for code in frame.quantities),
    )
    return Facts(known.modality, frame.frame_type, given)


def _description_reasons(instance: Identification, rules: SelectionRules) -> Iterator[NotSelected]:
    matches = _matcher(instance.series_description)
    if rules.descriptions and not any(map(matches, rules.descriptions)):
        yield NotSelected("description-not-chosen", "SeriesDescription matches no chosen pattern")
    for pattern in filter(matches, rules.excluded_descriptions):
        yield NotSelected(
            "description-excluded", f"SeriesDescription matches the excluded pattern {pattern!r}"
        )


def _matcher(description: str) -> Callable[[str], bool]:
    return lambda pattern: fnmatchcase(description.casefold(), pattern.casefold())

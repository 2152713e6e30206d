"""Makes the sequence items that describe the processing: codes, scheme, equipment (W5, W6)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from stillscan.operators.dicom.attributes import Item, tag_of, vr_of
from stillscan.operators.dicom.elements import Element
from stillscan.operators.writing.provenance import (
    CODING_SCHEME,
    CODING_SCHEME_UID,
    EXTENSION_CREATOR_UID,
    Provenance,
)

LONGEST_CODE = 16  # characters of CodeValue
STANDARD_CODES = {
    "smoothing": ("113087", "DCM", "Smoothing"),
    "deformation": ("125027", "DCM", "Deformed for registration"),
}


def item(**attributes: str | Sequence[Item]) -> Item:
    """Return a sequence item: keyword = ASCII text, or the items of a sequence."""
    return sorted(
        Element(tag_of(keyword), vr_of(keyword).encode(), value.encode("ascii"))
        if isinstance(value, str)
        else Element(tag_of(keyword), b"SQ", b"", [list(each) for each in value])
        for keyword, value in attributes.items()
    )


def code(value: str, scheme: str, meaning: str, **attributes: str) -> Item:
    """Return an item of a code sequence; PS3.3 8.8: a long value has an attribute of its own."""
    keyword = "CodeValue" if len(value) <= LONGEST_CODE else "LongCodeValue"
    return item(
        **{keyword: value}, CodingSchemeDesignator=scheme, CodeMeaning=meaning, **attributes
    )


@cache
def derivation_code(kind: str) -> Item:
    """Return the code of the processing, of CID 7203 or a private extension of it."""
    if kind in STANDARD_CODES:
        return code(*STANDARD_CODES[kind])
    return code(
        kind.upper().replace("-", "_"),
        CODING_SCHEME,
        kind.capitalize().replace("-", " "),
        ContextIdentifier="7203",
        ContextUID="1.2.840.10008.6.1.510",
        MappingResource="DCMR",
        ContextGroupVersion="20200920",
        ContextGroupExtensionFlag="Y",
        ContextGroupLocalVersion="20250101",
        ContextGroupExtensionCreatorUID=EXTENSION_CREATOR_UID,
    )


@cache
def coding_scheme() -> Item:
    """Return the item of CodingSchemeIdentificationSequence for the private codes."""
    return item(
        CodingSchemeDesignator=CODING_SCHEME,
        CodingSchemeUID=CODING_SCHEME_UID,
        CodingSchemeName="Stillscan codes",
        CodingSchemeVersion="1",
        CodingSchemeResponsibleOrganization="Stillscan",
    )


@cache
def equipment(provenance: Provenance) -> Item:
    """Return the item of ContributingEquipmentSequence; the scanner's own attributes stay (W5)."""
    return item(
        PurposeOfReferenceCodeSequence=[code("109102", "DCM", "Processing Equipment")],
        Manufacturer=provenance.application,
        ManufacturerModelName=provenance.application,
        SoftwareVersions=f"{provenance.version}\\{provenance.model_sha256}",
        ContributionDescription=provenance.contribution,
    )


def source_image(sop_class_uid: str, sop_instance_uid: str, **attributes: str) -> Item:
    """Return the item of SourceImageSequence for the processed image."""
    purpose = code("121322", "DCM", "Source image for image processing operation")
    return item(
        **{"SpatialLocationsPreserved": "YES"} | attributes,
        ReferencedSOPClassUID=sop_class_uid,
        ReferencedSOPInstanceUID=sop_instance_uid,
        PurposeOfReferenceCodeSequence=[purpose],
    )


def frame_derivation(description: str, kind: str, source_frame: Item) -> Item:
    """Return the item of DerivationImageSequence for one frame."""
    return item(
        DerivationDescription=description,
        DerivationCodeSequence=[derivation_code(kind)],
        SourceImageSequence=[source_frame],
    )


def referenced_instance(sop_class_uid: str, sop_instance_uid: str) -> Item:
    """Return an item of ReferencedInstanceSequence."""
    return item(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)

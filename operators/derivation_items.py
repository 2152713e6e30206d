"""Sequence items that say what was done and by what: codes, coding scheme, equipment (W5, W6)."""

from __future__ import annotations

from pydicom import Dataset

from operators.provenance import CODING_SCHEME, CODING_SCHEME_UID, EXTENSION_CREATOR_UID, Provenance


def item(**attributes: object) -> Dataset:
    """A sequence item with these attributes, by keyword."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def derivation_code(kind: str) -> Dataset:
    """The item that DerivationCodeSequence gets."""
    if kind == "smoothing":
        return code("113087", "DCM", "Smoothing")
    ours = code("NOISE_REDUCTION", CODING_SCHEME, "Noise reduction")
    ours.update(
        item(
            ContextIdentifier="7203",
            ContextUID="1.2.840.10008.6.1.510",
            MappingResource="DCMR",
            ContextGroupVersion="20200920",
            ContextGroupExtensionFlag="Y",
            ContextGroupLocalVersion="20250101",
            ContextGroupExtensionCreatorUID=EXTENSION_CREATOR_UID,
        )
    )
    return ours


def coding_scheme() -> Dataset:
    """The item that CodingSchemeIdentificationSequence gets for our own codes."""
    return item(
        CodingSchemeDesignator=CODING_SCHEME,
        CodingSchemeUID=CODING_SCHEME_UID,
        CodingSchemeName="Stillscan codes",
        CodingSchemeVersion="1",
        CodingSchemeResponsibleOrganization="Stillscan",
    )


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def equipment(provenance: Provenance) -> Dataset:
    """We stand beside the scanner, never in its place (W5)."""
    return item(
        PurposeOfReferenceCodeSequence=[code("109102", "DCM", "Processing Equipment")],
        Manufacturer=provenance.application,
        ManufacturerModelName=provenance.application,
        SoftwareVersions=[provenance.version, provenance.model_sha256],
        ContributionDescription=f"Noise reduction: {provenance.procedure}",
    )

"""Makes the header of a derived image: the source's header with all that must differ (W1-W9).

    header = SeriesHeader(first_source_header, volume, provenance, options)
    derived = header.derive(source_header)

Whatever is not named in this file is copied byte for byte: geometry, window, LUTs, patient, study,
acquisition, the scanner. Nothing here depends on the clock, so that a repeat, which makes the same
UIDs, makes the same instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
from typing import Literal, Protocol

from pydicom import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    PositronEmissionTomographyImageStorage,
)

from stillscan.operators.dicom.attributes import (
    Item,
    append_item,
    own_items,
    put_items,
    put_text,
    tag_of,
    text_of,
)
from stillscan.operators.dicom.elements import whole_number
from stillscan.operators.volume import Volume
from stillscan.operators.writing.derivation_items import (
    coding_scheme,
    derivation_code,
    equipment,
    frame_derivation,
    item,
    referenced_instance,
    source_image,
)
from stillscan.operators.writing.derived_uids import derived_instance_uid, derived_series_uid
from stillscan.operators.writing.functional_groups import (
    describe_frames,
    has_functional_groups,
    refer_to_evidence,
)
from stillscan.operators.writing.pixel_encoding import OutputSyntax
from stillscan.operators.writing.private_attributes import (
    SAFE_PRIVATE_ATTRIBUTES,
    parse_private_attribute,
    without_private,
)
from stillscan.operators.writing.provenance import CODING_SCHEME, INTERPOLATION, Provenance

DESCRIPTION_LIMIT = 64  # characters of an LO
CONTROL_SUFFIX = " (control, not denoised)"
INTERPOLATED_SUFFIX = " (phases interpolated, read with original)"
DERIVATION_LIMIT = 1024  # characters of an ST
LARGEST_SERIES_NUMBER = 2**31 - 1  # of an IS

# True of the source, untrue of what is derived from it.
REMOVED = {
    "LengthToEnd": "counts the bytes of the source's file",
    "InstanceCreationDate": "of the source; a new one would make every repeat another object",
    "InstanceCreationTime": "as InstanceCreationDate",
    "InstanceCreatorUID": "who created the source instance",
    "InstanceCoercionDateTime": "of the source instance",
    "RetrieveAETitle": "where the source can be retrieved",
    "RetrieveURL": "where the source can be retrieved",
    "InstanceAvailability": "of the source",
    "SOPInstanceStatus": "authorisation of the source",
    "SOPAuthorizationDateTime": "authorisation of the source",
    "SOPAuthorizationComment": "authorisation of the source",
    "AuthorizationEquipmentCertificationNumber": "authorisation of the source",
    "AlternateRepresentationSequence": "another encoding of the source's pixels",
    "IconImageSequence": "shows the source's pixels",
    "HistogramSequence": "counts the source's pixels",
    "SmallestPixelValueInSeries": "retired, of the source's pixels",
    "LargestPixelValueInSeries": "retired, of the source's pixels",
    "SmallestImagePixelValueInPlane": "retired, of the source's pixels",
    "LargestImagePixelValueInPlane": "retired, of the source's pixels",
    "PixelDataProviderURL": "where the source's pixels are",
    "ExtendedOffsetTable": "of the source's encapsulated pixels",
    "ExtendedOffsetTableLengths": "of the source's encapsulated pixels",
    "EncryptedAttributesSequence": "would give the source's UIDs back to the derived image",
    "MACParametersSequence": "of the source's digital signature",
    "DigitalSignaturesSequence": "signs the source",
    "DataSetTrailingPadding": "of the source's file",
}
_REMOVED_TAGS = frozenset(map(tag_of, REMOVED))
# Of the modules MR Pulse Sequence and Bulk Motion Synchronization: PS3.3 asks for them in ORIGINAL
# and MIXED images, dciodvfy calls each an error in a DERIVED one. The source, which is named, has
# them.
PULSE_SEQUENCE = (
    "ArterialSpinLabelingContrast",
    "BulkMotionCompensationTechnique",
    "BulkMotionSignalSource",
    "CoverageOfKSpace",
    "EchoPlanarPulseSequence",
    "EchoPulseSequence",
    "GeometryOfKSpaceTraversal",
    "MRAcquisitionType",
    "MultiPlanarExcitation",
    "MultipleSpinEcho",
    "NumberOfKSpaceTrajectories",
    "OversamplingPhase",
    "PhaseContrast",
    "PulseSequenceName",
    "RectilinearPhaseEncodeReordering",
    "SaturationRecovery",
    "SegmentedKSpaceTraversal",
    "SpectrallySelectedSuppression",
    "SteadyStatePulseSequence",
    "TimeOfFlightContrast",
)
_PULSE_SEQUENCE_TAGS = frozenset(map(tag_of, PULSE_SEQUENCE))
# Legacy converted instances keep them for each classic image; they cannot be computed again.
_UNTRUE_OF_A_FRAME = _REMOVED_TAGS | set(
    map(tag_of, ("SmallestImagePixelValue", "LargestImagePixelValue"))
)
SERIES_BEGIN = ("SeriesDate", "SeriesTime")  # those of the first slice, for all (W3)
# dciodvfy and PS3.3 C.8.9.4.1.1, C.8.13.3.1.1: these take no SECONDARY in value 2.
PRIMARY_ONLY = (
    PositronEmissionTomographyImageStorage,
    EnhancedMRImageStorage,
    EnhancedCTImageStorage,
    EnhancedPETImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)


@dataclass(frozen=True)
class OutputOptions:
    """How derived series are marked.

    Attributes:
        suffix: appended to SeriesDescription; the label that the viewer shows (S3). ASCII.
        series_number_factor: SeriesNumber = source * factor + k, the first that is free (W3).
        derivation_code: `noise-reduction` (a private code, as CID 7203 has no term for it) or
            `smoothing` (113087, DCM), for receivers that do not take an extension.
        synthetic_data: write SyntheticData YES, for denoisers that draw random numbers.
        transfer_syntax: of derived images; the compressed ones lose nothing.
        private_attributes: the private attributes that are kept, `(gggg,"CREATOR",ee)`.
    """

    suffix: str = " (denoised, read with original)"
    series_number_factor: int = 100
    derivation_code: Literal["noise-reduction", "smoothing"] = "noise-reduction"
    synthetic_data: bool = False
    transfer_syntax: OutputSyntax = "explicit-vr-little-endian"
    private_attributes: tuple[str, ...] = SAFE_PRIVATE_ATTRIBUTES

    def __post_init__(self) -> None:
        """Check what the types cannot express.

        Raises:
            ValueError: if an option cannot be written into a header.
        """
        if not (self.suffix.strip() and self.suffix.isascii() and self.suffix.isprintable()):
            raise ValueError("suffix must be printable ASCII and not empty: it is the label (S3)")
        if "\\" in self.suffix or len(self.suffix) > DESCRIPTION_LIMIT // 2:
            raise ValueError(f"suffix: no backslash, at most {DESCRIPTION_LIMIT // 2} characters")
        if self.series_number_factor < 1:
            raise ValueError("series_number_factor must be 1 or more")
        for each in self.private_attributes:
            parse_private_attribute(each)


class Phase(Protocol):
    """What the header of an image in an interpolated cine needs to know."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the SOPInstanceUIDs of the acquired images: one, or the two it lies between."""

    @property
    def is_made(self) -> bool:
        """Return whether the pixels are made, not acquired."""

    @property
    def description(self) -> str:
        """Return the beginning of DerivationDescription."""


class SeriesHeader:
    """Makes the headers of one derived series from those of its source."""

    def __init__(
        self,
        first: Dataset,
        volume: Volume,
        provenance: Provenance,
        options: OutputOptions,
        requested: str = "",
    ) -> None:
        """Determine the attributes of the series; `first` is the header of its first slice.

        `requested` is what else was asked for and can change a pixel.
        """
        self.series_instance_uid = series_instance_uid(volume, provenance, options, requested)
        self.series_number = free_series_number(
            whole_number(text_of(first, "SeriesNumber")),
            volume.sibling_series_numbers,
            options.series_number_factor,
        )
        self.series_description = labelled(
            text_of(first, "SeriesDescription"), label_of(provenance, options)
        )
        self._begun = {
            tag: first.get_item(tag) if tag in first else None for tag in map(tag_of, SERIES_BEGIN)
        }
        self._source_study = volume.study_instance_uid
        self._source_series = volume.series_instance_uid
        self._derivation = " ".join(
            (
                provenance.derivation,
                *([f"{volume.left_out.capitalize()}."] if volume.left_out else []),
            )
        )
        self._provenance = provenance
        self._interpolates = provenance.mode == INTERPOLATION
        self._options = options
        self._private = frozenset(map(parse_private_attribute, options.private_attributes))

    def derive(self, source: Dataset, phase: Phase | None = None) -> Dataset:
        """Return the derived header, without pixels; `source` is not changed.

        `phase` tells what an image of an interpolated cine shows.
        """
        derived = without_private(source, self._private)
        sop_class, sop_instance = text_of(source, "SOPClassUID"), text_of(source, "SOPInstanceUID")
        _remove_what_is_untrue(derived, sop_class)
        self._identify(derived, sop_instance)
        self._mark(derived, sop_class)
        if has_functional_groups(derived):
            self._describe_frames(derived, sop_class, sop_instance)
        else:
            self._describe(derived, sop_class, sop_instance, phase)
        return derived

    def _identify(self, derived: Dataset, source_instance: str) -> None:
        put_text(
            derived,
            "SOPInstanceUID",
            derived_instance_uid(self.series_instance_uid, source_instance),
        )
        put_text(derived, "SeriesInstanceUID", self.series_instance_uid)
        number = "" if self.series_number is None else str(self.series_number)
        put_text(derived, "SeriesNumber", number)
        put_text(derived, "SeriesDescription", self.series_description)
        for tag, element in self._begun.items():
            if element is not None:
                derived[tag] = element
            elif tag in derived:
                del derived[tag]

    def _mark(self, derived: Dataset, sop_class: str) -> None:
        """Mark the instance as a whole as derived, and name the processing equipment."""
        image_type = derived_image_type(text_of(derived, "ImageType").split("\\"), sop_class)
        put_text(derived, "ImageType", "\\".join(image_type))
        if self._options.derivation_code == "noise-reduction" or self._interpolates:
            _identify_coding_scheme(derived)
        if self._options.synthetic_data:
            put_text(derived, "SyntheticData", "YES")
        append_item(derived, "ContributingEquipmentSequence", equipment(self._provenance))

    def _describe(
        self, derived: Dataset, sop_class: str, sop_instance: str, phase: Phase | None
    ) -> None:
        """Describe the processing of a classic image, and name its source or both sources."""
        before = text_of(derived, "DerivationDescription")
        text = (f"{phase.description}. " if phase else "") + self._derivation
        text += f" Before that: {before}" if before else ""
        put_text(derived, "DerivationDescription", text[:DERIVATION_LIMIT])
        kinds: tuple[str, ...] = (self._options.derivation_code,)
        if phase is not None:
            kinds = ("temporal-interpolation", "deformation") if phase.is_made else ()
        for kind in kinds:
            append_item(derived, "DerivationCodeSequence", derivation_code(kind))
        sources = phase.sources if phase else (sop_instance,)
        kept = {"SpatialLocationsPreserved": "NO"} if len(sources) > 1 else {}
        put_items(
            derived,
            "SourceImageSequence",
            [source_image(sop_class, each, **kept) for each in sources],
        )
        for each in sources:
            _refer_to_series(derived, self._source_series, referenced_instance(sop_class, each))

    def _describe_frames(self, derived: Dataset, sop_class: str, sop_instance: str) -> None:
        """Describe the processing of each frame of a multi-frame image, and name its source."""

        def derivation(frame: int) -> Item:
            source = source_image(sop_class, sop_instance, ReferencedFrameNumber=str(frame))
            kind = self._options.derivation_code
            return frame_derivation(self._derivation[:DERIVATION_LIMIT], kind, source)

        instance = referenced_instance(sop_class, sop_instance)
        describe_frames(derived, derivation, _UNTRUE_OF_A_FRAME)
        refer_to_evidence(derived, self._source_study, self._source_series, instance)
        _refer_to_series(derived, self._source_series, instance)


def series_instance_uid(
    volume: Volume, provenance: Provenance, options: OutputOptions, requested: str = ""
) -> str:
    """Return the SeriesInstanceUID of the series derived with these settings (W2)."""
    also = {"left_out": volume.left_out, "correction": volume.correction, "requested": requested}
    said = asdict(options) | {name: value for name, value in also.items() if value}
    return derived_series_uid(
        volume.series_instance_uid,
        {each.sop_instance_uid for each in volume.slices} | volume.beside,
        provenance,
        said,
    )


def free_series_number(source: int | None, taken: frozenset[int], factor: int) -> int | None:
    """Return source * factor + k with the first k = 1, 2, ... that is free in the study.

    None where the source has no number. Where source * factor is too large for an IS, the numbers
    after the source's own are tried, after the largest those from 1.
    """
    if source is None:
        return None
    base = source * factor if 0 <= source * factor < LARGEST_SERIES_NUMBER - 1000 else source
    upwards = range(base + 1, LARGEST_SERIES_NUMBER + 1)
    numbers = chain(upwards, count(1))
    return next(number for number in numbers if number not in taken and number != source)


def derived_image_type(values: Sequence[str], sop_class_uid: str) -> list[str]:
    """Return ImageType: values 1 and 2 by the IOD's rule, the rest as in the source (W6)."""
    return ["DERIVED", "PRIMARY" if sop_class_uid in PRIMARY_ONLY else "SECONDARY", *values[2:]]


def label_of(provenance: Provenance, options: OutputOptions) -> str:
    """Return the text appended to SeriesDescription; a control is never labelled denoised (S2)."""
    if provenance.mode == INTERPOLATION:
        return INTERPOLATED_SUFFIX
    return CONTROL_SUFFIX if provenance.is_control else options.suffix


def labelled(description: str, label: str) -> str:
    """Return the description with its label; a description too long for an LO is cut.

    A backslash would make the label a second value, and a mark that changes the direction of text
    would affect the label too: every character that is not printable becomes a space.
    """
    printable = (each if each.isprintable() and each != "\\" else " " for each in description)
    description = "".join(printable)
    return (description[: DESCRIPTION_LIMIT - len(label)].rstrip() + label).strip()


def _remove_what_is_untrue(derived: Dataset, sop_class_uid: str) -> None:
    removed = _REMOVED_TAGS
    if sop_class_uid == EnhancedMRImageStorage:
        removed = removed | _PULSE_SEQUENCE_TAGS
    for tag in list(derived.keys()):
        if tag in removed or tag.group < 8:
            del derived[tag]


def _identify_coding_scheme(derived: Dataset) -> None:
    known = own_items(derived, "CodingSchemeIdentificationSequence")
    if all(text_of(each, "CodingSchemeDesignator") != CODING_SCHEME for each in known):
        append_item(derived, "CodingSchemeIdentificationSequence", coding_scheme())


def _refer_to_series(derived: Dataset, series: str, instance: Item) -> None:
    """Name `instance` in ReferencedSeriesSequence, which has one item per series."""
    known = own_items(derived, "ReferencedSeriesSequence")
    same = [each for each in known if text_of(each, "SeriesInstanceUID") == series]
    if same:  # the source itself refers to images of its series
        append_item(same[0], "ReferencedInstanceSequence", instance)
    else:
        append_item(
            derived,
            "ReferencedSeriesSequence",
            item(SeriesInstanceUID=series, ReferencedInstanceSequence=[instance]),
        )

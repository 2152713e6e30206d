"""The header of a derived image: the source's header, and everything that must differ (W1-W9).

    header = SeriesHeader(first_source_header, volume, provenance, options)
    derived = header.derive(source_header)

Whatever is not named in this file is copied byte for byte: geometry, window, LUTs, patient, study,
acquisition, the scanner. Nothing here depends on the clock, so that a repeat, which makes the same
UIDs, makes the same instances.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import count
from typing import Literal

from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    PositronEmissionTomographyImageStorage,
)

from operators.character_set import tag_of, text_element, text_of
from operators.derivation_items import code, coding_scheme, derivation_code, equipment, item
from operators.private_attributes import (
    SAFE_PRIVATE_ATTRIBUTES,
    parse_private_attribute,
    without_private,
)
from operators.provenance import Provenance, derived_instance_uid, derived_series_uid
from operators.volume import Volume

DESCRIPTION_LIMIT = 64  # characters of an LO
DERIVATION_LIMIT = 1024  # characters of an ST
LARGEST_SERIES_NUMBER = 2**31 - 1  # of an IS

# True of the source, untrue of what is derived from it.
REMOVED = {
    "LengthToEnd": "counts the bytes of the source's file",
    "InstanceCreationDate": "of the source; ours would make every repeat another object",
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
SERIES_BEGIN = ("SeriesDate", "SeriesTime")  # those of the first slice, for all (W3)
# dciodvfy and PS3.3 C.8.9.4.1.1, C.8.13.3.1.1: these take no SECONDARY in value 2.
PRIMARY_ONLY = (
    PositronEmissionTomographyImageStorage,
    EnhancedMRImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)


@dataclass(frozen=True)
class OutputOptions:
    """How derived series are marked.

    Attributes:
        suffix: appended to SeriesDescription; the label that a reader sees (S3). ASCII.
        series_number_factor: SeriesNumber = source * factor + k, the first that is free (W3).
        derivation_code: `noise-reduction` (our own code, as CID 7203 has no term for it) or
            `smoothing` (113087, DCM), for receivers that do not take an extension.
        synthetic_data: write SyntheticData YES, for denoisers that draw random numbers.
        private_attributes: the private attributes that are kept, `(gggg,"CREATOR",ee)`.
    """

    suffix: str = " (denoised, read with original)"
    series_number_factor: int = 100
    derivation_code: Literal["noise-reduction", "smoothing"] = "noise-reduction"
    synthetic_data: bool = False
    private_attributes: tuple[str, ...] = SAFE_PRIVATE_ATTRIBUTES

    def __post_init__(self) -> None:
        """Check what the types do not say.

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


class SeriesHeader:
    """What all headers of one derived series share, and how a source header becomes one of them."""

    def __init__(
        self, first: Dataset, volume: Volume, provenance: Provenance, options: OutputOptions
    ) -> None:
        """Decide the series' attributes once; `first` is the header of its first slice."""
        self.series_instance_uid = series_instance_uid(volume, provenance, options)
        self.series_number = free_series_number(
            _integer(text_of(first, "SeriesNumber")),
            volume.sibling_series_numbers,
            options.series_number_factor,
        )
        description = text_of(first, "SeriesDescription")
        kept = description[: DESCRIPTION_LIMIT - len(options.suffix)].rstrip()
        self.series_description = (kept + options.suffix).strip()
        self._begun = {
            tag: first.getitem(tag) if tag in first else None for tag in map(tag_of, SERIES_BEGIN)
        }
        self._source_series = volume.series_instance_uid
        self._provenance = provenance
        self._options = options
        self._private = frozenset(map(parse_private_attribute, options.private_attributes))

    def derive(self, source: Dataset) -> Dataset:
        """The derived header, without pixels; `source` is not changed, raw elements stay raw."""
        derived = without_private(source, self._private)
        _remove_what_is_untrue(derived)
        instance = item(
            ReferencedSOPClassUID=str(derived.SOPClassUID),
            ReferencedSOPInstanceUID=str(derived.SOPInstanceUID),
        )
        self._identify(derived)
        self._describe(derived)
        self._refer(derived, instance)
        return derived

    def _identify(self, derived: Dataset) -> None:
        derived.SOPInstanceUID = derived_instance_uid(
            self.series_instance_uid, str(derived.SOPInstanceUID)
        )
        derived.SeriesInstanceUID = self.series_instance_uid
        derived.SeriesNumber = self.series_number
        derived[tag_of("SeriesDescription")] = text_element(
            derived, "SeriesDescription", self.series_description
        )
        for tag, element in self._begun.items():
            if element is not None:
                derived[tag] = element
            elif tag in derived:
                del derived[tag]

    def _describe(self, derived: Dataset) -> None:
        derived.ImageType = derived_image_type(derived)
        before = text_of(derived, "DerivationDescription")
        text = self._provenance.derivation + (f" Before that: {before}" if before else "")
        derived[tag_of("DerivationDescription")] = text_element(
            derived, "DerivationDescription", text[:DERIVATION_LIMIT]
        )
        _append(derived, "DerivationCodeSequence", derivation_code(self._options.derivation_code))
        if self._options.derivation_code == "noise-reduction":
            _append(derived, "CodingSchemeIdentificationSequence", coding_scheme())
        if self._options.synthetic_data:
            derived.SyntheticData = "YES"

    def _refer(self, derived: Dataset, instance: Dataset) -> None:
        purpose = code("121322", "DCM", "Source image for image processing operation")
        source_image = item(
            ReferencedSOPClassUID=instance.ReferencedSOPClassUID,
            ReferencedSOPInstanceUID=instance.ReferencedSOPInstanceUID,
            SpatialLocationsPreserved="YES",
            PurposeOfReferenceCodeSequence=[purpose],
        )
        derived.SourceImageSequence = [source_image]
        _refer_to_series(derived, self._source_series, instance)
        _append(derived, "ContributingEquipmentSequence", equipment(self._provenance))


def series_instance_uid(volume: Volume, provenance: Provenance, options: OutputOptions) -> str:
    """SeriesInstanceUID of what these make of this volume (W2)."""
    return derived_series_uid(
        volume.series_instance_uid,
        (each.sop_instance_uid for each in volume.slices),
        provenance,
        asdict(options),
    )


def free_series_number(source: int | None, taken: frozenset[int], factor: int) -> int | None:
    """Source * factor + k with the first k = 1, 2, ... that no known series of the study has.

    None where the source has no number: nothing then says where to begin. A source whose multiple
    an IS cannot hold is counted up from itself.
    """
    if source is None:
        return None
    base = source * factor if 0 <= source * factor < LARGEST_SERIES_NUMBER - 1000 else source
    return next(number for k in count(1) if (number := base + k) not in taken)


def derived_image_type(header: Dataset) -> list[str]:
    """Values 1 and 2 by the IOD's rule, the rest as in the source (W6)."""
    value = header.get("ImageType") or []
    values = [value] if isinstance(value, str) else [str(each) for each in value]
    second = "PRIMARY" if header.SOPClassUID in PRIMARY_ONLY else "SECONDARY"
    return ["DERIVED", second, *values[2:]]


def _remove_what_is_untrue(derived: Dataset) -> None:
    tags = list(derived.keys())
    # a plane without OverlayData lay in the unused bits of the source's pixels (PS3.5 8.1.2)
    planes = {tag.group for tag in tags if 0x6000 <= tag.group <= 0x601E}
    embedded = {group for group in planes if Tag(group, 0x3000) not in derived}
    for tag in tags:
        if tag in _REMOVED_TAGS or tag.group in embedded or tag.group < 8:
            del derived[tag]


def _refer_to_series(derived: Dataset, series: str, instance: Dataset) -> None:
    """Name `instance` in ReferencedSeriesSequence, which has one item per series."""
    items = list(derived.get("ReferencedSeriesSequence") or [])
    others = [each for each in items if each.get("SeriesInstanceUID") != series]
    same = [each for each in items if each.get("SeriesInstanceUID") == series]
    instances = [
        known
        for each in same
        for known in each.get("ReferencedInstanceSequence") or []
        if known.get("ReferencedSOPInstanceUID") != instance.ReferencedSOPInstanceUID
    ]
    derived.ReferencedSeriesSequence = [
        *others,
        item(SeriesInstanceUID=series, ReferencedInstanceSequence=[*instances, instance]),
    ]


def _append(derived: Dataset, keyword: str, added: Dataset) -> None:
    """Append to a sequence of the header: its items stay and come first."""
    setattr(derived, keyword, [*(derived.get(keyword) or []), added])


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None

"""Rules: match the header of a series against patterns by DICOM keyword; the first match applies.

A rule is compared with the header of one instance of the series and the sender's AE title. Values
are compared as text, not case-sensitive; of an attribute with several values, one must match.
Header values are never logged.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as InOrder
from fnmatch import fnmatchcase
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from stillscan.deploy.gateway.settings import Rule
from stillscan.operators.dicom.attributes import values_of
from stillscan.operators.dicom.elements import whole_number
from stillscan.operators.errors import InputError, SettingsError
from stillscan.operators.reading.decoder import Decoder, Scanned

SENDER = "calling-ae-title"


def require_known_keywords(rules: Iterable[Rule]) -> None:
    """Refuse rules with unknown DICOM keywords: they would never match.

    Raises:
        SettingsError: with the name of the rule and the keyword.
    """
    for rule in rules:
        for keyword in rule.match:
            if keyword != SENDER and tag_for_keyword(keyword) is None:
                raise SettingsError(
                    f"rule '{rule.name}' matches '{keyword}', which is neither a DICOM keyword "
                    f"nor '{SENDER}'"
                )


def choose_rule(rules: InOrder[Rule], header: Dataset, sender: str) -> Rule | None:
    """The first rule that matches the header of a series and its sender; None without a match."""
    for rule in rules:
        if all(_matches(header, sender, *each) for each in rule.match.items()):
            return rule
    return None


def header_of(path: Path, decoder: Decoder) -> tuple[Scanned, Dataset]:
    """The result of scanning a file, and its header without pixel data, from the reading process.

    If the file has no image or its pixels cannot be decoded, the header contains only what the scan
    gives: Modality, SOPClassUID, SeriesDescription and the like.
    """
    (scanned,) = decoder.scan([path])
    if scanned.instance is not None and scanned.image is not None:
        try:
            (frame,) = decoder.read([(path, 0)], scanned.image.frame_bytes)
        except InputError:
            pass
        else:
            return scanned, frame.dataset()
    return scanned, _header_from(scanned)


def expected_images(header: Dataset) -> int | None:
    """Number of images in the series of this instance, if its header states it.

    ImagesInAcquisition (PS3.3 C.7.6.1), NumberOfSeriesRelatedInstances (which some archives add),
    and for PET NumberOfSlices x NumberOfTimeSlices (PS3.3 C.8.9.1).
    """
    slices, times = _number(header, "NumberOfSlices"), _number(header, "NumberOfTimeSlices")
    counts = (
        _number(header, "ImagesInAcquisition"),
        _number(header, "NumberOfSeriesRelatedInstances"),
        None if slices is None else slices * (times or 1),
    )
    return max((each for each in counts if each), default=None)


def _matches(header: Dataset, sender: str, keyword: str, pattern: str) -> bool:
    values = [sender] if keyword == SENDER else values_of(header, keyword)
    return any(fnmatchcase(each.casefold(), pattern.casefold()) for each in values)


def _number(header: Dataset, keyword: str) -> int | None:
    return whole_number(next(iter(values_of(header, keyword)), ""))


def _header_from(scanned: Scanned) -> Dataset:
    header = Dataset()
    known = scanned.known
    if known is not None:
        header.SOPClassUID = known.sop_class_uid
        header.StudyInstanceUID = known.study_instance_uid
        header.SeriesInstanceUID = known.series_instance_uid
        header.Modality = known.modality
        header.SeriesDescription = known.series_description
        header.ImageType = list(known.image_type)
        header.BurnedInAnnotation = known.burned_in
    return header

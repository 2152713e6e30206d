"""Rules choose what is done with a series: patterns by DICOM keyword, the first rule that matches.

A rule sees the header of one instance of the series, and who sent it. Values are compared as text
without regard to case; of an attribute with several values, one has to match. Nothing of a header
is ever logged from here.
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
    """Refuse rules that ask for attributes that do not exist: they would never match.

    Raises:
        SettingsError: names rule and keyword.
    """
    for rule in rules:
        for keyword in rule.match:
            if keyword != SENDER and tag_for_keyword(keyword) is None:
                raise SettingsError(
                    f"rule '{rule.name}' asks for '{keyword}', which is neither a DICOM keyword "
                    f"nor '{SENDER}'"
                )


def choose_rule(rules: InOrder[Rule], header: Dataset, sender: str) -> Rule | None:
    """The first rule that matches the header of a series and its sender; None if none does."""
    for rule in rules:
        if all(_matches(header, sender, *each) for each in rule.match.items()):
            return rule
    return None


def header_of(path: Path, decoder: Decoder) -> tuple[Scanned, Dataset]:
    """What is known of a file, and its header without pixel data, from the reading child.

    Where the pixels cannot be decoded, or the file holds no image, the header is the little that
    the scan tells: Modality, SOPClassUID, SeriesDescription and the like.
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
    """How many images the series of this instance has, where its header says so.

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

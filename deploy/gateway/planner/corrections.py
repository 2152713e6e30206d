"""Corrections by a PACS: the same images are sent again with another patient or order."""

from __future__ import annotations

from pydicom import Dataset

from stillscan.operators.dicom.attributes import text_of
from stillscan.operators.errors import InputError
from stillscan.operators.reading.decoder import Decoder, Scanned

PATIENT_AND_ORDER = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "OtherPatientIDs",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyDescription",
    "AccessionNumber",
    "AdmissionID",
    "ReferringPhysicianName",
    "RequestingPhysician",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)


def is_newer_copy(newer: Scanned, older: Scanned, decoder: Decoder) -> bool:
    """Whether two files of one instance contain the same image, or the older one is damaged.

    If a scanner uses one SOPInstanceUID for two images, that is not a correction: both are kept,
    and the series is refused.
    """
    first, second = newer.instance, older.instance
    if first is None or second is None:
        return first is not None
    if (first.image, first.frames) != (second.image, second.frames):
        return False
    length = first.image.frame_bytes
    try:
        return all(
            decoder.read([(first.path, frame)], length)[0].stored
            == decoder.read([(second.path, frame)], length)[0].stored
            for frame in range(first.image.frames)
        )
    except InputError:
        return False


def whose(header: Dataset) -> list[str]:
    """Patient and order of an image, as text."""
    return [text_of(header, keyword).rstrip("^= ") for keyword in PATIENT_AND_ORDER]

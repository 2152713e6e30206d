"""Synthetic classic MR series, written as a scanner would write them."""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

BITS_STORED = 12


def made_up_uid(maker: str, number: int, *what: object) -> str:
    """Return a UID that depends only on the arguments; `maker` and `number` distinguish series."""
    # pydicom's generate_uid takes no entropy for UIDs below 2.25: they would be random
    words = "/".join([maker, str(number), *map(str, what)])
    return f"2.25.{uuid5(NAMESPACE_OID, words).int}"


def mr_header(matrix: int, pixel_mm: float) -> Dataset:
    """Return the shared header (PS3.3 A.4), without UIDs, patient, description and sequence.

    Axial spoiled or unspoiled gradient echo slices, 12 bits unsigned.
    """
    header = Dataset()
    header.SOPClassUID = MRImageStorage
    header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    header.PositionReferenceIndicator = ""
    header.StudyDate = header.SeriesDate = header.ContentDate = "20260101"
    header.StudyTime = header.SeriesTime = header.ContentTime = "120000"
    header.PatientBirthDate = header.ReferringPhysicianName = header.AccessionNumber = ""
    header.PatientSex = "O"
    header.StudyID = "1"
    header.SeriesNumber = 2
    header.AcquisitionNumber = 1
    header.Modality = "MR"
    header.Manufacturer = "Stillscan project"
    header.PatientPosition = "HFS"
    header.ScanningSequence = "GR"
    header.ScanOptions = ""
    header.MRAcquisitionType = "2D"
    header.EchoTrainLength = 1
    header.PixelSpacing = [pixel_mm, pixel_mm]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.Rows = header.Columns = matrix
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, BITS_STORED, BITS_STORED - 1
    header.PixelRepresentation = 0
    return header


def write_slice(
    file: Path,
    header: Dataset,
    uid: str,
    number: int,
    corner_mm: tuple[float, ...],
    image: np.ndarray,
) -> None:
    """Write one instance.

    Args:
        file: gets it.
        header: what all instances of the series share.
        uid: SOPInstanceUID.
        number: InstanceNumber.
        corner_mm: ImagePositionPatient; of axial slices, the last is their height.
        image: in stored values; rounded, and clipped to what the bits hold.
    """
    instance = Dataset(header)
    instance.SOPInstanceUID = uid
    instance.InstanceNumber = number
    instance.ImagePositionPatient = list(corner_mm)
    instance.SliceLocation = corner_mm[2]
    stored = np.clip(np.rint(image), 0, 2**BITS_STORED - 1).astype("<u2")
    instance.PixelData = stored.tobytes()
    instance["PixelData"].VR = "OW"
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.save_as(file, enforce_file_format=True)

"""The generated images as one classic MR series, and the truth that no scanner can give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from bench.phantom.acquisition import Image, Protocol, acquire

Series = Float32[np.ndarray, "slice row column"]
WINDOW_CENTER, WINDOW_WIDTH = 700, 1400


@dataclass(frozen=True)
class GeneratedSeries:
    """What was written, and what is known about it.

    Attributes:
        folder: holds the instances and nothing else.
        truth: noise-free images in stored values, ordered by InstanceNumber.
        lesions: share of each pixel that is white matter lesion.
        noise: standard deviation of the noise where the signal is well above it.
    """

    folder: Path
    truth: Series
    lesions: Series
    noise: float


def generate_series(folder: Path, protocol: Protocol, seed: int = 7) -> GeneratedSeries:
    """Image a generated head into `folder`; the same seed gives the same files."""
    images = list(acquire(protocol, seed))
    write_series(folder, images, protocol, seed)
    return GeneratedSeries(
        folder=folder,
        truth=np.stack([image.truth for image in images]),
        lesions=np.stack([image.lesions for image in images]),
        noise=protocol.noise,
    )


def write_series(folder: Path, images: Iterable[Image], protocol: Protocol, seed: int) -> None:
    """Write one instance per image, `MR0001.dcm` being the lowest slice."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = _shared_attributes(protocol, seed)
    for number, image in enumerate(images, 1):
        instance = _instance(shared, protocol, image, number, seed)
        instance.save_as(folder / f"MR{number:04d}.dcm", enforce_file_format=True)


def _uid(seed: int, *what: object) -> str:
    return generate_uid(prefix=None, entropy_srcs=["stillscan-phantom", str(seed), *map(str, what)])


def _shared_attributes(protocol: Protocol, seed: int) -> Dataset:
    """All attributes of the series (PS3.3 A.4: patient, study, series, equipment, MR image)."""
    instance = Dataset()
    instance.SOPClassUID = MRImageStorage
    instance.SpecificCharacterSet = "ISO_IR 192"
    instance.SyntheticData = "YES"
    instance.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    instance.StudyInstanceUID = _uid(seed, "study")
    instance.SeriesInstanceUID = _uid(seed, "series", protocol)
    instance.FrameOfReferenceUID = _uid(seed, "frame")
    instance.PositionReferenceIndicator = ""
    instance.StudyDate = instance.SeriesDate = instance.AcquisitionDate = "20260101"
    instance.ContentDate = "20260101"
    instance.StudyTime = instance.SeriesTime = instance.AcquisitionTime = "120000"
    instance.ContentTime = "120000"
    instance.PatientName = "Stillscan^Phantom"
    instance.PatientID = f"STILLSCAN-PHANTOM-{seed}"
    instance.PatientBirthDate = ""
    instance.PatientSex = "O"
    instance.ReferringPhysicianName = ""
    instance.AccessionNumber = ""
    instance.StudyID = "1"
    instance.StudyDescription = "Generated head, not a person"
    instance.SeriesDescription = "T1 FLASH tra (generated)"
    instance.SeriesNumber = 2
    instance.AcquisitionNumber = 1
    instance.Modality = "MR"
    instance.BodyPartExamined = "HEAD"
    instance.PatientPosition = "HFS"
    instance.Manufacturer = "Stillscan project"
    instance.ManufacturerModelName = "Generated head"
    instance.ScanningSequence = "GR"
    instance.SequenceVariant = "SP"
    instance.ScanOptions = ""
    instance.MRAcquisitionType = "2D"
    instance.RepetitionTime = protocol.repetition_ms
    instance.EchoTime = protocol.echo_ms
    instance.EchoTrainLength = 1
    instance.FlipAngle = protocol.flip_degrees
    instance.MagneticFieldStrength = 3
    instance.NumberOfAverages = 1
    instance.ImagedNucleus = "1H"
    # frequency along the columns (anterior-posterior), phase along the rows
    instance.AcquisitionMatrix = [protocol.matrix, 0, 0, protocol.phase_steps]
    instance.InPlanePhaseEncodingDirection = "ROW"
    instance.SliceThickness = protocol.thickness_mm
    instance.SpacingBetweenSlices = protocol.spacing_mm
    instance.PixelSpacing = [protocol.pixel_mm, protocol.pixel_mm]
    instance.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    instance.Rows = instance.Columns = protocol.matrix
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.BitsAllocated, instance.BitsStored, instance.HighBit = 16, 12, 11
    instance.PixelRepresentation = 0
    instance.WindowCenter, instance.WindowWidth = WINDOW_CENTER, WINDOW_WIDTH
    return instance


def _instance(shared: Dataset, protocol: Protocol, image: Image, number: int, seed: int) -> Dataset:
    instance = Dataset(shared)
    instance.SOPInstanceUID = _uid(seed, "instance", protocol, number)
    instance.InstanceNumber = number
    height = protocol.first_mm + (number - 1) * protocol.spacing_mm
    corner = -protocol.field_of_view_mm / 2
    # x to the left, y to the back, z to the head (PS3.3 C.7.6.2.1.1)
    instance.ImagePositionPatient = [corner, corner + protocol.behind_mm, height]
    instance.SliceLocation = height
    stored = np.clip(np.rint(image.noisy), 0, 4095).astype("<u2")
    instance.PixelData = stored.tobytes()
    instance["PixelData"].VR = "OW"
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    return instance

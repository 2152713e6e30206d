"""The generated images as one classic MR series, with the known truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset

from bench.mr_series import made_up_uid, mr_header, write_slice
from bench.phantom.acquisition import Image, Protocol, acquire

Series = Float32[np.ndarray, "slice row column"]
WINDOW_CENTER, WINDOW_WIDTH = 700, 1400


@dataclass(frozen=True)
class GeneratedSeries:
    """The written series and its known truth.

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
    """Write the series of a generated head to `folder`; the same seed gives the same files."""
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
    header = _header(protocol, seed)
    corner = -protocol.field_of_view_mm / 2
    for number, image in enumerate(images, 1):
        uid = _uid(seed, "instance", protocol, number)
        height = protocol.first_mm + (number - 1) * protocol.spacing_mm
        # x to the left, y to the back, z to the head (PS3.3 C.7.6.2.1.1)
        position = (corner, corner + protocol.behind_mm, height)
        write_slice(folder / f"MR{number:04d}.dcm", header, uid, number, position, image.noisy)


def _uid(seed: int, *what: object) -> str:
    return made_up_uid("stillscan-phantom", seed, *what)


def _header(protocol: Protocol, seed: int) -> Dataset:
    """Return the header that all instances of the series share."""
    header = mr_header(protocol.matrix, protocol.pixel_mm)
    header.SpecificCharacterSet = "ISO_IR 192"
    header.SyntheticData = "YES"
    header.StudyInstanceUID = _uid(seed, "study")
    header.SeriesInstanceUID = _uid(seed, "series", protocol)
    header.FrameOfReferenceUID = _uid(seed, "frame")
    header.AcquisitionDate, header.AcquisitionTime = header.StudyDate, header.StudyTime
    header.PatientName = "Stillscan^Phantom"
    header.PatientID = f"STILLSCAN-PHANTOM-{seed}"
    header.StudyDescription = "Generated head, not a person"
    header.SeriesDescription = "T1 FLASH tra (generated)"
    header.BodyPartExamined = "HEAD"
    header.ManufacturerModelName = "Generated head"
    header.SequenceVariant = "SP"
    header.RepetitionTime = protocol.repetition_ms
    header.EchoTime = protocol.echo_ms
    header.FlipAngle = protocol.flip_degrees
    header.MagneticFieldStrength = 3
    header.NumberOfAverages = 1
    header.ImagedNucleus = "1H"
    # frequency along the columns (anterior-posterior), phase along the rows
    header.AcquisitionMatrix = [protocol.matrix, 0, 0, protocol.phase_steps]
    header.InPlanePhaseEncodingDirection = "ROW"
    header.SliceThickness = protocol.thickness_mm
    header.SpacingBetweenSlices = protocol.spacing_mm
    header.WindowCenter, header.WindowWidth = WINDOW_CENTER, WINDOW_WIDTH
    return header

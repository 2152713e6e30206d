"""What tests of writing share: files become blocks, blocks a derived series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from operators.deriving import DerivedSeries, OutputOptions, derive_series
from operators.provenance import Provenance
from operators.volume import SliceHeader, Volume, VolumeBlock

IDENTITY = Provenance(
    version="0.1.0",
    bundle="mr",
    model_sha256="0" * 64,
    mode="identity",
    strength=1.0,
    engine="torch",
    precision="float32",
    device="cpu",
)
STUDENT = replace(IDENTITY, mode="student")
Denoise = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Denoised:
    """The two fields of a DenoisedBlock that writing needs."""

    block: VolumeBlock
    pixels: np.ndarray


class NoReader:
    def read(self, slices: Sequence[SliceHeader]) -> tuple[list[Dataset], np.ndarray]:
        raise NotImplementedError


def unchanged(pixels: np.ndarray) -> np.ndarray:
    return pixels


def smoothed(pixels: np.ndarray) -> np.ndarray:
    """Quieter with the same mean: the mean of each pixel and its neighbours, wrapped around."""
    rows = pixels + np.roll(pixels, 1, axis=-2) + np.roll(pixels, -1, axis=-2)
    return ((rows + np.roll(rows, 1, axis=-1) + np.roll(rows, -1, axis=-1)) / 9).astype(np.float32)


def explicit_header(file: Path) -> Dataset:
    header = pydicom.dcmread(file)
    del header.PixelData
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    again = BytesIO()
    pydicom.dcmwrite(again, header, implicit_vr=False, little_endian=True)
    again.seek(0)
    return pydicom.dcmread(again)


def read_blocks(files: Sequence[Path], size: int = 3) -> tuple[Volume, list[VolumeBlock]]:
    """One series as a volume and its blocks of `size` slices."""
    datasets = [pydicom.dcmread(file) for file in files]
    slices = tuple(
        SliceHeader(
            path=file,
            frame=0,
            sop_instance_uid=each.SOPInstanceUID,
            instance_number=each.InstanceNumber,
            position=None,
            slope=float(each.get("RescaleSlope", 1)),
            intercept=float(each.get("RescaleIntercept", 0)),
        )
        for file, each in zip(files, datasets, strict=True)
    )
    first = datasets[0]
    volume = Volume(
        study_instance_uid=first.StudyInstanceUID,
        series_instance_uid=first.SeriesInstanceUID,
        sop_class_uid=first.SOPClassUID,
        modality=first.Modality,
        rows=first.Rows,
        columns=first.Columns,
        unit="HU" if first.Modality == "CT" else "1",
        slices=slices,
        reader=NoReader(),
        sibling_series_numbers=frozenset({int(first.SeriesNumber or 0)}),
    )
    blocks = []
    for start in range(0, len(files), size):
        part = range(start, min(start + size, len(files)))
        stored = np.stack([datasets[i].pixel_array for i in part])
        shape = (-1, 1, 1)
        slope = np.array([slices[i].slope for i in part]).reshape(shape)
        intercept = np.array([slices[i].intercept for i in part]).reshape(shape)
        padding = np.zeros(stored.shape, bool)
        if "PixelPaddingValue" in first:
            ends = [
                first.PixelPaddingValue,
                first.get("PixelPaddingRangeLimit", first.PixelPaddingValue),
            ]
            padding = (stored >= min(ends)) & (stored <= max(ends))
        headers = []
        for i in part:
            headers.append(explicit_header(files[i]))
        blocks.append(
            VolumeBlock(
                volume=volume,
                start=start,
                headers=tuple(headers),
                stored=stored,
                pixels=(stored * slope + intercept).astype(np.float32),
                padding=padding,
            )
        )
    return volume, blocks


def derive(
    files: Sequence[Path],
    folder: Path,
    denoise: Denoise = unchanged,
    provenance: Provenance = IDENTITY,
    options: OutputOptions | None = None,
    **volume_fields: object,
) -> DerivedSeries:
    """The derived series of these files, in `folder`."""
    volume, blocks = read_blocks(files)
    volume = replace(volume, **volume_fields)
    denoised = [Denoised(block, denoise(block.pixels)) for block in blocks]
    return derive_series(denoised, volume, provenance, folder, options)

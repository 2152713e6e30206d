"""What tests of writing share: files are read, denoised by a given function, and derived."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.data import get_testdata_file

from bench.derived import EVERYTHING
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.read_series import find_series, read_series
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.derive_series import DerivedSeries, OutputOptions, derive_series
from stillscan.operators.writing.provenance import Provenance

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
Denoise = Callable[[VolumeBlock], np.ndarray]


@dataclass(frozen=True)
class Denoised:
    """The two fields of a DenoisedBlock that writing needs."""

    block: VolumeBlock
    pixels: np.ndarray


@dataclass(frozen=True)
class Derivation:
    """A derived series beside its source."""

    volume: Volume
    series: DerivedSeries

    @property
    def files(self) -> list[tuple[Path, Path]]:
        """Source and derived file of each instance."""
        sources = dict.fromkeys(each.path for each in self.volume.slices)
        return list(zip(sources, self.series.files, strict=True))

    @property
    def pairs(self) -> list[tuple[Dataset, Dataset]]:
        """Source and derived data set of each instance."""
        return [(pydicom.dcmread(a), pydicom.dcmread(b)) for a, b in self.files]


def unchanged(block: VolumeBlock) -> np.ndarray:
    return block.pixels


def smoothed(block: VolumeBlock) -> np.ndarray:
    """Quieter with the same mean: each real pixel halfway to the mean of its row neighbours."""
    near = (np.roll(block.pixels, 1, axis=-1) + np.roll(block.pixels, -1, axis=-1)) / 2
    change = np.where(block.padding, 0, (near - block.pixels) / 2)
    real = np.maximum((~block.padding).sum(axis=(1, 2), keepdims=True), 1)
    change -= np.where(block.padding, 0, change.sum(axis=(1, 2), keepdims=True) / real)
    return (block.pixels + change).astype(np.float32)


@cache
def decoder() -> Decoder:
    """One reading process for all tests."""
    shared = Decoder().__enter__()
    atexit.register(shared.close)
    return shared


def volumes_in(folder: Path) -> list[Volume]:
    """Every series of a folder that can be read."""
    catalogue = find_series(folder, decoder(), EVERYTHING)
    return [read_series(candidate, decoder()) for candidate in catalogue.candidates]


def real_volumes(data: Path, folder: Path) -> Iterator[tuple[str, Volume]]:
    """Every classic series of the development data, and the two images that come with pydicom.

    `ct_chest_transfer_syntaxes` is one instance in many files: each becomes a series of its own.
    """
    for item in sorted((data / "dev" / "dicom").iterdir()):
        if item.name != "ct_chest_transfer_syntaxes":
            yield from ((item.name, volume) for volume in volumes_in(item))
    alone = sorted((data / "dev" / "dicom" / "ct_chest_transfer_syntaxes").iterdir())
    alone += [Path(get_testdata_file(name)) for name in ("MR_small.dcm", "CT_small.dcm")]
    for file in alone:
        own = folder / file.name
        own.mkdir()
        shutil.copy(file, own)
        yield from ((file.name, volume) for volume in volumes_in(own))


def blocks_of(volume: Volume, size: int = 3) -> list[VolumeBlock]:
    """The volume in blocks of `size` slices."""
    count = len(volume.slices)
    return [volume.read(start, min(start + size, count)) for start in range(0, count, size)]


def derive_volume(
    volume: Volume,
    folder: Path,
    denoise: Denoise = unchanged,
    provenance: Provenance = IDENTITY,
    options: OutputOptions | None = None,
) -> Derivation:
    """The derived series of a volume, in `folder`."""
    denoised = (Denoised(block, denoise(block)) for block in blocks_of(volume))
    return Derivation(volume, derive_series(denoised, volume, provenance, folder, options))


def derive(
    source: Path,
    denoise: Denoise = smoothed,
    provenance: Provenance = STUDENT,
    options: OutputOptions | None = None,
    **volume_fields: object,
) -> Derivation:
    """The derived series of the only series in folder `source`, in a folder beside it."""
    (volume,) = volumes_in(source)
    volume = replace(volume, **volume_fields)
    return derive_volume(volume, source.with_name("derived"), denoise, provenance, options)


def raw_values(path: Path) -> dict[int, bytes]:
    """The top-level elements of an Explicit VR Little Endian file as bytes."""
    dataset = pydicom.dcmread(path, defer_size=None)
    return {int(tag): element.value for tag, element in dataset.items()}

"""Makes the objects beside a derived series: maps of its uncertainty and noise, and a report.

Each has a series of its own, staged beside the derived one as `<its SeriesInstanceUID>/*.dcm`.
highdicom is imported with the first object that is made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset

from stillscan.operators.dicom.attributes import text_of
from stillscan.operators.dicom.elements import whole_number
from stillscan.operators.durable_files import sync, write_synced
from stillscan.operators.errors import ResultError
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.derived_header import free_series_number
from stillscan.operators.writing.derived_uids import derived_instance_uid
from stillscan.operators.writing.provenance import Provenance

if TYPE_CHECKING:
    from stillscan.operators.writing.companions.measurement_report import Measured
    from stillscan.operators.writing.companions.parametric_maps import Kind

NO_ERROR_ESTIMATE = "no uncertainty map was written: this denoiser gives no estimate of its error"
WRITE = "write an object beside a series"
NO_PLACE = "no map was written: the images have no position in a frame of reference"


class ObjectNotMadeError(ResultError):
    """A requested map or report cannot be made from this source series."""

    reason = "object-not-made"


@dataclass(frozen=True)
class ObjectOptions:
    """Which objects are made beside each derived series.

    Attributes:
        uncertainty_map: standard deviation of the error at each pixel (Parametric Map).
        noise_map: standard deviation of the noise at each pixel (Parametric Map).
        measurements: noise, gate and provenance as a report (Enhanced SR, TID 1500).
    """

    uncertainty_map: bool = False
    noise_map: bool = False
    measurements: bool = False


@dataclass(frozen=True)
class SeriesObject:
    """A series of objects on disk, in a folder named by its SeriesInstanceUID."""

    kind: str
    series_instance_uid: str
    instances: int


class DenoisedWithMaps(Protocol):
    """The part of a `DenoisedBlock` that the maps need."""

    @property
    def block(self) -> VolumeBlock:
        """Return the block of the source series."""

    @property
    def spread(self) -> Float32[np.ndarray, "slice row column"] | None:
        """Return the standard deviation of the error in the source's unit."""

    @property
    def sigma(self) -> Float32[np.ndarray, "slice row column"] | None:
        """Return the standard deviation of the noise in the source's unit."""


class ObjectFiles:
    """Numbers and writes objects of one source series, each kind as a series of its own."""

    def __init__(self, volume: Volume, staging: Path, series_number_factor: int) -> None:
        """Store the arguments; nothing is written yet."""
        self._volume = volume
        self._staging = staging
        self._factor = series_number_factor
        self._numbers: dict[str, int | None] = {}
        self._made: dict[str, SeriesObject] = {}

    def number_of(self, kind: str, header: Dataset) -> int | None:
        """Return the SeriesNumber of an object: the next free one after the derived series (W3)."""
        if kind not in self._numbers:
            source = whole_number(text_of(header, "SeriesNumber"))
            taken = set(self._volume.sibling_series_numbers)
            for _ in range(len(self._numbers) + 2):  # the derived series', those before, and ours
                number = free_series_number(source, frozenset(taken), self._factor)
                taken |= {number} if number is not None else set()
            self._numbers[kind] = number
        return self._numbers[kind]

    def write(self, kind: str, dataset: Dataset) -> None:
        """Write one object.

        Raises:
            OutputError: if it cannot be written.
        """
        uid = str(dataset.SeriesInstanceUID)
        made = self._made.setdefault(kind, SeriesObject(kind, uid, 0))
        self._made[kind] = replace(made, instances=made.instances + 1)
        with naming_output_faults(WRITE):
            folder = self._staging / uid
            folder.mkdir(exist_ok=True)
            write_synced(folder / f"{dataset.SOPInstanceUID}.dcm", dataset.save_as)

    def finish_files(self) -> tuple[SeriesObject, ...]:
        """Return all objects, after their folders are on disk."""
        with naming_output_faults(WRITE):
            for made in self._made.values():
                sync(self._staging / made.series_instance_uid)
        return tuple(self._made.values())

    def discard(self) -> None:
        """Remove everything that was written."""
        for made in self._made.values():
            shutil.rmtree(self._staging / made.series_instance_uid, ignore_errors=True)


class SeriesObjects(ObjectFiles):
    """Makes the objects of one derived series, block by block."""

    def __init__(
        self,
        volume: Volume,
        derived_series_uid: str,
        provenance: Provenance,
        staging: Path,
        options: ObjectOptions,
        series_number_factor: int,
    ) -> None:
        """Store the arguments; nothing is made or written yet."""
        super().__init__(volume, staging, series_number_factor)
        self.warnings: list[str] = []
        self._derived_series_uid = derived_series_uid
        # of an image alone, so that the objects of its neighbours are others
        self._of = (
            derived_instance_uid(derived_series_uid, volume.slices[0].sop_instance_uid)
            if volume.beside
            else derived_series_uid
        )
        self._provenance = provenance
        self._options = options
        self._header: Dataset | None = None

    def add(self, denoised: DenoisedWithMaps) -> None:
        """Write the maps of the next block.

        Raises:
            OutputError: if they cannot be written.
        """
        if self._header is None:
            self._header = denoised.block.headers[0]
        maps: Mapping[Kind, tuple[bool, np.ndarray | None]] = {
            "uncertainty": (self._options.uncertainty_map, denoised.spread),
            "noise": (self._options.noise_map, denoised.sigma),
        }
        for kind, (wanted, values) in maps.items():
            if not wanted:
                continue
            if values is None:
                self._warn(NO_ERROR_ESTIMATE)
            else:
                self._write_map(kind, denoised.block, values)

    def finish(
        self, measured: Measured, sop_instance_uids: tuple[str, ...]
    ) -> tuple[SeriesObject, ...]:
        """Write the report, if it is enabled, and return all objects made for the series."""
        if self._options.measurements and self._header is not None:
            from stillscan.operators.writing.companions.measurement_report import measurement_report

            with naming_what_failed("measurements"):
                report = measurement_report(
                    self._volume,
                    self._header,
                    (self._derived_series_uid, sop_instance_uids),
                    self._of,
                    self.number_of("measurements", self._header),
                    measured,
                    self._provenance,
                )
            self.write("measurements", report)
        return self.finish_files()

    def _write_map(self, kind: Kind, block: VolumeBlock, values: np.ndarray) -> None:
        from stillscan.operators.writing.companions.parametric_maps import MapSeries

        number = self.number_of(kind, block.headers[0])
        series = MapSeries(kind, self._of, number, self._provenance)
        with naming_what_failed(kind):
            instances = list(series.instances(block, values, self._volume.unit))
        for dataset in instances:
            self.write(kind, dataset)
        if not instances:
            self._warn(NO_PLACE)

    def _warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)


@contextmanager
def naming_what_failed(kind: str) -> Iterator[None]:
    """Replace errors of highdicom, whose text may hold values of the header."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ObjectNotMadeError(f"{kind}: {type(error).__name__}") from error

"""A series in memory: geometry of each slice, pixels in modality units, read in blocks on demand.

A slice is a classic instance, one frame of a multi-frame instance, or one tile of a mosaic,
identified by `(path, frame)`. For the slices of a volume these rules hold:

- every frame of every instance occurs exactly once, so the derived series has all of them (W1);
- the frames of one instance are consecutive, `slices[i].frames` of them, but in the order of space
  and time, not of the file: a writer puts each at its own `frame`. A block may begin and end inside
  an instance;
- `VolumeBlock.headers` has one entry per slice. It is the instance's whole data set without pixel
  data, functional groups of all frames included, and the *same object* for all frames of the
  instance, in all blocks that are read one after the other, so that memory does not grow with
  frames: it must not be changed. The functional groups of a frame are item `frame` of its
  PerFrameFunctionalGroupsSequence;
- the values of a frame's functional groups that the pipeline needs are in its `SliceHeader`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Integer
from pydicom import Dataset

from stillscan.operators.geometry import NOWHERE, Affine, Plane, affine_lps, affine_ras
from stillscan.operators.mosaic import Mosaic

BLOCK_PIXELS = 2**21  # pixels in a block: 8 slices of 512x512, 8 MB of float32
Place = tuple[int, ...]  # equal for slices at the same position
FLOAT64_AT_ONCE = 2**16  # pixels that are rescaled at once: they stay in the cache


@dataclass(frozen=True, slots=True)
class Timing:
    """What a header says of an image's place in time; None where an attribute is absent.

    Attributes:
        trigger_time_ms: TriggerTime.
        delay_ms: NominalCardiacTriggerDelayTime.
        temporal_identifier: TemporalPositionIdentifier.
        temporal_index: TemporalPositionIndex.
        interval_ms: NominalInterval, or RRIntervalTimeNominal.
        phases: CardiacNumberOfImages, or NumberOfTemporalPositions.
        rejected: 1 where BeatRejectionFlag is Y.
    """

    trigger_time_ms: float | None = None
    delay_ms: float | None = None
    temporal_identifier: float | None = None
    temporal_index: float | None = None
    interval_ms: float | None = None
    phases: float | None = None
    rejected: float | None = None


@dataclass(frozen=True)
class SliceHeader:
    """The properties of one image that the pipeline needs before its pixels are read.

    `frame` counts from 0 in the order of the file and is 0 for classic instances; `frames` is the
    number of frames of its instance. `position` is along the slice normal in mm, None if the image
    has no geometry; `plane` is its geometry. `slope` and `intercept` are those of this slice
    (PS3.3 C.11.1; of a frame, PS3.3 C.7.6.16.2.9), `padding` is the least and the greatest stored
    value that is pixel padding (PS3.3 C.7.5.1.1.2). Slices with the same `place` are repeated
    acquisitions at one position, or phases of a cine; None if the position is not known.
    """

    path: Path
    frame: int
    sop_instance_uid: str
    instance_number: int | None
    position: float | None
    slope: float
    intercept: float
    padding: tuple[int, int] | None = None
    frames: int = 1
    place: Place | None = None
    plane: Plane = NOWHERE
    timing: Timing = Timing()


class SliceReader(Protocol):
    """Reads slices; the implementation decodes in a limited child process."""

    def read(self, slices: Sequence[SliceHeader]) -> tuple[list[Dataset], np.ndarray]:
        """Return headers (without pixel data) and stored values [slice, row, column].

        Frames of one instance share one header: it is never changed.
        """
        ...


@dataclass(frozen=True)
class VolumeBlock:
    """Consecutive slices of one series with their pixels.

    Attributes:
        volume: the series they belong to.
        start: index of the first of them in `volume.slices`.
        headers: their datasets, without pixel data; frames of one instance share one object.
        stored: the stored values as decoded (integers).
        pixels: `stored * slope + intercept` in modality units, float32.
        padding: True where the stored value is pixel padding (PS3.3 C.7.5.1.1.2), never denoised.
    """

    volume: Volume
    start: int
    headers: tuple[Dataset, ...]
    stored: Integer[np.ndarray, "slice row column"]
    pixels: Float32[np.ndarray, "slice row column"]
    padding: Bool[np.ndarray, "slice row column"]

    @property
    def stop(self) -> int:
        """Return the index after the last slice of this block."""
        return self.start + len(self.headers)

    @property
    def is_last(self) -> bool:
        """Return whether the series ends with this block."""
        return self.stop == len(self.volume.slices)


@dataclass(frozen=True)
class Volume:
    """One series: slices in geometrical order, one matrix, one photometric interpretation.

    Attributes:
        slices: by stack, repetition and position along the slice normal, the frames of an
            instance together.
        rows, columns: matrix of all slices.
        unit: of the pixels: RescaleType or Units, "HU" in a CT that has none, else "1".
        sibling_series_numbers: SeriesNumbers of all known series of the study (W3).
        beside: SOPInstanceUIDs of the other images of the series, if each is denoised separately
            (radiographs); the derived images form one series.
        left_out: description of the images of the series that are not denoised; "" for none.
        correction: how often the patient or order of the series had been corrected before.
        mosaic: layout of the slices in mosaic images; None if each slice is an image or frame.
        cleared: slices that had bits set above BitsStored, which were cleared when they were read.
        together: slices of a block; 0 for as many as fit into BLOCK_PIXELS.
        warnings: messages for the user (a gap, a duplicate that was left out).
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    modality: str
    rows: int
    columns: int
    unit: str
    slices: tuple[SliceHeader, ...]
    reader: SliceReader
    sibling_series_numbers: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()
    beside: frozenset[str] = frozenset()
    left_out: str = ""
    correction: int = 0
    mosaic: Mosaic | None = None
    cleared: AbstractSet[SliceHeader] = frozenset()
    together: int = 0

    @property
    def found_in_pixels(self) -> tuple[str, ...]:
        """Return warnings about the pixels that have been read so far."""
        if not self.cleared:
            return ()
        number = f"{len(self.cleared)} of {len(self.slices)} slices"
        return (f"bits above BitsStored were set in {number}; they were cleared (PS3.5 8.1.1)",)

    @property
    def affine_lps(self) -> Affine:
        """Return the affine from (column, row, slice) to mm in LPS, as in DICOM.

        Raises:
            NotOneVolumeError: if the slices are not parallel, or not evenly spaced.
        """
        return affine_lps([each.plane for each in self.slices])

    @property
    def affine_ras(self) -> Affine:
        """Return the affine from (column, row, slice) to mm in RAS, as in NIfTI.

        Raises:
            NotOneVolumeError: if the slices are not parallel, or not evenly spaced.
        """
        return affine_ras([each.plane for each in self.slices])

    def read(self, start: int, stop: int) -> VolumeBlock:
        """Read the slices [start, stop) with their pixels.

        Raises:
            InputError: if a slice cannot be decoded, or its file has changed.
        """
        slices = self.slices[start:stop]
        headers, stored = self.reader.read(slices)
        return VolumeBlock(
            volume=self,
            start=start,
            headers=tuple(headers),
            stored=stored,
            pixels=in_modality_units(stored, slices),
            padding=padding_of(stored, slices),
        )

    def blocks(self) -> Iterator[VolumeBlock]:
        """Yield the whole series in blocks of at most BLOCK_PIXELS pixels, or of `together`."""
        size = self.together or max(1, BLOCK_PIXELS // (self.rows * self.columns))
        for start in range(0, len(self.slices), size):
            yield self.read(start, min(start + size, len(self.slices)))


def unit_of(modality: str) -> str:
    """Return the unit assumed for images of a modality whose header has none."""
    return "HU" if modality == "CT" else "1"


def in_modality_units(
    stored: Integer[np.ndarray, "slice row column"], slices: Sequence[SliceHeader]
) -> Float32[np.ndarray, "slice row column"]:
    """Return `stored * slope + intercept`; both may differ between slices (Philips MR, PET)."""
    pixels = np.empty(stored.shape, np.float32)
    rows_at_once = max(1, FLOAT64_AT_ONCE // stored.shape[2])
    for image, values, header in zip(pixels, stored, slices, strict=True):
        for row in range(0, len(values), rows_at_once):
            rows = slice(row, row + rows_at_once)
            image[rows] = values[rows] * header.slope + header.intercept  # float64, rounded once
    return pixels


def padding_of(
    stored: Integer[np.ndarray, "slice row column"], slices: Sequence[SliceHeader]
) -> Bool[np.ndarray, "slice row column"]:
    """Return where the stored value is pixel padding."""
    padding = np.zeros(stored.shape, np.bool_)
    for image, values, header in zip(padding, stored, slices, strict=True):
        if header.padding is not None:
            least, greatest = header.padding
            image[...] = (values >= least) & (values <= greatest)
    return padding

"""Writes a cine with made phases between its acquired ones, as one derived series."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import Dataset

from stillscan.operators.cine import CARDIAC, CineError, CineSeries, cine_series
from stillscan.operators.denoising.plan import plan_from, read_sample
from stillscan.operators.dicom.attributes import number_of, put, put_text, tag_of
from stillscan.operators.durable_files import sync
from stillscan.operators.interpolation.frames import made_pixels
from stillscan.operators.interpolation.phases import MadePhase, Wanted, planned_phases
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.report.display import display_window, pixel_aspect
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.derive_series import DerivedSeries, OutputOptions
from stillscan.operators.writing.derived_file import DerivedInstance, put_range, write_file
from stillscan.operators.writing.derived_header import SeriesHeader
from stillscan.operators.writing.derived_uids import derived_instance_uid
from stillscan.operators.writing.pixel_encoding import syntax_for
from stillscan.operators.writing.provenance import Provenance
from stillscan.operators.writing.stored_values import Change, pixel_format, store_slice


class MultiFrameCineError(CineError):
    """The phases are frames of multi-frame instances, whose dimensions would have to be remade."""

    reason = "cine-multi-frame-not-supported"


@dataclass(frozen=True)
class Film:
    """The phases of one place, for the page.

    Attributes:
        pictures: stored values in modality units.
        made: for each phase, whether it was made.
        acquired: for each phase, the picture that the source shows at its time.
        window: lowest and highest value shown.
        beat_ms: time of one beat; None where it is not known.
        pixel_aspect: height of a pixel over its width.
    """

    pictures: list[np.ndarray]
    made: list[bool]
    acquired: list[np.ndarray]
    window: tuple[float, float]
    beat_ms: float | None
    pixel_aspect: float


def interpolate_series(
    volume: Volume,
    wanted: Wanted,
    provenance: Provenance,
    staging: Path,
    options: OutputOptions,
    *,
    allow_uneven: bool = False,
) -> tuple[DerivedSeries, Film]:
    """Write the interpolated series of a classic cine into `staging/<its SeriesInstanceUID>/`.

    Raises:
        InputError: if the series is no cine, or cannot be read.
        ResultError: if the motion between two of its phases is not explained; nothing is left.
        OutputError: if it cannot be written; nothing is left.
    """
    cine = cine_series(volume, allow_uneven=allow_uneven or wanted.fill, allow_missing=wanted.fill)
    if any(each.frames > 1 for each in volume.slices) or volume.mosaic:
        raise MultiFrameCineError(
            "the phases are frames of a multi-frame instance; expected MR images of one frame each"
        )
    places = planned_phases(cine, wanted)
    requested = {"interpolation": wanted, "uneven": allow_uneven}
    writer = _Writer(cine, places, provenance, staging, options, str(requested))
    try:
        for place in range(len(places)):
            writer.add(place)
        return writer.finish(), writer.film
    except BaseException:
        shutil.rmtree(writer.folder, ignore_errors=True)
        raise


class _Writer:
    """The series that is being written."""

    film: Film

    def __init__(
        self,
        cine: CineSeries,
        places: Sequence[Sequence[MadePhase]],
        provenance: Provenance,
        staging: Path,
        options: OutputOptions,
        requested: str,
    ) -> None:
        sample = read_sample(cine.volume)
        self._plan = plan_from(sample)
        self._cine, self._places = cine, places
        self._volume = replace(sample.volume, left_out=cine.volume.left_out)
        self._provenance, self._options = provenance, options
        first = self._volume.read(0, 1).headers[0]
        self._header = SeriesHeader(first, self._volume, provenance, options, requested)
        self.folder = staging / self._header.series_instance_uid
        with naming_output_faults("make the folder of a series"):
            self.folder.mkdir()
        self._uids: list[str] = []
        self._changes: list[Change] = []

    def add(self, number: int) -> None:
        """Make and write the phases of one place."""
        indices, phases = self._cine.indices[number], self._places[number]
        slices = tuple(self._volume.slices[index] for index in indices)
        block = replace(self._volume, slices=slices).read(0, len(slices))
        at = {index: place for place, index in enumerate(indices)}
        pixels = made_pixels(phases, block, at, self._plan)
        shown = []
        for count, phase in enumerate(phases):
            shown.append(
                self._write(block, at[phase.nearer], phase, pixels.get(count), number, count)
            )
        if number == len(self._places) // 2:
            self.film = self._filmed(block, at, phases, shown)

    def _write(
        self,
        block: VolumeBlock,
        at: int,
        phase: MadePhase,
        pixels: np.ndarray | None,
        place: int,
        count: int,
    ) -> np.ndarray:
        """Write one phase, with the header of the nearer acquired one; return its pixels."""
        slice_ = block.volume.slices[at]
        layout = pixel_format(block.headers[at], slice_.padding)
        stored = block.stored[at]
        if pixels is not None:
            stored, change = store_slice(
                stored,
                block.pixels[at],
                pixels,
                block.padding[at],
                slice_.slope,
                slice_.intercept,
                layout,
            )
            self._changes.append(change)
        derived = self._header.derive(block.headers[at], phase)
        total = len(self._places[place])
        put_phase(derived, phase, self._cine, place * total + count + 1, count + 1, total)
        uid = derived_instance_uid(self._header.series_instance_uid, _name_of(phase))
        put_text(derived, "SOPInstanceUID", uid)
        syntax = syntax_for(self._options.transfer_syntax, [layout])
        instance = DerivedInstance(1, self.folder, syntax, layout)
        with naming_output_faults("write an image"):
            instance.add(0, stored)
            put_range(derived, *instance.range, layout)
            file = self.folder / f"{uid}.dcm"
            write_file(file, instance.part10(derived, self._provenance.version))
            instance.close()
            sync(file)
        self._uids.append(uid)
        return np.asarray(stored * slice_.slope + slice_.intercept, np.float32)

    def _filmed(
        self,
        block: VolumeBlock,
        at: dict[int, int],
        phases: Sequence[MadePhase],
        shown: list[np.ndarray],
    ) -> Film:
        cardiac = self._cine.attribute in CARDIAC
        return Film(
            pictures=shown,
            made=[each.is_made for each in phases],
            acquired=[block.pixels[at[each.first]] for each in phases],
            window=display_window(block.headers[0], block.pixels[~block.padding]),
            beat_ms=self._cine.interval_ms if cardiac else None,
            pixel_aspect=pixel_aspect(block.volume.slices[0]),
        )

    def finish(self) -> DerivedSeries:
        """Return the complete series."""
        with naming_output_faults("write a series"):
            sync(self.folder)
        real = max(sum(each.real for each in self._changes), 1)
        return DerivedSeries(
            series_instance_uid=self._header.series_instance_uid,
            series_number=self._header.series_number,
            folder=self.folder,
            instances=len(self._uids),
            sop_instance_uids=tuple(self._uids),
            clipped_share=sum(each.clipped for each in self._changes) / real,
            changed_share=sum(each.changed for each in self._changes) / real,
            mean_shift=max(abs(each.mean_shift) for each in self._changes),
        )


def put_phase(
    derived: Dataset, phase: MadePhase, cine: CineSeries, number: int, position: int, total: int
) -> None:
    """Set the attributes of time of one phase.

    Args:
        derived: header, copied from the nearer acquired phase.
        phase: what it shows.
        cine: the source.
        number: of the image in the series, from 1.
        position: of the phase at its place, from 1.
        total: phases at each place.
    """
    put_text(derived, "InstanceNumber", str(number))
    put_text(derived, "TemporalPositionIdentifier", str(position))
    put_text(derived, "NumberOfTemporalPositions", str(total))
    if tag_of("CardiacNumberOfImages") in derived or cine.attribute in CARDIAC:
        put_text(derived, "CardiacNumberOfImages", str(total))
    if tag_of("TemporalPositionIndex") in derived:
        put(derived, "TemporalPositionIndex", struct.pack("<I", position))
    resolution = number_of(derived, "TemporalResolution")
    if resolution is not None:
        put_text(derived, "TemporalResolution", f"{resolution * cine.phases / total:.10g}")
    if not phase.is_made:
        return
    put_text(derived, "SyntheticData", "YES")
    if cine.attribute == "TriggerTime":
        put_text(derived, "TriggerTime", f"{phase.time:.10g}")
    if cine.attribute in CARDIAC and tag_of("NominalCardiacTriggerDelayTime") in derived:
        put(derived, "NominalCardiacTriggerDelayTime", struct.pack("<d", phase.time))
    if tag_of("BeatRejectionFlag") in derived:
        put_text(derived, "BeatRejectionFlag", "N")


def _name_of(phase: MadePhase) -> str:
    """Return what tells the phase from others of its series."""
    return f"{' '.join(phase.sources)} {phase.gamma:.6g}" if phase.is_made else phase.sources[0]

"""Makes the uncertainty map and the noise map of a series as Parametric Maps (float pixels).

    uncertainty = MapSeries("uncertainty", derived_series_uid, series_number, provenance)
    for dataset in uncertainty.instances(block, spread):
        ...

A map is a separate series with one frame for each slice. A block of slices becomes one instance,
so that memory does not grow with the series, or several where positions repeat or stacks change:
the frames of an instance are neighbours in space.

highdicom is imported when the first map is made, as most runs make none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float32
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from stillscan.operators.dicom.attributes import own_items, text_of
from stillscan.operators.volume import Volume, VolumeBlock
from stillscan.operators.writing.companions.identity import (
    anonymous,
    identify,
    refer_to_slices,
    view_of,
)
from stillscan.operators.writing.derived_uids import object_uid
from stillscan.operators.writing.functional_groups import PER_FRAME, SHARED
from stillscan.operators.writing.provenance import CODING_SCHEME, Provenance

if TYPE_CHECKING:
    import highdicom
    from pydicom.sr.coding import Code

Kind = Literal["uncertainty", "noise", "anomaly"]
Values = Float32[np.ndarray, "slice row column"]

# Cosines of one stack may differ that much: real GE series do in the sixth digit.
ORIENTATION_TOLERANCE = 1e-4
SAME_POSITION_MM = 1e-3
GEOMETRY = {  # of an image, and the functional group that says it of a frame
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}
PLACE = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
UNITS = {  # UCUM
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "BQML": ("Bq/ml", "Becquerels/milliliter"),
    "CNTS": ("{counts}", "Counts"),
}
LABELS: dict[Kind, tuple[str, str, str]] = {  # code, its meaning, SeriesDescription
    "uncertainty": (
        "ERROR_SD",
        "Standard deviation of the error after noise reduction",
        "Uncertainty of the denoised series",
    ),
    "noise": (
        "NOISE_SD",
        "Standard deviation of the noise before noise reduction",
        "Noise of the source series",
    ),
    "anomaly": (
        "ANOMALY_SCORE",
        "-log10 of the share of healthy pixels at or above the score",
        "Unlike training images, research",
    ),
}


@dataclass(frozen=True)
class MapSeries:
    """Makes the instances of one map."""

    kind: Kind
    derived_series_uid: str
    series_number: int | None
    provenance: Provenance

    @property
    def series_instance_uid(self) -> str:
        """Return the SeriesInstanceUID of the map."""
        return object_uid(self.derived_series_uid, self.kind)

    def instances(self, block: VolumeBlock, values: Values, unit: str) -> Iterator[Dataset]:
        """Yield the instances for one block; none where an image has no position.

        Args:
            block: the source's slices.
            values: of the map, in the source's unit.
            unit: that unit.
        """
        sources = sources_of(block)
        if not all(each in source for source in sources for each in PLACE):
            return
        for indices in stacks(sources):
            yield self._instance(block, [sources[i] for i in indices], values, unit, indices)

    def _instance(
        self,
        block: VolumeBlock,
        sources: list[Dataset],
        values: Values,
        unit: str,
        indices: Sequence[int],
    ) -> Dataset:
        import highdicom

        code, meaning, description = LABELS[self.kind]
        frames = np.ascontiguousarray(values[list(indices)], np.float32)
        limits = float(frames.min()), float(frames.max())
        quantity = code_of(code, CODING_SCHEME, meaning)
        number = block.start + indices[0] + 1
        pixel_measures, orientation, positions = planes_of(sources)
        dataset = highdicom.pm.ParametricMap(
            source_images=sources,
            pixel_array=frames,
            series_instance_uid=self.series_instance_uid,
            series_number=self.series_number or 1,
            sop_instance_uid=object_uid(self.derived_series_uid, self.kind, number),
            instance_number=number,
            manufacturer=self.provenance.application,
            manufacturer_model_name=self.provenance.application,
            software_versions=self.provenance.version,
            device_serial_number=self.provenance.model_sha256,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[
                highdicom.pm.RealWorldValueMapping(
                    lut_label=code,
                    lut_explanation=meaning,
                    unit=unit_code(unit),
                    value_range=limits,
                    slope=1.0,
                    intercept=0.0,
                    quantity_definition=quantity,
                )
            ],
            voi_lut_transformations=[
                highdicom.VOILUTTransformation(
                    window_center=sum(limits) / 2,
                    window_width=max(limits[1] - limits[0], 1e-6),
                    voi_lut_function="LINEAR_EXACT",  # a width below 1 has a meaning there alone
                )
            ],
            content_label=code,
            content_description=description,
            derivation=quantity,
            series_description=description,
            pixel_measures=pixel_measures,
            plane_orientation=orientation,
            plane_positions=positions,
        )
        uid = object_uid(self.derived_series_uid, self.kind, "dimensions")
        complete(dataset, block.headers[indices[0]], block.volume, uid, self.provenance)
        return dataset


def complete(
    dataset: Dataset, header: Dataset, volume: Volume, dimensions_uid: str, provenance: Provenance
) -> None:
    """Make an object of highdicom one of the patient, with references to the real images."""
    identify(dataset, header, provenance)
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions_uid
    (measures,) = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    if spacing := measures.get("SpacingBetweenSlices"):
        measures.SpacingBetweenSlices = f"{float(spacing):.10g}"  # highdicom: 17 characters
    refer_to_slices(dataset, volume)


def sources_of(block: VolumeBlock) -> list[Dataset]:
    """Return the slices of a block as single images; a header shared by frames is parsed once."""
    headers = {id(header): header for header in block.headers}
    groups = {
        key: {keyword: own_items(view_of(header), keyword) for keyword in (PER_FRAME, SHARED)}
        for key, header in headers.items()
    }
    return [
        _source_of(block, index, groups[id(header)]) for index, header in enumerate(block.headers)
    ]


def _source_of(block: VolumeBlock, index: int, groups: Mapping[str, list[Dataset]]) -> Dataset:
    """Return a slice for highdicom: a single image with its geometry, without patient data.

    The number of the slice is its SOPInstanceUID (`refer_to_slices` replaces it by the real one).
    """
    header = block.headers[index]
    slice_ = block.volume.slices[block.start + index]
    source = anonymous(header)
    source.SOPClassUID = CTImageStorage  # of a single image, whatever the slice is
    source.SOPInstanceUID = f"2.25.{block.start + index}"
    source.Rows, source.Columns = block.volume.rows, block.volume.columns
    of_frame = [*groups[SHARED][:1], *groups[PER_FRAME][slice_.frame : slice_.frame + 1]]
    for keyword, sequence in GEOMETRY.items():
        items = (item for group in of_frame for item in own_items(group, sequence)[:1])
        for holder in (header, *items):
            if text := text_of(holder, keyword):
                setattr(source, keyword, text.split("\\"))
    return source


def stacks(sources: Sequence[Dataset]) -> list[list[int]]:
    """Return runs of slices with one orientation and spacing and no position twice."""
    runs: list[list[int]] = []
    for index, source in enumerate(sources):
        if not runs or not _belongs(source, [sources[i] for i in runs[-1]]):
            runs.append([])
        runs[-1].append(index)
    return runs


def _belongs(source: Dataset, others: Sequence[Dataset]) -> bool:
    first = others[0]
    turned = np.subtract(source.ImageOrientationPatient, first.ImageOrientationPatient)
    if np.abs(turned.astype(float)).max() > ORIENTATION_TOLERANCE:
        return False
    if any(source.get(key) != first.get(key) for key in ("PixelSpacing", "SliceThickness")):
        return False
    place = np.array(source.ImagePositionPatient, float)
    places = np.array([each.ImagePositionPatient for each in others], float)
    return bool(np.linalg.norm(places - place, axis=1).min() > SAME_POSITION_MM)


def unit_code(unit: str) -> Code:
    """Return the unit of a series as a UCUM code."""
    value, meaning = UNITS.get(unit, ("1", "no units"))
    return code_of(value, "UCUM", meaning)


def code_of(value: str, scheme: str, meaning: str) -> Code:
    """Return a pydicom `Code`; pydicom's codes are imported when they are needed."""
    from pydicom.sr.coding import Code

    return Code(value, scheme, meaning)


def planes_of(
    sources: Sequence[Dataset],
) -> tuple[
    highdicom.PixelMeasuresSequence,
    highdicom.PlaneOrientationSequence,
    list[highdicom.PlanePositionSequence],
]:
    """Return the geometry of the frames; highdicom itself accepts no cosines that differ."""
    import highdicom

    first = sources[0]
    measures = highdicom.PixelMeasuresSequence(
        pixel_spacing=first.PixelSpacing, slice_thickness=first.get("SliceThickness")
    )
    orientation = highdicom.PlaneOrientationSequence(
        "PATIENT", image_orientation=first.ImageOrientationPatient
    )
    positions = [
        highdicom.PlanePositionSequence("PATIENT", image_position=each.ImagePositionPatient)
        for each in sources
    ]
    return measures, orientation, positions

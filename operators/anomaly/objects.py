"""DICOM objects of an anomaly map: candidate regions (SEG) and the report on them (SR)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from stillscan.operators.anomaly.assessing import ALARM, CANDIDATE, Assessment, Region
from stillscan.operators.volume import Volume
from stillscan.operators.writing.companions.identity import identify, refer_to_slices
from stillscan.operators.writing.companions.measurement_report import (
    image_of,
    own_code,
    report_content,
    report_identity,
)
from stillscan.operators.writing.companions.parametric_maps import code_of, complete, planes_of
from stillscan.operators.writing.derived_uids import object_uid
from stillscan.operators.writing.provenance import Provenance

REGIONS, REPORT = "anomaly-regions", "anomaly-report"
SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
SERIES_DESCRIPTION = "Candidate regions, research"
CANDIDATE_TYPE = ("ANOMALY_CANDIDATE", "Candidate region of an anomaly map")


@dataclass(frozen=True)
class AnomalyProvenance(Provenance):
    """Provenance of a map: nothing was denoised."""

    @property
    def contribution(self) -> str:
        """ContributionDescription in ASCII."""
        return (
            f"Anomaly map: model {self.bundle} sha256 {self.model_sha256}, {self.mode}, "
            f"{self.engine} {self.precision} on {self.device}"
        )


def regions_object(
    volume: Volume,
    header: Dataset,
    sources: Sequence[Dataset],
    numbers: np.ndarray,
    key: str,
    series_number: int | None,
    provenance: Provenance,
) -> Dataset:
    """Return the Segmentation of all candidate regions, one segment for each.

    Args:
        volume: the source.
        header: of one of its images.
        sources: its slices as `sources_of` describes them.
        numbers: of the regions; 0 elsewhere.
        key: UID that the object's own UIDs are made of.
        series_number: of its series.
        provenance: of the map.
    """
    import highdicom

    measures, orientation, positions = planes_of(sources)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=provenance.application,
        family=code_of("123110", "DCM", "Artificial Intelligence"),
        version=provenance.version,
        parameters={
            "bundle": provenance.bundle,
            "map": provenance.mode,
            "nominal share of healthy pixels": f"{10**-CANDIDATE:g}",
        },
    )
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=numbers,
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"Candidate region {number}",
                segmented_property_category=code_of(
                    "49755003", "SCT", "Morphologically Abnormal Structure"
                ),
                segmented_property_type=own_code(*CANDIDATE_TYPE),
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                tracking_uid=object_uid(key, "tracking", number),
                tracking_id=f"Candidate region {number}",
            )
            for number in range(1, int(numbers.max()) + 1)
        ],
        series_instance_uid=object_uid(key, REGIONS),
        series_number=series_number or 1,
        sop_instance_uid=object_uid(key, REGIONS, 1),
        instance_number=1,
        manufacturer=provenance.application,
        manufacturer_model_name=provenance.application,
        software_versions=provenance.version,
        device_serial_number=provenance.model_sha256,
        content_label="CANDIDATES",
        content_description=SERIES_DESCRIPTION,
        series_description=SERIES_DESCRIPTION,
        pixel_measures=measures,
        plane_orientation=orientation,
        plane_positions=positions,
    )
    complete(made, header, volume, object_uid(key, REGIONS, "dimensions"), provenance)
    return made


def anomaly_report(
    found: Assessment,
    header: Dataset,
    sources: Sequence[Dataset],
    regions: Sequence[Region],
    segmentation: Dataset | None,
    facts: dict[str, float],
    key: str,
    series_number: int | None,
    provenance: Provenance,
) -> Dataset:
    """Return the report: the likeness of the series, and each region with its volume and scores.

    Args:
        found: the assessment of the series.
        header: of one of its images.
        sources: its slices as `sources_of` describes them.
        regions: of `found`.
        segmentation: of the regions; None where there are none.
        facts: of the bundle.
        key: UID that the report's own UIDs are made of.
        series_number: of the report's series.
        provenance: of the map.
    """
    import highdicom.sr

    def figure(code: str, meaning: str, value: float) -> highdicom.sr.Measurement:
        unit = code_of("mm3", "UCUM", "cubic millimeter") if code == "118565006" else None
        name = code_of(code, "SCT", meaning) if unit else own_code(code, meaning)
        return highdicom.sr.Measurement(
            name=name, value=value, unit=unit or code_of("1", "UCUM", "no units")
        )

    algorithm = highdicom.sr.AlgorithmIdentification(
        name=provenance.application,
        version=provenance.version,
        parameters=[f"bundle={provenance.bundle}", f"map={provenance.mode}"],
    )
    groups: list[Any] = [
        highdicom.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=highdicom.sr.TrackingIdentifier(
                uid=object_uid(key, "tracking", "series"), identifier="Series"
            ),
            algorithm_id=algorithm,
            measurements=[
                figure("UNLIKENESS", "Deviations above healthy slices, median", found.unlikeness),
                figure("ALARM_LEVEL", "Deviations of an alarm", ALARM),
                figure("REGIONS", "Number of candidate regions", float(len(regions))),
                *(figure(f"BUNDLE_{k.upper()}", k.replace("_", " "), v) for k, v in facts.items()),
            ],
            qualitative_evaluations=[
                highdicom.sr.QualitativeEvaluation(
                    name=own_code("ALARM", "Unusual beside healthy slices"),
                    value=code_of("373066001", "SCT", "Yes")
                    if found.alarm
                    else code_of("373067005", "SCT", "No"),
                )
            ],
        )
    ]
    images = list(sources)
    for region in regions:
        name = f"Candidate region {region.number}"
        assert segmentation is not None
        groups.append(
            highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=highdicom.sr.TrackingIdentifier(
                    uid=object_uid(key, "tracking", region.number), identifier=name
                ),
                referenced_segment=highdicom.sr.ReferencedSegment(
                    sop_class_uid=SEGMENTATION_STORAGE,
                    sop_instance_uid=str(segmentation.SOPInstanceUID),
                    segment_number=region.number,
                    source_series=highdicom.sr.SourceSeriesForSegmentation(
                        referenced_series_instance_uid=found.volume.series_instance_uid
                    ),
                ),
                finding_type=own_code(*CANDIDATE_TYPE),
                algorithm_id=algorithm,
                measurements=[
                    figure("118565006", "Volume", region.volume_mm3),
                    figure("LARGEST_SCORE", "Largest score", region.largest),
                    figure("MEAN_SCORE", "Mean score", region.mean),
                ],
            )
        )
    if segmentation is not None:
        series, uid = str(segmentation.SeriesInstanceUID), str(segmentation.SOPInstanceUID)
        images.append(image_of(header, SEGMENTATION_STORAGE, series, uid))
    made = highdicom.sr.Comprehensive3DSR(
        content=report_content(groups, provenance),
        series_description="Anomaly map, research",
        **report_identity(images, key, REPORT, series_number, provenance),
    )
    identify(made, header, provenance)
    refer_to_slices(made, found.volume)
    return made

"""Makes the report on a derived series: its measurements and the verdict (SR, TID 1500)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import Dataset

from stillscan.operators.denoising.gate import Verdict
from stillscan.operators.volume import Volume
from stillscan.operators.writing.companions.identity import anonymous, identify
from stillscan.operators.writing.companions.parametric_maps import code_of, unit_code
from stillscan.operators.writing.derived_uids import object_uid
from stillscan.operators.writing.provenance import (
    CODING_SCHEME,
    IMPLEMENTATION_CLASS_UID,
    Provenance,
)

if TYPE_CHECKING:
    import highdicom.sr
    from pydicom.sr.coding import Code

DESCRIPTION = "Quality of the denoised series"
NO_UNITS = "1"
DECISIONS = {
    "accept": ("ACCEPTED", "Accepted by the quality gate"),
    "accept with clamp": ("CLAMPED", "Accepted by the quality gate after clamping"),
    "refuse": ("REFUSED", "Refused by the quality gate"),
}


@dataclass(frozen=True)
class Measured:
    """The contents of the report on one derived series.

    Attributes:
        noise_before, noise_after: standard deviation, in the unit of the series.
        verdict: of the quality gate.
        shares: further figures without a unit, by name.
    """

    noise_before: float | None
    noise_after: float | None
    verdict: Verdict
    shares: Mapping[str, float]


def measurement_report(
    volume: Volume,
    header: Dataset,
    derived: tuple[str, Sequence[str]],
    key: str,
    series_number: int | None,
    measured: Measured,
    provenance: Provenance,
) -> Dataset:
    """Return the report on one derived series.

    Args:
        volume: the source.
        header: of one of its images, for patient and study.
        derived: SeriesInstanceUID and SOPInstanceUIDs of the derived series.
        key: UID that the report's own UIDs are made of: of the derived series, or of its one image.
        series_number: of the report's own series.
        measured: the contents.
        provenance: of the derived series.
    """
    import highdicom.sr

    series_uid, instance_uids = derived
    images = [image_of(header, volume.sop_class_uid, series_uid, uid) for uid in instance_uids]
    groups = [_group(volume, images, measured, provenance)]
    made = highdicom.sr.EnhancedSR(
        content=report_content(groups, provenance),
        series_description=DESCRIPTION,
        **report_identity(images, key, "measurements", series_number, provenance),
    )
    identify(made, header, provenance)
    return made


def report_content(
    groups: Sequence[highdicom.sr.MeasurementsAndQualitativeEvaluations], provenance: Provenance
) -> Dataset:
    """Return the content of a report with these groups of measurements (TID 1500)."""
    import highdicom.sr

    report = highdicom.sr.MeasurementReport(
        observation_context=highdicom.sr.ObservationContext(
            observer_device_context=highdicom.sr.ObserverContext(
                observer_type=highdicom.sr.CodedConcept("121007", "DCM", "Device"),
                observer_identifying_attributes=highdicom.sr.DeviceObserverIdentifyingAttributes(
                    uid=IMPLEMENTATION_CLASS_UID,
                    name=provenance.application,
                    manufacturer_name=provenance.application,
                    model_name=provenance.software,
                    serial_number=provenance.model_sha256,
                ),
            )
        ),
        procedure_reported=code_of("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=groups,
    )
    return report[0]


def report_identity(
    evidence: Sequence[Dataset],
    key: str,
    kind: str,
    series_number: int | None,
    provenance: Provenance,
) -> dict[str, Any]:
    """Return the arguments that identify a report, for highdicom."""
    return {
        "evidence": evidence,
        "series_instance_uid": object_uid(key, kind),
        "series_number": series_number or 1,
        "sop_instance_uid": object_uid(key, kind, 1),
        "instance_number": 1,
        "manufacturer": provenance.application,
        "is_complete": True,
    }


def _group(
    volume: Volume, images: Sequence[Dataset], measured: Measured, provenance: Provenance
) -> highdicom.sr.MeasurementsAndQualitativeEvaluations:
    import highdicom.sr

    figures = [
        (
            "NOISE_BEFORE",
            "Standard deviation of the noise before",
            measured.noise_before,
            volume.unit,
        ),
        ("NOISE_AFTER", "Standard deviation of the noise after", measured.noise_after, volume.unit),
        *(
            (name.upper(), name.replace("_", " ").capitalize(), value, NO_UNITS)
            for name, value in {**measured.shares, **measured.verdict.measurements}.items()
        ),
    ]
    return highdicom.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(
            uid=object_uid(images[0].SeriesInstanceUID, "tracking"),
            identifier="Derived series",
        ),
        algorithm_id=highdicom.sr.AlgorithmIdentification(
            name=provenance.application,
            version=provenance.version,
            parameters=[
                f"bundle={provenance.bundle}",
                f"model_sha256={provenance.model_sha256}",
                f"mode={provenance.mode}",
                f"strength={provenance.strength:g}",
                f"engine={provenance.engine}",
                f"precision={provenance.precision}",
                f"device={provenance.device}",
            ],
        ),
        measurements=[
            highdicom.sr.Measurement(
                name=own_code(code, meaning), value=float(value), unit=unit_code(unit)
            )
            for code, meaning, value, unit in figures
            if value is not None and math.isfinite(value)
        ],
        qualitative_evaluations=[
            highdicom.sr.QualitativeEvaluation(
                name=own_code("GATE_VERDICT", "Verdict of the quality gate"),
                value=own_code(*DECISIONS[measured.verdict.decision]),
            ),
            *(
                highdicom.sr.QualitativeEvaluation(
                    name=own_code("GATE_REASON", "Reason of the quality gate"),
                    value=own_code(reason, reason.replace("-", " ").capitalize()),
                )
                for reason in measured.verdict.reasons
            ),
        ],
    )


def image_of(header: Dataset, sop_class_uid: str, series_uid: str, instance_uid: str) -> Dataset:
    """Return the attributes of an image of the study that a reference needs."""
    image = anonymous(header)
    image.SOPClassUID = sop_class_uid
    image.SeriesInstanceUID = series_uid
    image.SOPInstanceUID = instance_uid
    return image


def own_code(code: str, meaning: str) -> Code:
    """Return a private code."""
    return code_of(code, CODING_SCHEME, meaning[:64])

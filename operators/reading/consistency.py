"""Checks that the instances of a series are consistent: patient, study, matrix, pixel format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stillscan.operators.errors import (
    DuplicateInstanceError,
    IdentityConflictError,
    InputError,
    MixedMatrixError,
    MixedPhotometricError,
    MixedPixelFormatError,
    MixedSeriesError,
)
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.records import Instance
from stillscan.operators.reading.sandbox.identify import PATIENT


def require_one_patient(instances: Sequence[Instance]) -> None:
    """Require one PatientID, PatientName and PatientBirthDate; messages never contain values.

    Raises:
        IdentityConflictError: naming two instances and the attribute.
    """
    for index, keyword in enumerate(PATIENT if instances else ()):
        first = instances[0].known.patient[index]
        for other in instances[1:]:
            if other.known.patient[index] != first:
                twice = len({each.known.sop_instance_uid for each in instances}) < len(instances)
                hint = "; instances are there twice: keep the corrected copies only"
                raise IdentityConflictError(
                    f"instances {shown(instances[0].path)} and {shown(other.path)} differ in "
                    f"{keyword}; one series belongs to one patient{hint if twice else ''}"
                )


def require_one_series(instances: Sequence[Instance]) -> None:
    """Require one study, SOP class and modality.

    Raises:
        MixedSeriesError: naming two instances, the attribute and both values.
    """
    require_one_study(instances)
    uid = "SOPClassUID"
    _require_equal(
        instances, lambda each: each.known.sop_class_uid, uid, MixedSeriesError, "series"
    )


def require_one_study(instances: Sequence[Instance]) -> None:
    """Require one study and modality.

    Raises:
        MixedSeriesError: naming two instances, the attribute and both values.
    """
    for keyword, value in (
        ("StudyInstanceUID", lambda each: each.known.study_instance_uid),
        ("Modality", lambda each: each.known.modality),
    ):
        _require_equal(instances, value, keyword, MixedSeriesError, "series")


def require_one_matrix(instances: Sequence[Instance]) -> None:
    """Require the same Rows and Columns in all instances (one matrix).

    Raises:
        MixedMatrixError: naming two instances, the attribute and both values.
    """
    _require_equal(instances, lambda each: each.image.rows, "Rows", MixedMatrixError, "matrix")
    _require_equal(
        instances, lambda each: each.image.columns, "Columns", MixedMatrixError, "matrix"
    )


def require_one_photometric(instances: Sequence[Instance]) -> None:
    """Require one photometric interpretation (the same polarity).

    Raises:
        MixedPhotometricError: naming two instances and both values.
    """
    _require_equal(
        instances,
        lambda each: each.known.photometric,
        "PhotometricInterpretation",
        MixedPhotometricError,
        "photometric interpretation",
    )


def require_one_pixel_format(instances: Sequence[Instance]) -> None:
    """Require one data type of stored values and one unit; slopes and BitsStored may differ.

    Raises:
        MixedPixelFormatError: naming two instances, the attribute and both values.
    """
    for keyword, value in (
        ("BitsAllocated", lambda each: each.image.bits_allocated),
        ("PixelRepresentation", lambda each: int(each.image.signed)),
        ("RescaleType or Units", lambda each: each.frames[0].unit),
    ):
        _require_equal(instances, value, keyword, MixedPixelFormatError, "pixel format")


def without_duplicates(
    instances: Sequence[Instance], decoder: Decoder
) -> tuple[list[Instance], list[str]]:
    """The instances without duplicates, and a warning for every file that was left out.

    Raises:
        DuplicateInstanceError: if two files have the same SOPInstanceUID and different content.
    """
    kept: dict[str, Instance] = {}
    warnings: list[str] = []
    for instance in instances:
        uid = instance.known.sop_instance_uid
        first = kept.setdefault(uid, instance)
        if first is instance:
            continue
        if not _same_content(first, instance, decoder):
            raise DuplicateInstanceError(
                f"{shown(first.path)} and {shown(instance.path)} have the same SOPInstanceUID "
                f"{uid} and different content"
            )
        warnings.append(f"{shown(instance.path)} is a copy of {shown(first.path)}: left out")
    return list(kept.values()), warnings


def _same_content(first: Instance, second: Instance, decoder: Decoder) -> bool:
    """Whether two files contain the same data set, regardless of the transfer syntax."""
    if (first.image, first.frames) != (second.image, second.frames):
        return False
    return all(
        decoder.read([(first.path, frame)], first.image.frame_bytes)
        == decoder.read([(second.path, frame)], first.image.frame_bytes)
        for frame in range(first.image.frames)
    )


def _require_equal(
    instances: Sequence[Instance],
    value: Callable[[Instance], str | int],
    keyword: str,
    error: type[InputError],
    shared: str,
) -> None:
    if not instances:
        return
    first = value(instances[0])
    for other in instances[1:]:
        found = value(other)
        if found != first:
            raise error(
                f"instances {shown(instances[0].path)} and {shown(other.path)} differ in "
                f"{keyword}: {_shown(first)} and {_shown(found)}; one series must have one {shared}"
            )


def _shown(value: str | int) -> str:
    return str(value)[:64] or "none"

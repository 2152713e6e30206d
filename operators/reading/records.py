"""The attributes of an image that are read before its pixels: identity, kind and storage.

They are made in the reading process, which imports the standard library alone; the parent gets them
as JSON and checks every type (`from_answer`). Patient attributes are passed on as digests only, so
that no process but the reading process can print a name.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

Triple = tuple[float, float, float]

VALID_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
UIDS = {
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
}


class _Answer:
    """A record that is sent as JSON, and checked type by type on receipt."""

    @classmethod
    def from_answer(cls, answer: object) -> Self:
        """Return the record that the reading process sent.

        Raises:
            ValueError: if something is missing, unknown or of another type.
        """
        hints = _types_of(typing.cast(Hashable, cls))
        if not isinstance(answer, dict) or answer.keys() != hints.keys():
            raise ValueError(f"an answer should hold {sorted(hints)}")
        return cls(**{name: _checked(answer[name], hint) for name, hint in hints.items()})


@cache
def _types_of(record: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(record)


@dataclass(frozen=True)
class SeriesName:
    """What the header calls a series, for people; empty where it has no value.

    Attributes:
        number: SeriesNumber.
        description: SeriesDescription.
        body_part: BodyPartExamined.
        date: SeriesDate or StudyDate, as `2024-01-31`.
    """

    number: int | None = None
    description: str = ""
    body_part: str = ""
    date: str = ""

    def __str__(self) -> str:
        """Return number and description, such as `4: t1 axial`; `series 4` without one."""
        if self.number is None or not self.description:
            return self.description or ("" if self.number is None else f"series {self.number}")
        return f"{self.number}: {self.description}"

    @property
    def more(self) -> str:
        """Return body part and date."""
        return ", ".join(each for each in (self.body_part.lower(), self.date) if each)


@dataclass(frozen=True, slots=True)
class Identification(_Answer):
    """Identity and kind of an instance; "" or None where an attribute is absent.

    Attributes:
        patient: digests of PatientID, PatientName and PatientBirthDate.
        complex_component: PHASE, REAL, IMAGINARY or MIXED, if the header has it.
        private: private attributes that show the kind, each with its name in `kind_table`.
        derived_by_us: whether Stillscan made it.
        interpolated: whether it belongs to a cine with phases that Stillscan made.
        tiles: slices that a mosaic holds; 0 for other images.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    image_type: tuple[str, ...]
    series_description: str
    series_number: int | None
    instance_number: int | None
    number_of_frames: int | None
    photometric: str
    samples_per_pixel: int | None
    patient: tuple[str, str, str]
    complex_component: str
    private: tuple[tuple[str, str], ...]
    burned_in: str
    lossy: str
    derived_by_us: bool
    interpolated: bool
    pixel_presentation: str
    tiles: int

    @property
    def name(self) -> SeriesName:
        """Return what the header calls the series, as far as it is read before the pixels."""
        return SeriesName(self.series_number, self.series_description)


@dataclass(frozen=True, slots=True)
class ImageAttributes(_Answer):
    """How the pixels of an instance are stored, in all its frames."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def frame_bytes(self) -> int:
        """Return the length of one decoded frame in bytes."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def dtype(self) -> str:
        """Return the numpy type of the stored values."""
        return f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}"


@dataclass(frozen=True, slots=True)
class FrameAttributes(_Answer):
    """Rescale, unit, padding and geometry of one frame; a classic image has one frame.

    Attributes:
        unit: of the pixels, "" where none is known.
        padding: the least and the greatest stored value that is pixel padding.
        position: ImagePositionPatient in mm.
        orientation: the directions of rows and columns, orthogonal unit vectors.
        frame_type: the values of FrameType; none in classic images, which have ImageType.
        complex_component: PHASE, REAL, IMAGINARY or MIXED, if the frame has it.
        calculation: VolumeBasedCalculationTechnique.
        mapped_units: codes of the units of real world values.
        quantities: codes of their quantities.
        stack: StackID.
        volume_index: the dimension indices other than those of space: time, echo, b value.
        spacing: between rows and between columns in mm.
        thickness: SliceThickness in mm.
        timing: TriggerTime (ms), NominalCardiacTriggerDelayTime (ms), TemporalPositionIdentifier,
            TemporalPositionIndex, the nominal R-R interval (ms), the stated number of phases, and 1
            where BeatRejectionFlag is Y; None where absent.
    """

    slope: float
    intercept: float
    unit: str
    padding: tuple[int, int] | None
    position: Triple | None
    orientation: tuple[Triple, Triple] | None
    frame_type: tuple[str, ...] = ()
    complex_component: str = ""
    calculation: str = ""
    mapped_units: tuple[str, ...] = ()
    quantities: tuple[str, ...] = ()
    stack: str = ""
    volume_index: tuple[int, ...] = ()
    spacing: tuple[float, float] | None = None
    thickness: float | None = None
    timing: tuple[float | None, ...] = (None,) * 7


@dataclass(frozen=True, slots=True)
class Instance:
    """An image without faults; `frames` has one entry for each of its frames."""

    path: Path
    known: Identification
    image: ImageAttributes
    frames: tuple[FrameAttributes, ...]


def _checked(value: Any, hint: Any) -> Any:
    """Return the value as the type that a record declares; lists of JSON become tuples."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (of,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _checked(value, of)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"expected a list, found {type(value).__name__}")
        of_each = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return tuple(_checked(one, of) for one, of in zip(value, of_each, strict=True))
    if type(value) is not hint:
        raise ValueError(f"expected {hint.__name__}, found {type(value).__name__}")
    return value

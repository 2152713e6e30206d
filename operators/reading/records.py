"""What is known of an image before its pixels are read: who and what it is, and how it is stored.

Made in the reading child from elements as bytes, so it needs the standard library alone; the parent
gets it as JSON and checks every type (`from_answer`). What tells patients apart travels as a
digest: nothing above the child can print a name.
"""

from __future__ import annotations

import hashlib
import re
import types
import typing
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from stillscan.operators.dicom.elements import Element
from stillscan.operators.errors import InvalidUidError, MissingUidError
from stillscan.operators.reading.sandbox.parser import ParsedFile

Tags = dict[int, Element]
Triple = tuple[float, float, float]

MAX_TEXT = 1024  # of any text that travels to the parent
VALID_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
UIDS = {
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
}
PATIENT = {"PatientID": 0x00100020, "PatientName": 0x00100010, "PatientBirthDate": 0x00100030}
GE_PARAMETERS, GE_IMAGE_COMPONENT = 0x00430010, 0x0043102F
GE_COMPONENTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
EQUIPMENT_NAMES = (0x00080070, 0x00081090)  # Manufacturer, ManufacturerModelName
CODECS = {"": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8", "GB18030": "gb18030"}


class _Answer:
    """A record that travels as JSON and is checked type by type when it arrives."""

    @classmethod
    def from_answer(cls, answer: object) -> Self:
        """The record that the child sent.

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


@dataclass(frozen=True, slots=True)
class Identification(_Answer):
    """Who and what an instance is; "" or None where its header does not say.

    Attributes:
        patient: digests of PatientID, PatientName and PatientBirthDate.
        complex_component: PHASE, REAL, IMAGINARY or MIXED where the header says so.
        derived_by_us: whether Stillscan made it.
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
    burned_in: str
    lossy: str
    derived_by_us: bool
    pixel_presentation: str


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
        """Length of one decoded frame."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def dtype(self) -> str:
        """The numpy type of its stored values."""
        return f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}"


@dataclass(frozen=True, slots=True)
class FrameAttributes(_Answer):
    """What the pixels of one frame mean, and where it lies; a classic image is its only frame.

    Attributes:
        padding: the least and the greatest stored value that is pixel padding.
        position: ImagePositionPatient in mm.
        orientation: the directions of rows and columns.
        frame_type: the values of FrameType; none in classic images, whose ImageType says it.
        complex_component: PHASE, REAL, IMAGINARY or MIXED where the frame says so.
        calculation: VolumeBasedCalculationTechnique.
        stack: StackID.
        volume_index: the dimension indices other than those of space: time, echo, b value.
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
    stack: str = ""
    volume_index: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A sound image of the input; `frames` has one entry for each of its frames."""

    path: Path
    known: Identification
    image: ImageAttributes
    frames: tuple[FrameAttributes, ...]


def identify(parsed: ParsedFile) -> Identification:
    """Read what tells an instance from others; whatever the header holds, this does not fail."""
    tags = parsed.tags
    uids = {keyword: text_in(tags, tag) for keyword, tag in UIDS.items()}
    meta_class = parsed.meta.get(MEDIA_STORAGE_SOP_CLASS_UID)
    if not uids["SOPClassUID"] and meta_class is not None:
        uids["SOPClassUID"] = meta_class.text
    return Identification(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        transfer_syntax_uid=parsed.transfer_syntax_uid,
        modality=text_in(tags, 0x00080060),
        image_type=values_in(tags, 0x00080008),
        series_description=_description(tags),
        series_number=whole_number(text_in(tags, 0x00200011)),
        instance_number=whole_number(text_in(tags, 0x00200013)),
        number_of_frames=whole_number(text_in(tags, 0x00280008) or "1"),
        photometric=text_in(tags, 0x00280004).upper(),
        samples_per_pixel=unsigned_short(tags.get(0x00280002)),
        patient=tuple(_digest(tags.get(tag)) for tag in PATIENT.values()),  # type: ignore[arg-type]
        complex_component=_complex_component(tags),
        burned_in=text_in(tags, 0x00280301).upper(),
        lossy=text_in(tags, 0x00282110),
        derived_by_us=_derived_by_us(tags),
        pixel_presentation=text_in(tags, 0x00089205).upper(),
    )


def require_uids(instance: Identification) -> None:
    """Require the UIDs that tell instances, series and studies apart.

    Raises:
        MissingUidError, InvalidUidError: naming the attribute.
    """
    found = {
        "SOPInstanceUID": instance.sop_instance_uid,
        "SeriesInstanceUID": instance.series_instance_uid,
        "StudyInstanceUID": instance.study_instance_uid,
        "SOPClassUID": instance.sop_class_uid,
    }
    for keyword, uid in found.items():
        if not uid:
            raise MissingUidError(f"{keyword} is missing")
        if not VALID_UID.fullmatch(uid):
            raise InvalidUidError(f"{keyword} is no UID: expected at most 64 digits and dots")


def whole_number(text: str) -> int | None:
    """The integer that a text holds, None if it holds none."""
    try:
        return int(text)
    except ValueError:
        return None


def unsigned_short(element: Element | None) -> int | None:
    """The first value of a US (or of whatever VR holds it), None if there is none."""
    if element is None or len(element.value) < 2:
        return None
    return int.from_bytes(element.value[:2], "little")


def text_in(tags: Tags, tag: int) -> str:
    """The text of an attribute, "" where it is absent."""
    return tags[tag].text[:MAX_TEXT] if tag in tags else ""


def values_in(tags: Tags, tag: int) -> tuple[str, ...]:
    """The values of a code string, in capitals."""
    texts = text_in(tags, tag).split("\\") if tag in tags else []
    return tuple(text.strip().upper() for text in texts)


def items_in(tags: Tags, tag: int) -> list[Tags]:
    """The items of a sequence, none where it is absent."""
    items = tags[tag].items if tag in tags else None
    return [{element.tag: element for element in item} for item in items or []]


def _description(tags: Tags) -> str:
    """SeriesDescription, as far as its character set is a simple one."""
    if 0x0008103E not in tags:
        return ""
    codec = CODECS.get(text_in(tags, 0x00080005), "ascii")
    return tags[0x0008103E].value.decode(codec, errors="replace").strip(" \0")[:MAX_TEXT]


def _digest(element: Element | None) -> str:
    """Equal for equal values: padding, empty name components and case do not count."""
    value = b"" if element is None else element.value.strip(b" \0").rstrip(b"^= ").upper()
    return hashlib.blake2b(value, digest_size=16).hexdigest() if value else ""


def _complex_component(tags: Tags) -> str:
    component = text_in(tags, 0x00089208).upper()
    if component:
        return component
    # GE writes it in a private attribute alone; its ImageType is the same for all components
    if text_in(tags, GE_PARAMETERS).startswith("GEMS_PARM"):
        return GE_COMPONENTS.get(unsigned_short(tags.get(GE_IMAGE_COMPONENT)) or 0, "")
    return ""


def _derived_by_us(tags: Tags) -> bool:
    for item in items_in(tags, 0x00089215):
        if text_in(item, 0x00080102) == "99STILLSCAN":
            return True
    return any(
        text_in(item, tag).lower() == "stillscan"
        for item in items_in(tags, 0x0018A001)
        for tag in EQUIPMENT_NAMES
    )


def _checked(value: Any, hint: Any) -> Any:
    """The value as the type that a record declares; JSON has lists where we have tuples."""
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

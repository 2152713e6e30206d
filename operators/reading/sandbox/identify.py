"""Reads identity and kind of an instance from its elements; runs in the reading process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from stillscan.operators.dicom.elements import (
    MAX_TEXT,
    Element,
    Tags,
    items_in,
    private_element,
    text_in,
    unsigned_short,
    values_in,
    whole_number,
)
from stillscan.operators.errors import InvalidUidError, MissingUidError
from stillscan.operators.reading.kind_table import (
    GE_COMPONENT,
    GE_IMAGE,
    GE_INNER_SEQUENCE,
    GE_SEQUENCE,
    MANUFACTURER,
    RADIONUCLIDE,
    REPROJECTION,
    SERIES_TYPE,
    UNITS,
    UNSCALED,
)
from stillscan.operators.reading.records import UIDS, VALID_UID, Identification
from stillscan.operators.reading.sandbox.parser import ParsedFile

MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
PATIENT = {"PatientID": 0x00100020, "PatientName": 0x00100010, "PatientBirthDate": 0x00100030}
PRIVATE_NUMBERS = {  # group, beginning of the creator, element
    GE_COMPONENT: (0x0043, "GEMS_PARM", 0x2F),
    GE_IMAGE: (0x0043, "GEMS_PARM", 0x30),
}
PRIVATE_TEXTS = {
    GE_SEQUENCE: (0x0019, "GEMS_ACQU", 0x9C),
    GE_INNER_SEQUENCE: (0x0019, "GEMS_ACQU", 0x9E),
}
PET = {0x00541000: SERIES_TYPE, 0x00541004: REPROJECTION, 0x00080070: MANUFACTURER}
RADIOPHARMACEUTICAL = 0x00540016
PHILIPS_PET = (0x7053, "Philips PET Private Group")
SIEMENS_TILES = (0x0019, "SIEMENS MR HEADER", 0x0A)
SIEMENS_CSA = (0x0029, "SIEMENS CSA HEADER", 0x10)
UIH_TILES = (0x0065, "Image Private Header", 0x50)
MOST_TILES = 4096
CONTRIBUTING_EQUIPMENT = 0x0018A001
INTERPOLATED = "Temporal interpolation of a cine"  # ContributionDescription of `Provenance`
EQUIPMENT_NAMES = (0x00080070, 0x00081090)  # Manufacturer, ManufacturerModelName
CODECS = {"": "ascii", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8", "GB18030": "gb18030"}


def identify(parsed: ParsedFile) -> Identification:
    """Return identity and kind of an instance; this works for any header."""
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
        complex_component=text_in(tags, 0x00089208).upper(),
        private=(*_said_in_private(tags), *_said_in_pet(tags)),
        burned_in=text_in(tags, 0x00280301).upper(),
        lossy=text_in(tags, 0x00282110),
        derived_by_us=_derived_by_us(tags),
        interpolated=any(
            text_in(item, 0x0018A003).startswith(INTERPOLATED)
            for item in items_in(tags, CONTRIBUTING_EQUIPMENT)
        ),
        pixel_presentation=text_in(tags, 0x00089205).upper(),
        tiles=_tiles(tags),
    )


def require_uids(instance: Identification) -> None:
    """Require the UIDs of instance, series and study.

    Raises:
        MissingUidError, InvalidUidError: the message names the attribute.
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
            raise InvalidUidError(f"{keyword} is not a UID: expected at most 64 digits and dots")


def _description(tags: Tags) -> str:
    """Return SeriesDescription, where its character set is one of `CODECS`."""
    if 0x0008103E not in tags:
        return ""
    codec = CODECS.get(text_in(tags, 0x00080005), "ascii")
    return tags[0x0008103E].value.decode(codec, errors="replace").strip(" \0")[:MAX_TEXT]


def _digest(element: Element | None) -> str:
    """Return a digest; padding, empty name components and case make no difference."""
    value = b"" if element is None else element.value.strip(b" \0").rstrip(b"^= ").upper()
    return hashlib.blake2b(value, digest_size=16).hexdigest() if value else ""


def _tiles(tags: Tags) -> int:
    """Return how many slices a mosaic holds, 0 for other images."""
    kinds = {value.upper() for value in values_in(tags, 0x00080008)}
    number = None
    if "MOSAIC" in kinds:
        number = unsigned_short(private_element(tags, *SIEMENS_TILES))
        number = number or _tiles_in_csa(private_element(tags, *SIEMENS_CSA))
    elif "VFRAME" in kinds:
        grid = private_element(tags, *UIH_TILES)
        number = whole_number(grid.text) if grid is not None else None
    return number if number is not None and 1 < number <= MOST_TILES else 0


def _tiles_in_csa(element: Element | None) -> int | None:
    """Return NumberOfImagesInMosaic of a CSA header; older scanners have it nowhere else.

    A CSA entry is a name of 64 bytes, five numbers, then its items: four numbers and a text.
    """
    if element is None or element.vr == b"SQ":
        return None
    value = bytes(element.value)
    at = value.find(b"NumberOfImagesInMosaic\0")
    text = value[at + 100 : at + 116].split(b"\0")[0]
    return whole_number(text.decode("ascii", errors="replace").strip()) if at >= 0 else None


def _said_in_private(tags: Tags) -> Iterator[tuple[str, str]]:
    """Yield the private attributes that show the kind of an image."""
    for name, place in PRIVATE_NUMBERS.items():
        number = unsigned_short(private_element(tags, *place))
        if number is not None:
            yield name, str(number)
    for name, place in PRIVATE_TEXTS.items():
        element = private_element(tags, *place)
        if element is not None:
            yield name, element.text[:MAX_TEXT]


def _said_in_pet(tags: Tags) -> Iterator[tuple[str, str]]:
    """Yield the attributes that show the kind of a PET image (PS3.3 C.8.9.1 and C.8.9.2)."""
    if text_in(tags, 0x00080060) != "PT":
        return
    for tag, name in PET.items():
        yield from ((name, value) for value in values_in(tags, tag)[:2])
    for item in items_in(tags, RADIOPHARMACEUTICAL):
        for code in items_in(item, 0x00540300):
            yield from ((RADIONUCLIDE, text_in(code, tag)) for tag in (0x00080100, 0x00080104))
    factors = (private_element(tags, *PHILIPS_PET, number) for number in (0x00, 0x09))
    if text_in(tags, 0x00541001).upper() in ("CNTS", "PROPCNTS") and not any(factors):
        yield UNITS, UNSCALED


def _derived_by_us(tags: Tags) -> bool:
    for item in items_in(tags, 0x00089215):
        if text_in(item, 0x00080102) == "99STILLSCAN":
            return True
    return any(
        text_in(item, tag).lower() == "stillscan"
        for item in items_in(tags, CONTRIBUTING_EQUIPMENT)
        for tag in EQUIPMENT_NAMES
    )

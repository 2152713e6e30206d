"""Sets the patient, study and image references of objects beside a derived series.

highdicom makes the objects from data sets without patient data, so that no warning of highdicom or
pydicom can hold any. The patient's attributes are copied afterwards, as the bytes of the source.
"""

from __future__ import annotations

from pydicom import Dataset, Sequence
from pydicom.uid import UID

from stillscan.operators.dicom.attributes import defined_terms, put_items, put_text, tag_of, text_of
from stillscan.operators.volume import Volume
from stillscan.operators.writing.derivation_items import equipment
from stillscan.operators.writing.provenance import (
    IMPLEMENTATION_CLASS_UID,
    Provenance,
    implementation_version_name,
)

WHOSE = (  # the patient, and the study
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)
EMPTY = (  # type 2 of the patient and study modules
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
WHERE = ("BodyPartExamined", "Laterality")  # of an image
WHEN = (("ContentDate", "ContentTime"), ("SeriesDate", "SeriesTime"))
CONTRIBUTORS = "ContributingEquipmentSequence"


def anonymous(header: Dataset) -> Dataset:
    """Return the header of an image of the same study and series, without patient data."""
    image = Dataset()
    for keyword in EMPTY:
        setattr(image, keyword, "")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if text := text_of(header, keyword):
            setattr(image, keyword, text)
    return image


def view_of(header: Dataset) -> Dataset:
    """Return a new data set with the same elements: reading them does not change `header`."""
    view = Dataset(dict(header.items()))
    implicit, little_endian = header.original_encoding
    view.set_original_encoding(implicit, little_endian, header.original_character_set)
    return view


def identify(made: Dataset, header: Dataset, provenance: Provenance) -> None:
    """Set patient, study and equipment; as in the images, nothing depends on the clock.

    Args:
        made: the object that highdicom made of an anonymous image.
        header: of the source, whose patient and study are copied byte for byte; of its character
            sets, those that DICOM defines.
        provenance: of the derived series.
    """
    is_image = "ImageType" in made
    for keyword in (*WHOSE, *WHERE) if is_image else WHOSE:
        if tag_of(keyword) in header:
            made[tag_of(keyword)] = header.get_item(tag_of(keyword))
        elif keyword == "SpecificCharacterSet":
            made.pop(tag_of(keyword), None)
    terms = text_of(made, "SpecificCharacterSet")
    if (defined := defined_terms(terms)) != terms.split("\\"):  # pydicom would use any codec
        made.add_new(tag_of("SpecificCharacterSet"), "CS", defined)
    if is_image and all(tag_of(keyword) not in header for keyword in WHERE):
        put_text(made, "Laterality", "")  # type 2C: not known
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        made.pop(tag_of(keyword), None)
    for date, time in WHEN:
        known = text_of(header, date), text_of(header, time)
        if not known[0]:
            known = text_of(header, "StudyDate"), text_of(header, "StudyTime")
        if known[0]:
            put_text(made, date, known[0])
            put_text(made, time, known[1] or "000000")
    _say_what_made_it(made, provenance)


def refer_to_slices(made: Dataset, volume: Volume) -> None:
    """Replace `2.25.<index of the slice>` by the SOPInstanceUIDs of the real images.

    A frame of a multi-frame instance is referenced by its number; lists of instances name each
    instance once.
    """
    sequences = [tag for tag in made.keys() if made.get_item(tag).VR == "SQ"]  # noqa: SIM118
    for element in map(made.__getitem__, sequences):  # no text is decoded
        indices = [_stands_for(item) for item in element.value]
        if None in indices or not indices:
            for item in element.value:
                refer_to_slices(item, volume)
            continue
        named: dict[tuple[str, int], Dataset] = {}
        for item, index in zip(element.value, indices, strict=True):
            slice_ = volume.slices[index or 0]
            one = Dataset(dict(item.items()))
            one.ReferencedSOPClassUID = volume.sop_class_uid
            one.ReferencedSOPInstanceUID = slice_.sop_instance_uid
            of_frame = slice_.frames > 1 and element.keyword == "SourceImageSequence"
            if of_frame:
                one.ReferencedFrameNumber = slice_.frame + 1
            named[slice_.sop_instance_uid, slice_.frame if of_frame else 0] = one
        element.value = Sequence(named.values())


def _stands_for(item: Dataset) -> int | None:
    """Return the index of the slice that an item names, None if it names something else."""
    prefix, _, index = str(item.get("ReferencedSOPInstanceUID", "")).rpartition(".")
    return int(index) if prefix == "2.25" and len(index) < 10 else None


def _say_what_made_it(made: Dataset, provenance: Provenance) -> None:
    ours = Dataset()
    put_items(ours, CONTRIBUTORS, [equipment(provenance)])
    for library in made.get(CONTRIBUTORS, ()):
        library.pop("ContributionDateTime", None)
    setattr(made, CONTRIBUTORS, [*made.get(CONTRIBUTORS, ()), *ours[CONTRIBUTORS].value])
    made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    made.file_meta.ImplementationVersionName = implementation_version_name(provenance.version)

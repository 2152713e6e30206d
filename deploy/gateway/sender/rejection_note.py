"""Rejection notes, which inform a PACS that a derived series has an outdated patient or order.

A rejection note is a Key Object Selection with the title (113038, DCM, "Incorrect Modality Worklist
Entry") of CID 7031, which references every instance that was sent (PS3.3 A.35.4, PS3.16 TID 2010;
IHE RAD Imaging Object Change Management). The other titles do not apply: 113039 "Data Retention
Policy Expired", 113037 (patient safety), 113001 (quality).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from stillscan import __version__
from stillscan.operators.durable_files import sync, write_synced
from stillscan.operators.writing.companions.identity import WHOSE
from stillscan.operators.writing.derived_uids import object_uid
from stillscan.operators.writing.provenance import (
    APPLICATION,
    IMPLEMENTATION_CLASS_UID,
    implementation_version_name,
)

TITLE = ("113038", "DCM", "Incorrect Modality Worklist Entry")
NO_IMAGE = "1.2.840.10008.5.1.4.1.1.88."  # structured reports
HEADER = (*WHOSE, "StudyInstanceUID", "SeriesDate", "SeriesTime")


def note_on(files: Sequence[Path], folder: Path) -> Path:
    """Write the note for these instances below the folder; it is deterministic."""
    sent = [dcmread(file, stop_before_pixels=True) for file in files]
    note = rejection_note(sent)
    path = folder / "note" / str(note.SeriesInstanceUID) / f"{note.SOPInstanceUID}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_synced(path, lambda file: note.save_as(file, enforce_file_format=True))
    sync(path.parent)
    return path


def rejection_note(sent: Sequence[Dataset]) -> Dataset:
    """Return the note; patient and study are those of what it rejects."""
    note = Dataset()
    for keyword in HEADER:
        if keyword in sent[0]:
            note[keyword] = sent[0][keyword]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate"):
        note.setdefault(keyword, "")
    for keyword in ("StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"):
        note.setdefault(keyword, "")
    key = str(sent[0].SeriesInstanceUID)
    note.SOPClassUID = KeyObjectSelectionDocumentStorage
    note.SOPInstanceUID = UID(object_uid(key, "rejection note", 1))
    note.SeriesInstanceUID = UID(object_uid(key, "rejection note"))
    note.Modality, note.SeriesNumber, note.InstanceNumber = "KO", 1, 1
    note.SeriesDescription = "Outdated derived series"
    note.Manufacturer, note.SoftwareVersions = APPLICATION, __version__
    note.ContentDate = note.get("SeriesDate") or note.StudyDate or "19000101"
    note.ContentTime = note.get("SeriesTime") or note.StudyTime or "000000"
    note.ReferencedPerformedProcedureStepSequence = []
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = [_item(dict(zip(CODE, TITLE, strict=True)))]
    note.ContentTemplateSequence = [
        _item({"MappingResource": "DCMR", "TemplateIdentifier": "2010"})
    ]
    note.ContentSequence = [_named(each) for each in sent]
    note.CurrentRequestedProcedureEvidenceSequence = [_evidence(sent)]
    note.file_meta = FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    note.file_meta.MediaStorageSOPClassUID = note.SOPClassUID
    note.file_meta.MediaStorageSOPInstanceUID = note.SOPInstanceUID
    note.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    note.file_meta.ImplementationVersionName = implementation_version_name(__version__)
    return note


CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def _named(instance: Dataset) -> Dataset:
    kind = "COMPOSITE" if str(instance.SOPClassUID).startswith(NO_IMAGE) else "IMAGE"
    found = {"RelationshipType": "CONTAINS", "ValueType": kind}
    return _item(found | {"ReferencedSOPSequence": [_reference(instance)]})


def _evidence(sent: Sequence[Dataset]) -> Dataset:
    series: dict[str, list[Dataset]] = {}
    for each in sent:
        series.setdefault(str(each.SeriesInstanceUID), []).append(_reference(each))
    return _item(
        {
            "StudyInstanceUID": sent[0].StudyInstanceUID,
            "ReferencedSeriesSequence": [
                _item({"SeriesInstanceUID": UID(uid), "ReferencedSOPSequence": instances})
                for uid, instances in series.items()
            ],
        }
    )


def _reference(instance: Dataset) -> Dataset:
    return _item(
        {
            "ReferencedSOPClassUID": instance.SOPClassUID,
            "ReferencedSOPInstanceUID": instance.SOPInstanceUID,
        }
    )


def _item(values: dict[str, object]) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made

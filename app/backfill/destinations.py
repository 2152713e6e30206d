"""Destinations of derived series: a folder, or an archive with DICOMweb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillscan.app.backfill.work_items import digest_of
from stillscan.app.dicomweb.endpoint import Endpoint
from stillscan.app.dicomweb.query import is_uid
from stillscan.app.dicomweb.store import store
from stillscan.operators.durable_files import sync
from stillscan.operators.output_faults import naming_output_faults

STATE = ".stillscan-backfill"  # in a destination folder: the record and working files


@dataclass(frozen=True)
class Destination:
    """Either a folder or an archive.

    Attributes:
        folder: folder for `<StudyInstanceUID>/<derived SeriesInstanceUID>/*.dcm`.
        archive: archive that gets them by STOW-RS.
    """

    folder: Path | None = None
    archive: Endpoint | None = None

    def take(self, folders: Sequence[Path], study_instance_uid: str) -> str:
        """Publish a derived series and the objects made with it.

        Args:
            folders: one for each series, the derived one last: once it is published, all are.
            study_instance_uid: StudyInstanceUID of all of them.

        Returns:
            Path of the derived series in the destination folder; "" for an archive.

        Raises:
            OutputError: if the folder cannot be written.
            DicomWebError: if the archive does not store everything.
        """
        if self.archive is not None:
            store(self.archive, [file for each in folders for file in sorted(each.iterdir())])
            return ""
        assert self.folder is not None, "a destination is a folder or an archive"
        place = ""
        for each in folders:
            place = f"{folder_name(study_instance_uid)}/{each.name}"
            _publish(each, self.folder / place)
        return place


def folder_name(study_instance_uid: str) -> str:
    """Return a UID as the name of a folder; other text (`..`) never becomes a path."""
    if is_uid(study_instance_uid):
        return study_instance_uid
    return f"study-{digest_of(study_instance_uid)}"


def _publish(made: Path, target: Path) -> None:
    """Rename a finished folder to its place; an existing one has the same UID and content."""
    with naming_output_faults("publish a derived series"):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            sync(made)
            made.rename(target)
            sync(target.parent)

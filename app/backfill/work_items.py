"""The work of a worker: a series, the place of its instances, and data of its study."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from stillscan.app.backfill.errors import NotInArchiveError, SeriesChangedError
from stillscan.app.dicomweb.endpoint import Endpoint
from stillscan.app.dicomweb.query import first_instance, is_uid
from stillscan.app.dicomweb.retrieve import retrieve
from stillscan.operators.errors import InvalidUidError
from stillscan.operators.output_faults import naming_output_faults


@dataclass(frozen=True)
class WorkItem:
    """One series.

    Attributes:
        key: its SeriesInstanceUID; for a file without a series a digest of its path.
        content: digest of its instances; another content is another item.
        study_instance_uid: StudyInstanceUID; "" if unknown.
        taken_numbers: SeriesNumbers of all series of the study.
    """

    key: str
    content: str
    study_instance_uid: str
    taken_numbers: frozenset[int]

    def bring(self, folder: Path, endpoint: Endpoint | None) -> None:
        """Put the instances into an empty folder.

        Raises:
            StillscanError: if they cannot be retrieved.
        """
        raise NotImplementedError

    def bring_one(self, folder: Path, endpoint: Endpoint | None) -> bool:
        """Put one instance there if that saves much; return whether it was done."""
        return False


@dataclass(frozen=True)
class SeriesFiles(WorkItem):
    """A series whose instances are files that every worker can read."""

    files: tuple[Path, ...]

    def bring(self, folder: Path, endpoint: Endpoint | None) -> None:
        """Link to them; each link keeps the file's name, in a folder of its own."""
        with naming_output_faults("make links to a series"):
            for number, file in enumerate(self.files):
                place = folder / f"{number:06d}"
                place.mkdir()
                (place / file.name).symlink_to(file)


@dataclass(frozen=True)
class ArchivedSeries(WorkItem):
    """A series in an archive with DICOMweb.

    Attributes:
        instances: number that the archive has listed; None if it does not state it.
    """

    instances: int | None

    def bring(self, folder: Path, endpoint: Endpoint | None) -> None:
        """Retrieve the instances.

        Raises:
            NotInArchiveError: if the archive had no such series when it was asked.
            SeriesChangedError: if the number of instances differs from the listing.
            InvalidUidError: if the UID is invalid.
        """
        assert endpoint is not None, "an archive has an address"
        came = retrieve(endpoint, self._path(), folder)
        if self.instances is not None and came != self.instances:
            raise SeriesChangedError(
                f"{came} instances came, {self.instances} were listed; the next run lists it again"
            )

    def bring_one(self, folder: Path, endpoint: Endpoint | None) -> bool:
        """Retrieve one instance: the selection rules may refuse the series without the others."""
        assert endpoint is not None, "an archive has an address"
        path = self._path()
        if self.instances is not None and self.instances < 2:
            return False
        instance = first_instance(endpoint, self.study_instance_uid, self.key)
        if instance is None or not is_uid(instance):
            return False
        return retrieve(endpoint, f"{path}/instances/{instance}", folder) == 1

    def _path(self) -> str:
        if not self.study_instance_uid:
            raise NotInArchiveError("the archive has no series of this SeriesInstanceUID")
        if not is_uid(self.key):
            raise InvalidUidError("SeriesInstanceUID: not a valid UID")
        return f"/studies/{self.study_instance_uid}/series/{self.key}"


def digest_of(*parts: str) -> str:
    """Return a digest that identifies a content without revealing names."""
    return sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

"""What a worker is given: a series, where its instances are, and what is known of its study."""

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
        key: its SeriesInstanceUID; of a file that belongs to no series, a digest of its path.
        content: a digest of its instance set; another one makes it another item.
        study_instance_uid: "" where it is not known.
        taken_numbers: SeriesNumber of all series of the study.
    """

    key: str
    content: str
    study_instance_uid: str
    taken_numbers: frozenset[int]

    def bring(self, folder: Path, endpoint: Endpoint | None) -> None:
        """Put the instances into an empty folder.

        Raises:
            StillscanError: if they cannot be got.
        """
        raise NotImplementedError

    def bring_one(self, folder: Path, endpoint: Endpoint | None) -> bool:
        """Put one instance there, if that is much less than all of them; say whether it is."""
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
        instances: how many the archive has listed; None where it does not say.
    """

    instances: int | None

    def bring(self, folder: Path, endpoint: Endpoint | None) -> None:
        """Fetch them.

        Raises:
            NotInArchiveError: if the archive had no such series when it was asked.
            SeriesChangedError: if it has more or fewer instances than it said.
            InvalidUidError: if the UID is none.
        """
        assert endpoint is not None, "an archive has an address"
        came = retrieve(endpoint, self._path(), folder)
        if self.instances is not None and came != self.instances:
            raise SeriesChangedError(
                f"{came} instances came, {self.instances} were listed; the next run lists it anew"
            )

    def bring_one(self, folder: Path, endpoint: Endpoint | None) -> bool:
        """Fetch one, from which the selection rules may see that the others are not needed."""
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
            raise InvalidUidError("SeriesInstanceUID: found no UID")
        return f"/studies/{self.study_instance_uid}/series/{self.key}"


def digest_of(*parts: str) -> str:
    """Tells contents apart; names nobody."""
    return sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

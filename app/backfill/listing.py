"""Lists the source into the index: reads headers, and not even those of unchanged files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stillscan.app.backfill.index import IndexedFile, SeriesIndex
from stillscan.app.backfill.work_items import digest_of
from stillscan.app.dicomweb.endpoint import Endpoint
from stillscan.app.dicomweb.query import FoundSeries, all_series, is_uid, series_by_uid
from stillscan.operators.errors import SettingsError
from stillscan.operators.reading.decoder import Decoder, Scanned
from stillscan.operators.reading.input_files import walk
from stillscan.operators.reading.read_series import NAMELESS, NO_INPUT

BATCH = 256
WEB = re.compile(r"https?://", re.IGNORECASE)
PREAMBLE = 128
MARK = b"DICM"

T = TypeVar("T")
OnProgress = Callable[[int], None]  # gets the number of files or series listed so far


@dataclass(frozen=True)
class Source:
    """The places of the series.

    Attributes:
        roots: folders and files.
        uids: SeriesInstanceUIDs to retrieve from the archive.
        archive: the archive; None if none is needed.
        everything: whether all series of the archive are meant.
    """

    roots: tuple[Path, ...] = ()
    uids: tuple[str, ...] = ()
    archive: Endpoint | None = None
    everything: bool = False


def is_address(text: str) -> bool:
    """Return whether this is the URL of a DICOMweb service."""
    return WEB.match(text) is not None


def source_of(text: str, archive: Endpoint | None) -> Source:
    """Interpret an argument: a URL, a folder, a DICOM file, or a list.

    Args:
        text: the argument.
        archive: the archive at the URL, or the one that holds the UIDs of a list.

    Raises:
        SettingsError: if it does not exist, or is a list with UIDs without an archive.
    """
    if is_address(text):
        return Source(archive=archive, everything=True)
    path = Path(text)
    if path.is_dir() or _is_dicom(path):
        return Source(roots=(path,))
    roots: list[Path] = []
    uids: list[str] = []
    for line in _lines(path):
        if is_uid(line):
            uids.append(line)
        else:
            roots.append(Path(line))
    if uids and archive is None:
        raise SettingsError(
            f"{path} lists SeriesInstanceUIDs: add --archive with the DICOMweb URL of their archive"
        )
    for root in roots:
        if not root.exists():
            raise SettingsError(f"{path} lists a file or folder that does not exist: {root}")
    return Source(tuple(roots), tuple(dict.fromkeys(uids)), archive)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        raise SettingsError(f"source {path} is not a file, a folder or an http(s) URL")
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MARK))[PREAMBLE:] == MARK
    except OSError as error:
        raise SettingsError(f"source {path} cannot be read: {error.strerror}") from error


def _lines(path: Path) -> list[str]:
    """Read the lines of a list without empty ones and comments (#)."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"source {path} is neither DICOM nor a text list") from error
    found = [line.strip() for line in lines]
    return [line for line in found if line and not line.startswith("#")]


def list_source(source: Source, index: SeriesIndex, decoder: Decoder, progress: OnProgress) -> None:
    """Fill the index from the source.

    Raises:
        DicomWebError: if the archive does not answer.
    """
    done = 0
    for batch in _batches(_entries(source.roots)):
        _list_files(batch, index, decoder)
        done += len(batch)
        progress(done)
    for found in _batches(_archived(source)):
        index.add_archived(found)
        done += len(found)
        progress(done)


def _batches(entries: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(entries)
    while batch := list(itertools.islice(waiting, BATCH)):
        yield batch


def _entries(roots: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield every entry of every folder, and whether it is a file that can be opened."""
    for root in roots:
        for path, fault in walk(root.absolute()):
            yield path, fault is None


def _list_files(entries: Iterable[tuple[Path, bool]], index: SeriesIndex, decoder: Decoder) -> None:
    new: dict[Path, tuple[int, int]] = {}
    unreadable: list[IndexedFile] = []
    with index.together():
        for path, is_file in entries:
            size, mtime_ns = _status(path) if is_file else (0, 0)
            if index.seen_before(path, size, mtime_ns):
                continue
            if is_file:
                new[path] = size, mtime_ns
            else:
                unreadable.append(_alone(path, size, mtime_ns))
    scanned = list(decoder.scan(new))
    index.add_files([*unreadable, *(_indexed(each, *new[each.path]) for each in scanned)])


def _status(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # just removed: reported when it is read
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _alone(path: Path, size: int, mtime_ns: int) -> IndexedFile:
    """Return the entry of a file that belongs to no series."""
    return IndexedFile(path, size, mtime_ns, f"file-{digest_of(str(path))}", instance=str(size))


def _indexed(scanned: Scanned, size: int, mtime_ns: int) -> IndexedFile:
    known, path = scanned.known, scanned.path
    if known is None and isinstance(scanned.fault, NO_INPUT):
        return IndexedFile(path, size, mtime_ns, "")
    if known is None or isinstance(scanned.fault, NAMELESS):
        return _alone(path, size, mtime_ns)
    return IndexedFile(
        path,
        size,
        mtime_ns,
        known.series_instance_uid,
        known.study_instance_uid,
        known.sop_instance_uid,
        known.series_number,
    )


def _archived(source: Source) -> Iterator[FoundSeries]:
    if source.archive is None:
        return
    if source.everything:
        yield from all_series(source.archive)
    for uid in source.uids:
        found = series_by_uid(source.archive, uid)
        yield found or FoundSeries("", uid, "", None, None)

"""Goes through the source and fills the index: headers only, unchanged files not even those."""

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
Told = Callable[[int], None]  # how many files or series have been looked at


@dataclass(frozen=True)
class Source:
    """Where the series are.

    Attributes:
        roots: folders and files.
        uids: SeriesInstanceUIDs that the archive is asked for.
        archive: None where none is needed.
        everything: all series of the archive.
    """

    roots: tuple[Path, ...] = ()
    uids: tuple[str, ...] = ()
    archive: Endpoint | None = None
    everything: bool = False


def is_address(text: str) -> bool:
    """Whether this is the address of a DICOMweb service."""
    return WEB.match(text) is not None


def source_of(text: str, archive: Endpoint | None) -> Source:
    """What an argument means: an address, a folder, a DICOM file, or a list.

    Args:
        text: the argument.
        archive: at the address; or where the UIDs of a list are.

    Raises:
        SettingsError: if it does not exist, or is a list with UIDs and no archive is named.
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
            f"{path} lists SeriesInstanceUIDs: --archive says at which DICOMweb address they are"
        )
    for root in roots:
        if not root.exists():
            raise SettingsError(f"{path} lists a file or folder that does not exist: {root}")
    return Source(tuple(roots), tuple(dict.fromkeys(uids)), archive)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        raise SettingsError(f"source {path} is no file, no folder and no http(s) address")
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MARK))[PREAMBLE:] == MARK
    except OSError as error:
        raise SettingsError(f"source {path} cannot be read: {error.strerror}") from error


def _lines(path: Path) -> list[str]:
    """The lines of a list; empty ones and comments (#) are left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"source {path} is neither DICOM nor a list of text") from error
    found = [line.strip() for line in lines]
    return [line for line in found if line and not line.startswith("#")]


def list_source(source: Source, index: SeriesIndex, decoder: Decoder, told: Told) -> None:
    """Fill the index.

    Raises:
        DicomWebError: if the archive does not answer.
    """
    done = 0
    for batch in _batches(_entries(source.roots)):
        _list_files(batch, index, decoder)
        done += len(batch)
        told(done)
    for found in _batches(_archived(source)):
        index.add_archived(found)
        done += len(found)
        told(done)


def _batches(entries: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(entries)
    while batch := list(itertools.islice(waiting, BATCH)):
        yield batch


def _entries(roots: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Every entry of every folder, and whether it is a file that can be opened."""
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
    except OSError:  # it has just gone: whoever reads it says so
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _alone(path: Path, size: int, mtime_ns: int) -> IndexedFile:
    """A file that belongs to no series."""
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

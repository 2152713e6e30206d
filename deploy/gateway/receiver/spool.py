"""The spool: stores received instances durably on disk before they are acknowledged (S8).

    spool = Spool(Places(folder), StorageSection())
    receipt = spool.accept(encoded_dataset, Arrival(...))
    if receipt.refusal: ...                        # answer 0xA700 or 0xA900
    # the instance is durable: answer 0x0000

An instance is written under a temporary name, synced, renamed, and its folder is synced; only then
does `accept` return. Its file name consists of digests of its SOPInstanceUID and its content, so no
UID becomes a path, and an instance that is sent again gives the same file. The content is not
parsed here: the planner does that in a child process with limited resources (S7).
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Literal, Self

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from stillscan.deploy.gateway.record.disk import DiskGuard
from stillscan.deploy.gateway.record.quarantine import SPOOLED
from stillscan.deploy.gateway.settings import Places, StorageSection
from stillscan.operators.reading.records import VALID_UID
from stillscan.operators.writing.provenance import IMPLEMENTATION_CLASS_UID

PART = re.compile(r"\.([0-9]{1,9})-([0-9a-f]{1,16})-[0-9]+\.part")
RefusalReason = Literal["disk-full", "invalid-uid", "spool-fault"]

PREAMBLE = b"\0" * 128 + b"DICM"  # zeroed: a preamble may be a program (S6)
META_LENGTH_KNOWN = len(PREAMBLE) + 12  # bytes up to the length of the file meta information
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Arrival:
    """What the request states about an instance, besides its data set.

    Attributes:
        sop_class_uid, sop_instance_uid: as stated by the sender.
        transfer_syntax_uid: of the encoded data set.
        calling_ae_title: of the sender; "" for STOW-RS.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str = ""


@dataclass(frozen=True)
class Receipt:
    """Result of storing an instance.

    Attributes:
        refusal: None if the instance is durable and may be acknowledged. `disk-full`: answer
            0xA700 (507 for STOW-RS), the sender should try again; `invalid-uid`: answer 0xA900;
            `spool-fault`: another disk error, answer 0xA700.
        message: for the log; no patient data.
        bytes: of the file.
    """

    refusal: RefusalReason | None = None
    message: str = ""
    bytes: int = 0


class Spool:
    """Stores instances; safe to use from several threads, which share the syncs of the folder."""

    def __init__(self, places: Places, storage: StorageSection) -> None:
        """Create the folders; temporary files of an earlier process stay until `sweep`."""
        self._folder = places.incoming
        self._folder.mkdir(parents=True, exist_ok=True)
        self._guard = DiskGuard(self._folder, storage.most_used)
        self._sync = SharedSync(self._folder)
        self._token = token_hex(4)  # in a container, the next process may have the same ID
        self._numbers = itertools.count()

    def has_room(self) -> bool:
        """Whether the disk has room for further instances."""
        return self._guard.has_room()

    def accept(self, dataset: bytes | memoryview, arrival: Arrival) -> Receipt:
        """Store one instance durably.

        Args:
            dataset: encoded in `arrival.transfer_syntax_uid`, without preamble and file meta
                information.
            arrival: what the sender states about it.

        Returns:
            The receipt. Faults of the disk or of the sender do not raise: the receipt states them.
        """
        with self.begin(arrival) as incoming:
            incoming.write(dataset)
            return incoming.commit()

    def begin(self, arrival: Arrival) -> Incoming:
        """Begin to store an instance whose data set arrives in pieces.

        with spool.begin(arrival) as incoming:     # without `commit`, nothing is kept
            for piece in pieces:
                incoming.write(piece)              # does not raise for faults of the disk
            receipt = incoming.commit()
        """
        name = f".{os.getpid()}-{self._token}-{next(self._numbers)}.part"
        return Incoming(self._folder / name, arrival, self._guard, self._sync)

    def sweep(self) -> int:
        """Remove temporary files of processes that have ended; the number of files."""
        found = ((each, PART.fullmatch(each.name)) for each in self._folder.glob(".*.part"))
        left = [each for each, name in found if name and not self._is_being_written(name)]
        for part in left:
            part.unlink(missing_ok=True)
        return len(left)

    def _is_being_written(self, name: re.Match[str]) -> bool:
        """Whether another process (receiver or web) is still writing this temporary file."""
        process, token = name.groups()
        if int(process) == os.getpid():
            return token == self._token
        return Path("/proc", process).exists()


class Incoming:
    """An instance that is being written to the spool."""

    def __init__(self, path: Path, arrival: Arrival, guard: DiskGuard, sync: SharedSync) -> None:
        self._path = path
        self._arrival = arrival
        self._sync = sync
        self._guard = guard
        self._digest = sha256()
        self._bytes = 0
        self._descriptor: int | None = None
        self._refused: Receipt | None = None
        self._begin()

    def __enter__(self) -> Self:
        """The file is already open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the file unless it was committed."""
        self.discard()

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append a piece of the encoded data set; after a fault, further pieces are ignored."""
        if self._refused is None:
            self._digest.update(piece)
            self._write(piece)

    def commit(self) -> Receipt:
        """Make the instance durable; only then may it be acknowledged."""
        if self._refused is None and self._descriptor is not None:
            name = _name(self._arrival.sop_instance_uid, self._digest.hexdigest())
            try:
                os.fsync(self._descriptor)
                self._path.rename(self._path.with_name(name))
                self._sync()
            except OSError as error:
                self._fail(error)
            else:
                self._close()
        return self._refused or Receipt(bytes=self._bytes)

    def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        if self._descriptor is not None:
            self._close()
            self._path.unlink(missing_ok=True)

    def _begin(self) -> None:
        arrival = self._arrival
        uids = (arrival.sop_class_uid, arrival.sop_instance_uid, arrival.transfer_syntax_uid)
        if not all(VALID_UID.fullmatch(uid) for uid in uids):
            self._refused = Receipt("invalid-uid", "a UID is not made of digits and dots")
        elif not self._guard.has_room():
            self._refused = Receipt(
                "disk-full", "the used share of the file system exceeds the limit"
            )
        else:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o640)
            except OSError as error:
                self._fail(error)
            else:
                self._write(_file_meta(arrival))

    def _write(self, piece: bytes | bytearray | memoryview) -> None:
        assert self._descriptor is not None, "a file that is written to is open"
        rest = memoryview(piece).cast("B")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._fail(error)
        self._bytes += len(piece)
        self._guard.wrote(len(piece))

    def _fail(self, error: OSError) -> None:
        """Record a fault of the disk as the refusal that the sender receives."""
        full = error.errno in NO_ROOM
        self._refused = Receipt("disk-full" if full else "spool-fault", str(error.strerror))
        self.discard()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SharedSync:
    """Syncs a folder; threads that call it while a sync runs share the next one."""

    def __init__(self, folder: Path) -> None:
        """Open the folder; it stays open."""
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._running = threading.Lock()
        self._count = threading.Lock()
        self._asked = 0
        self._done = 0

    def __call__(self) -> None:
        """Return when every rename that happened before this call is durable.

        Raises:
            OSError: if the sync fails.
        """
        with self._count:
            self._asked += 1
            mine = self._asked
        with self._running:
            if self._done < mine:
                upto = self._asked
                os.fsync(self._descriptor)
                self._done = upto


def is_whole(path: Path) -> bool:
    """Whether the content of a spooled file still matches the digest in its name.

    False also if the file does not exist or cannot be read.
    """
    name = SPOOLED.fullmatch(path.name)
    digest = sha256()
    try:
        with path.open("rb") as file:
            head = file.read(META_LENGTH_KNOWN)
            file.seek(META_LENGTH_KNOWN + int.from_bytes(head[-4:], "little"))
            while piece := file.read(2**20):
                digest.update(piece)
    except OSError:
        return False
    return name is not None and digest.hexdigest().startswith(name[1])


def _name(sop_instance_uid: str, content_digest: str) -> str:
    """File name of an instance, determined by its SOPInstanceUID and its content."""
    return f"{sha256(sop_instance_uid.encode()).hexdigest()[:32]}-{content_digest[:24]}.dcm"


def _file_meta(arrival: Arrival) -> bytes:
    """Preamble and file meta information of the file in the spool."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(arrival.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(arrival.sop_instance_uid)
    meta.TransferSyntaxUID = UID(arrival.transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    if arrival.calling_ae_title:
        meta.SourceApplicationEntityTitle = arrival.calling_ae_title
    buffer = DicomBytesIO()
    buffer.write(PREAMBLE)
    write_file_meta_info(buffer, meta)
    return buffer.getvalue()

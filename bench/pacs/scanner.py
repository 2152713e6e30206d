"""Synthetic series and the peers that send them.

The images are a disc with an insert and white noise: enough for the application to measure and to
denoise. Slices of 256 x 256 pixels are 131 kB of pixels.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from bench.mr_series import made_up_uid, mr_header, write_slice
from stillscan.deploy.gateway.sender.paused_reactor import PausedReactor

_config.STORE_SEND_CHUNKED_DATASET = True

PATIENT_NAME, PATIENT_ID = "Whooper", "SWAN"  # and a number: must not appear in logs
NOISE = 60.0  # standard deviation in stored values


@dataclass(frozen=True)
class SentSeries:
    """A series on disk.

    Attributes:
        files: in the order of InstanceNumber.
        sop_uids: theirs.
    """

    uid: str
    files: tuple[Path, ...]
    sop_uids: tuple[str, ...]


def make_series(
    folder: Path,
    number: int,
    slices: int,
    matrix: int = 256,
    expected: int | None = None,
    **attributes: object,
) -> SentSeries:
    """Write an MR series; the same number gives the same series.

    Args:
        folder: gets the files.
        number: tells series, study and patient apart.
        slices: how many.
        matrix: rows and columns.
        expected: ImagesInAcquisition; None: `slices`; 0: not in the header.
        attributes: DICOM keywords to set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = _header(number, matrix)
    if expected != 0:
        header.ImagesInAcquisition = slices if expected is None else expected
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    generator = np.random.default_rng(number)
    clean = _disc(matrix)
    files = tuple(folder / f"{number:05d}-{index:05d}.dcm" for index in range(slices))
    uids = tuple(_uid(number, "instance", index) for index in range(slices))
    for index, (file, uid) in enumerate(zip(files, uids, strict=True)):
        noisy = clean + generator.normal(scale=NOISE, size=clean.shape)
        write_slice(file, header, uid, index + 1, (-100, -100, 3.0 * index), noisy)
    return SentSeries(str(header.SeriesInstanceUID), files, uids)


def _uid(number: int, *what: object) -> str:
    return made_up_uid("stillscan-scanner", number, *what)


def _disc(matrix: int) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : matrix * 1j, -1 : 1 : matrix * 1j]
    body = 1 / (1 + np.exp(np.clip(40 * (np.hypot(y, x) - 0.8), -60, 60)))
    insert = 1 / (1 + np.exp(np.clip(40 * (np.hypot(y - 0.2, x + 0.1) - 0.3), -60, 60)))
    return 300 + 1200 * body + 600 * insert


def _header(number: int, matrix: int) -> Dataset:
    """Return the header that all instances of a series share."""
    header = mr_header(matrix, pixel_mm=1)
    header.StudyInstanceUID = _uid(number, "study")
    header.SeriesInstanceUID = _uid(number, "series")
    header.FrameOfReferenceUID = _uid(number, "frame")
    header.PatientName = f"{PATIENT_NAME}^{number}"
    header.PatientID = f"{PATIENT_ID}-{number}"
    header.SeriesDescription = "synthetic"
    header.SequenceVariant = "NONE"
    header.RepetitionTime, header.EchoTime = 500, 10
    header.SliceThickness = 3
    return header


@dataclass
class Sender:
    """Stores files over consecutive associations until each is acknowledged.

    Attributes:
        acknowledged: files that were answered with success, by what they were answered.
        refused: statuses other than success, in the order in which they came.
        breaks: how often an association could not be had, or was lost.
    """

    host: str
    port: int
    ae_title: str = "STILLSCAN"
    calling_ae_title: str = "SCANNER"
    timeout_s: float = 10.0
    acknowledged: set[Path] = field(default_factory=set)
    refused: list[int] = field(default_factory=list)
    breaks: int = 0

    def send(
        self,
        files: Sequence[Path],
        again: Callable[[], bool] = lambda: True,
        stored: Callable[[Path], None] = lambda file: None,
    ) -> None:
        """Send files; unacknowledged files are sent again while `again()` is true."""
        while left := [file for file in files if file not in self.acknowledged]:
            self._send_once(left, stored)
            if not again():
                return

    def _send_once(self, files: Sequence[Path], stored: Callable[[Path], None]) -> None:
        entity = AE(ae_title=self.calling_ae_title)
        entity.connection_timeout = entity.acse_timeout = self.timeout_s
        entity.dimse_timeout = entity.network_timeout = self.timeout_s
        reactor = PausedReactor(self.timeout_s)
        association = entity.associate(
            self.host,
            self.port,
            contexts=_contexts_of(files),
            ae_title=self.ae_title,
            evt_handlers=reactor.handlers,
        )
        if not association.is_established:
            reactor.end()
            self.breaks += 1
            threading.Event().wait(0.1)
            return
        whole = self._store(association, files, stored)
        if whole:
            association.release()
        reactor.end()
        if association.is_established:
            association.abort()

    def _store(
        self, association: Association, files: Sequence[Path], stored: Callable[[Path], None]
    ) -> bool:
        """Store files; return False if the association was lost."""
        for file in files:
            try:
                answer = association.send_c_store(file)
            except (RuntimeError, ValueError):
                answer = Dataset()
            if "Status" not in answer:
                self.breaks += 1
                return False
            if answer.Status == 0:
                self.acknowledged.add(file)
                stored(file)
            else:
                self.refused.append(int(answer.Status))
        return True


def _contexts_of(files: Sequence[Path]) -> list[PresentationContext]:
    kinds = set()
    for file in files:
        meta = read_file_meta_info(file)
        kinds.add((str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)))
    return [build_context(*kind) for kind in sorted(kinds)]


def dcmsend(program: str, port: int, files: Sequence[Path], calling: str = "SCANNER") -> None:
    """Send files with dcmtk over one association.

    Raises:
        subprocess.CalledProcessError: if not all are stored.
    """
    # dcmtk waits 40 ms for every instance without TCP_NODELAY
    environment: Mapping[str, str] = os.environ | {"TCP_NODELAY": "1"}
    command = [program, "-aet", calling, "-aec", "STILLSCAN", "-nh", "127.0.0.1", str(port)]
    for start in range(0, len(files), 2000):
        part = [str(file) for file in files[start : start + 2000]]
        subprocess.run([*command, *part], check=True, env=environment, capture_output=True)

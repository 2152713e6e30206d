"""WADO-RS (PS3.18 10.4): retrieve the instances of a series, streamed into files."""

from __future__ import annotations

from http.client import HTTPMessage
from pathlib import Path

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint, require_ok
from stillscan.app.dicomweb.multipart import (
    BrokenOffError,
    MultipartError,
    Part,
    boundary_of,
    parts,
)
from stillscan.operators.output_faults import naming_output_faults

CHUNK = 2**20
KEEP = "keep a fetched series"
ACCEPT = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


def retrieve(endpoint: Endpoint, path: str, folder: Path) -> int:
    """Fetch a series or an instance into `folder`, one file per instance.

    Args:
        endpoint: the archive.
        path: path of the resource, such as `/studies/1.2/series/1.2.3`.
        folder: existing folder for `000001.dcm`, ...

    Returns:
        The number of instances.

    Raises:
        DicomWebError: if the answer is not a multipart message of DICOM, or ends early.
        OutputError: if a file cannot be written.
    """
    number = 0
    with endpoint.request(path, ACCEPT) as answer:
        require_ok(answer, "fetching a series")
        try:
            for part in parts(lambda: answer.read(CHUNK), _boundary(answer.headers)):
                number += 1
                _write(part, folder / f"{number:06d}.dcm")
        except BrokenOffError as error:
            raise DicomWebError(
                "broken-off", "the connection was lost while a series was fetched"
            ) from error
        except MultipartError as error:
            raise DicomWebError(
                "not-dicomweb", f"the answer is not multipart/related DICOM: {error}"
            ) from error
    return number


def _write(part: Part, path: Path) -> None:
    """Write a part to a file; only errors of the disk become an `OutputError`."""
    with naming_output_faults(KEEP):
        file = path.open("xb")
    with file:
        for piece in part.pieces:
            with naming_output_faults(KEEP):
                file.write(piece)


def _boundary(headers: HTTPMessage) -> bytes:
    if headers.get_content_type() != "multipart/related":
        raise MultipartError("expected multipart/related")
    return boundary_of(headers)

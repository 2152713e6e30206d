"""WADO-RS (PS3.18 10.4): the instances of a series, streamed into files as they come."""

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
    """Fetch what lies at a path (a series, an instance) into `folder`, one file per instance.

    Args:
        endpoint: of the archive.
        path: such as `/studies/1.2/series/1.2.3`.
        folder: is there; gets `000001.dcm`, ...

    Returns:
        How many instances came.

    Raises:
        DicomWebError: if the answer is no multipart message of DICOM, or breaks off.
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
            raise DicomWebError("broken-off", "a series broke off while it was fetched") from error
        except MultipartError as error:
            raise DicomWebError(
                "not-dicomweb", f"a series came in no such message: {error}"
            ) from error
    return number


def _write(part: Part, path: Path) -> None:
    """What the disk says is named as such; what the network says is for the request."""
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

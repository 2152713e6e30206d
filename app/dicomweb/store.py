"""STOW-RS (PS3.18 10.5): store files in one request, streamed from the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from stillscan.app.dicomweb.endpoint import DicomWebError, Endpoint

CHUNK = 2**20
MAX_ANSWER = 2**24
STORED = (200, 202)
FAILED_SOPS, REFERENCED_SOPS = "00081198", "00081199"
FAILURE_REASON, WARNING_REASON = "00081197", "00081196"


def store(endpoint: Endpoint, files: Sequence[Path]) -> int:
    """Store files; instances that the archive already has keep their content.

    Returns:
        The number of instances that were stored with a warning.

    Raises:
        DicomWebError: if the answer does not confirm every instance.
    """
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + file.stat().st_size + 2 for file in files) + len(tail)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(length),
        "Accept": "application/dicom+json",
    }
    body = _body(files, head, tail)
    with endpoint.request("/studies", headers, "POST", body) as answer:
        content = answer.read(MAX_ANSWER)
    return _warned(answer.status, content, len(files))


def _body(files: Sequence[Path], head: bytes, tail: bytes) -> Iterator[bytes]:
    for file in files:
        yield head
        with file.open("rb") as source:
            while piece := source.read(CHUNK):
                yield piece
        yield b"\r\n"
    yield tail


def _warned(status: int, content: bytes, sent: int) -> int:
    """Evaluate the answer; every instance must be confirmed as stored."""
    try:
        answer = json.loads(content or b"{}")
        failed, stored = _items(answer, FAILED_SOPS), _items(answer, REFERENCED_SOPS)
    except (ValueError, AttributeError, TypeError) as error:
        if status in STORED:
            raise DicomWebError("stow-failed", "the answer is not DICOM JSON") from error
        failed, stored = [], []
    why = _why(failed)
    if status not in STORED:
        raise DicomWebError(f"http-{status}", f"storing failed with HTTP {status}{why}")
    if failed or len(stored) < sent:
        raise DicomWebError("stow-failed", f"{len(stored)} of {sent} instances stored{why}")
    return sum(WARNING_REASON in each for each in stored)


def _items(answer: Any, sequence: str) -> list[dict[str, Any]]:
    return list(answer.get(sequence, {}).get("Value", []))


def _why(failed: Sequence[dict[str, Any]]) -> str:
    """Return the failure reason of the first failed instance, if the answer has one."""
    try:
        return f", failure reason 0x{int(failed[0][FAILURE_REASON]['Value'][0]):04X}"
    except (LookupError, TypeError, ValueError, AttributeError):
        return ""

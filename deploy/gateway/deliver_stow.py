"""STOW-RS (PS3.18 10.5): one request for a whole series, streamed from its files."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from deploy.gateway.delivering import DeliveryFailedError, client_context
from deploy.gateway.settings import Destination, Tls, token_of
from operators.errors import SettingsError

CHUNK = 2**20
MAX_ANSWER = 2**24
FAILED_SOPS, REFERENCED_SOPS = "00081198", "00081199"
FAILURE_REASON, WARNING_REASON = "00081197", "00081196"


def store_over_the_web(destination: Destination, files: Sequence[Path], timeout_s: float) -> str:
    """Store files with STOW-RS; see `delivering.deliver`."""
    boundary = uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + file.stat().st_size + 2 for file in files) + len(tail)
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(length),
        "Accept": "application/dicom+json",
        **_authorization(destination),
    }
    connection = _connection(destination, timeout_s)
    try:
        path = f"{urlsplit(destination.url).path.rstrip('/')}/studies"
        connection.request("POST", path, _body(files, head, tail), headers)
        answer = connection.getresponse()
        content = answer.read(MAX_ANSWER)
    except TimeoutError as error:
        raise DeliveryFailedError("no-answer", "no answer in time") from error
    except ssl.SSLError as error:
        raise DeliveryFailedError("bad-certificate", f"TLS: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DeliveryFailedError("unreachable", f"{type(error).__name__} on the way") from error
    finally:
        connection.close()
    return _judge(answer.status, content, len(files))


def _connection(destination: Destination, timeout_s: float) -> http.client.HTTPConnection:
    url = urlsplit(destination.url)
    if url.scheme == "https":
        context = client_context(destination.tls or Tls())
        return http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=timeout_s, context=context
        )
    return http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)


def _authorization(destination: Destination) -> dict[str, str]:
    try:
        token = token_of(destination.token_file)
    except SettingsError as error:
        raise DeliveryFailedError("bad-settings", str(error)) from error
    return {} if token is None else {"Authorization": token}


def _body(files: Sequence[Path], head: bytes, tail: bytes) -> Iterator[bytes]:
    for file in files:
        yield head
        with file.open("rb") as source:
            while piece := source.read(CHUNK):
                yield piece
        yield b"\r\n"
    yield tail


def _judge(status: int, content: bytes, sent: int) -> str:
    """What the answer means: every instance has to be named as stored."""
    if status not in (200, 202):
        raise DeliveryFailedError(f"http-{status}", f"answered with HTTP {status}{_why(content)}")
    try:
        answer = json.loads(content or b"{}")
        failed, stored = _items(answer, FAILED_SOPS), _items(answer, REFERENCED_SOPS)
    except (ValueError, AttributeError, TypeError) as error:
        raise DeliveryFailedError("stow-failed", "an answer that is not DICOM JSON") from error
    if failed or len(stored) < sent:
        raise DeliveryFailedError(
            "stow-failed", f"{len(stored)} of {sent} instances stored{_why(content)}"
        )
    warned = sum(WARNING_REASON in each for each in stored)
    return f"warning ({warned} of {sent} instances)" if warned else ""


def _items(answer: Any, sequence: str) -> list[dict[str, Any]]:
    return list(answer.get(sequence, {}).get("Value", []))


def _why(content: bytes) -> str:
    """The failure reason of the first instance that failed, where the answer has one."""
    try:
        first = _items(json.loads(content), FAILED_SOPS)[0]
        return f", failure reason 0x{int(first[FAILURE_REASON]['Value'][0]):04X}"
    except (ValueError, LookupError, AttributeError, TypeError):
        return ""

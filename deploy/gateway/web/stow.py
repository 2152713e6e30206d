"""STOW-RS (PS3.18 section 10.5): instances in a multipart request, straight into the spool.

    POST /studies
    Content-Type: multipart/related; type="application/dicom"; boundary=...

The parts are read as they come; a data set is neither decoded nor held in memory. The answer is
the DICOM JSON of the instances that are durable and of those that are not, with the reason.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from http import HTTPStatus
from typing import Any

from stillscan.deploy.gateway.receiver.association import (
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    status_of,
)
from stillscan.deploy.gateway.receiver.command_set import (
    CANNOT_UNDERSTAND,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
)
from stillscan.deploy.gateway.receiver.spool import Arrival, Spool
from stillscan.deploy.gateway.web.http_server import Request, RequestError, Response, json_response

Count = Callable[[str, int], None]

MOST_PARTS = 20_000
MOST_PART_HEAD = 2**13
MOST_BOUNDARY = 200  # RFC 2046 says 70; Orthanc sends 73
MOST_FILE_META = 2**16
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122

_EXPLICIT = struct.Struct("<HH2sH")
_LONG_VRS = (b"OB", b"UN", b"OW", b"UT")


@dataclass(frozen=True)
class Part:
    """One part of a multipart body; `pieces` is used up before the next part comes."""

    content_type: str
    pieces: Iterator[bytes]


def store(request: Request, spool: Spool, count: Count) -> Response:
    """Store what a STOW-RS request brings.

    Raises:
        RequestError: if it is no such request.
    """
    boundary = _boundary(request.headers)
    stored: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for number, part in enumerate(parts(request.read, boundary)):
        if number == MOST_PARTS:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {MOST_PARTS} parts")
        if part.content_type != "application/dicom":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "parts are application/dicom")
        status, arrival = _store(part, spool, count)
        item = _item(arrival)
        if status == SUCCESS:
            stored.append(item)
        else:
            count("instances_refused", 1)
            failed.append({**item, "00081197": {"vr": "US", "Value": [status]}})
    return _response(stored, failed)


def _store(part: Part, spool: Spool, count: Count) -> tuple[int, Arrival | None]:
    """Status as a C-STORE would have, and what the file says of itself."""
    try:
        arrival, rest = _file_meta(part.pieces)
    except ValueError:
        _use_up(part.pieces)
        return CANNOT_UNDERSTAND, None
    if arrival.sop_class_uid not in STORAGE_CLASSES:
        _use_up(part.pieces)
        return SOP_CLASS_NOT_SUPPORTED, arrival
    if arrival.transfer_syntax_uid not in TRANSFER_SYNTAXES:
        _use_up(part.pieces)
        return TRANSFER_SYNTAX_NOT_SUPPORTED, arrival
    with spool.begin(arrival) as incoming:
        incoming.write(rest)
        for piece in part.pieces:
            incoming.write(piece)
        receipt = incoming.commit()
    status, _ = status_of(receipt)
    if status == SUCCESS:
        count("instances_acknowledged", 1)
    return status, arrival


def parts(read: Callable[[], bytes], boundary: bytes) -> Iterator[Part]:
    """The parts of a multipart body, one after the other (RFC 2046 section 5.1.1).

    Args:
        read: gives the next piece of the body, an empty one at its end.
        boundary: of the parts.

    Raises:
        RequestError: if the body is not as it should be.
    """
    body = _Body(read, b"\r\n--" + boundary)
    _use_up(body.until_delimiter())
    while body.another_part():
        head = BytesHeaderParser().parsebytes(body.head())
        yield Part(head.get_content_type(), pieces := body.until_delimiter())
        _use_up(pieces)


class _Body:
    """A multipart body with a delimiter between its parts."""

    def __init__(self, read: Callable[[], bytes], delimiter: bytes) -> None:
        self._read = read
        self._delimiter = delimiter
        self._buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning

    def until_delimiter(self) -> Iterator[bytes]:
        """What stands before the next delimiter, in pieces."""
        kept = len(self._delimiter) - 1
        while (at := self._buffer.find(self._delimiter)) < 0:
            if len(self._buffer) > kept:
                piece = bytes(self._buffer[: len(self._buffer) - kept])
                del self._buffer[: len(self._buffer) - kept]
                yield piece
            self._fill()
        piece = bytes(self._buffer[:at])
        del self._buffer[: at + len(self._delimiter)]
        yield piece

    def another_part(self) -> bool:
        """Whether the delimiter that was just passed begins a part; else it ends the body."""
        while len(self._buffer) < 2:
            self._fill()
        return not self._buffer.startswith(b"--")

    def head(self) -> bytes:
        """The header fields of a part, with the empty line."""
        while (at := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MOST_PART_HEAD:
                raise RequestError(HTTPStatus.BAD_REQUEST, "head of a part is too large")
            self._fill()
        head = bytes(self._buffer[: at + 4]).lstrip(b" \t\r\n")
        del self._buffer[: at + 4]
        return head

    def _fill(self) -> None:
        piece = self._read()
        if not piece:
            raise RequestError(HTTPStatus.BAD_REQUEST, "the last part does not end")
        self._buffer += piece


def _use_up(pieces: Iterator[bytes]) -> None:
    for _ in pieces:
        pass


def _boundary(headers: Message) -> bytes:
    if headers.get_content_type() != "multipart/related":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected multipart/related")
    kind = str(headers.get_param("type", "application/dicom")).lower()
    if kind != "application/dicom":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'expected type="application/dicom"')
    boundary = headers.get_boundary("")
    if not boundary or len(boundary) > MOST_BOUNDARY or not boundary.isascii():
        raise RequestError(HTTPStatus.BAD_REQUEST, "boundary is missing or no boundary")
    return boundary.encode()


def _file_meta(pieces: Iterator[bytes]) -> tuple[Arrival, bytes]:
    """What a DICOM file says of itself, and the beginning of its data set that was read with it.

    Raises:
        ValueError: if it is no DICOM file.
    """
    buffer = bytearray()

    def need(count: int) -> None:
        while len(buffer) < count:
            piece = next(pieces, None)
            if piece is None:
                raise ValueError("too short")
            buffer.extend(piece)

    need(144)  # preamble, DICM, group length
    group, number, vr, size = _EXPLICIT.unpack_from(buffer, 132)
    if buffer[128:132] != b"DICM" or (group, number, vr, size) != (2, 0, b"UL", 4):
        raise ValueError("no DICOM file")
    length = int.from_bytes(buffer[140:144], "little")
    if length > MOST_FILE_META:
        raise ValueError("file meta information is too large")
    need(144 + length)
    elements = _elements(bytes(buffer[144 : 144 + length]))
    arrival = Arrival(
        sop_class_uid=elements.get(0x0002, ""),
        sop_instance_uid=elements.get(0x0003, ""),
        transfer_syntax_uid=elements.get(0x0010, ""),
    )
    return arrival, bytes(buffer[144 + length :])


def _elements(encoded: bytes) -> dict[int, str]:
    """Elements of group 0002 as text, by number."""
    elements, at = {}, 0
    while at + 8 <= len(encoded):
        group, number, vr, size = _EXPLICIT.unpack_from(encoded, at)
        at += 8
        if vr in _LONG_VRS:
            size = int.from_bytes(encoded[at : at + 4], "little")
            at += 4
        if group != 2 or size > len(encoded) - at:
            raise ValueError("file meta information is damaged")
        elements[number] = encoded[at : at + size].decode("latin-1").strip(" \0")
        at += size
    return elements


def _item(arrival: Arrival | None) -> dict[str, Any]:
    if arrival is None:
        return {}
    return {
        "00081150": {"vr": "UI", "Value": [arrival.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [arrival.sop_instance_uid]},
    }


def _response(stored: list[dict[str, Any]], failed: list[dict[str, Any]]) -> Response:
    if not stored and not failed:
        raise RequestError(HTTPStatus.BAD_REQUEST, "there is no instance in the request")
    answer: dict[str, Any] = {"00081190": {"vr": "UR"}}  # nothing can be retrieved from here
    if failed:
        answer["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        answer["00081199"] = {"vr": "SQ", "Value": stored}
    return json_response(answer, _status(stored, failed), "application/dicom+json")


def _status(stored: list[dict[str, Any]], failed: list[dict[str, Any]]) -> HTTPStatus:
    if not failed:
        return HTTPStatus.OK
    if stored:
        return HTTPStatus.ACCEPTED
    full = all(0xA700 <= item["00081197"]["Value"][0] <= 0xA7FF for item in failed)
    return HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.CONFLICT

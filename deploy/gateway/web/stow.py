"""STOW-RS (PS3.18 section 10.5): stores the instances of a multipart request in the spool.

    POST /studies
    Content-Type: multipart/related; type="application/dicom"; boundary=...

The parts are read as they arrive; a data set is neither decoded nor held in memory. The response is
DICOM JSON with the stored instances and those that failed, with a failure reason.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from email.message import Message
from http import HTTPStatus
from typing import Any

from stillscan.app.dicomweb.multipart import MultipartError, Part, boundary_of, parts, use_up
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
Items = list[dict[str, Any]]  # of a sequence, in DICOM JSON

MAX_PARTS = 20_000
MAX_FILE_META = 2**16
TRANSFER_SYNTAX_NOT_SUPPORTED = 0xC122

_EXPLICIT = struct.Struct("<HH2sH")
_LONG_VRS = (b"OB", b"UN", b"OW", b"UT")


def store(request: Request, spool: Spool, count: Count) -> Response:
    """Store the instances of a STOW-RS request.

    Raises:
        RequestError: if it is not a valid STOW-RS request.
    """
    try:
        return _response(*_store_all(request, spool, count))
    except MultipartError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error


def _store_all(request: Request, spool: Spool, count: Count) -> tuple[Items, Items]:
    """Store all parts; returns the items of stored instances, and of failed ones."""
    stored: Items = []
    failed: Items = []
    for number, part in enumerate(parts(request.read, _boundary(request.headers))):
        if number == MAX_PARTS:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {MAX_PARTS} parts")
        if part.content_type != "application/dicom":
            raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "parts must be application/dicom")
        status, arrival = _store(part, spool, count)
        item = _item(arrival)
        if status == SUCCESS:
            stored.append(item)
        else:
            count("instances_refused", 1)
            failed.append({**item, "00081197": {"vr": "US", "Value": [status]}})
    return stored, failed


def _store(part: Part, spool: Spool, count: Count) -> tuple[int, Arrival | None]:
    """Store one part; returns the status (as for C-STORE) and its file meta information."""
    try:
        arrival, rest = _file_meta(part.pieces)
    except ValueError:
        use_up(part.pieces)
        return CANNOT_UNDERSTAND, None
    if arrival.sop_class_uid not in STORAGE_CLASSES:
        use_up(part.pieces)
        return SOP_CLASS_NOT_SUPPORTED, arrival
    if arrival.transfer_syntax_uid not in TRANSFER_SYNTAXES:
        use_up(part.pieces)
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


def _boundary(headers: Message) -> bytes:
    if headers.get_content_type() != "multipart/related":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected multipart/related")
    kind = str(headers.get_param("type", "application/dicom")).lower()
    if kind != "application/dicom":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, 'expected type="application/dicom"')
    return boundary_of(headers)


def _file_meta(pieces: Iterator[bytes]) -> tuple[Arrival, bytes]:
    """The file meta information, and the bytes of the data set that were read with it.

    Raises:
        ValueError: if it is not a DICOM file.
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
        raise ValueError("not a DICOM file")
    length = int.from_bytes(buffer[140:144], "little")
    if length > MAX_FILE_META:
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


def _response(stored: Items, failed: Items) -> Response:
    if not stored and not failed:
        raise RequestError(HTTPStatus.BAD_REQUEST, "the request contains no instance")
    answer: dict[str, Any] = {"00081190": {"vr": "UR"}}  # the gateway offers no retrieval
    if failed:
        answer["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        answer["00081199"] = {"vr": "SQ", "Value": stored}
    return json_response(answer, _status(stored, failed), "application/dicom+json")


def _status(stored: Items, failed: Items) -> HTTPStatus:
    if not failed:
        return HTTPStatus.OK
    if stored:
        return HTTPStatus.ACCEPTED
    full = all(0xA700 <= item["00081197"]["Value"][0] <= 0xA7FF for item in failed)
    return HTTPStatus.INSUFFICIENT_STORAGE if full else HTTPStatus.CONFLICT

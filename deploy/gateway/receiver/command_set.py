"""DIMSE command sets: parses C-STORE and C-ECHO requests, encodes responses (PS3.7 section 9.3).

A command set is a flat list of elements of group 0000 in Implicit VR Little Endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from stillscan.deploy.gateway.receiver.upper_layer import ProtocolError

C_STORE = 0x0001
C_ECHO = 0x0030
C_CANCEL = 0x0FFF
N_EVENT_REPORT = 0x0100
RESPONSE = 0x8000
NO_DATA_SET = 0x0101

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

MAX_BYTES = 2**14  # of a command set; that of a C-STORE has about 200

_ELEMENT = struct.Struct("<HHL")
_GROUP_LENGTH, _SOP_CLASS, _FIELD = 0x0000, 0x0002, 0x0100
_MESSAGE_ID, _RESPONDED_TO, _DATA_SET_TYPE = 0x0110, 0x0120, 0x0800
_STATUS, _COMMENT, _SOP_INSTANCE = 0x0900, 0x0902, 0x1000
_COMMENT_LENGTH = 64  # LO


@dataclass(frozen=True)
class Request:
    """One DIMSE request.

    Attributes:
        field: CommandField (`C_STORE`, `C_ECHO`, ...).
        has_data_set: whether a data set follows.
    """

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


def parse_request(encoded: bytes) -> Request:
    """Parse a command set.

    Raises:
        ProtocolError: if it is malformed.
    """
    elements = _elements(encoded)
    return Request(
        field=_number(elements, _FIELD),
        message_id=_number(elements, _MESSAGE_ID, 0),
        sop_class_uid=_uid(elements, _SOP_CLASS),
        sop_instance_uid=_uid(elements, _SOP_INSTANCE),
        has_data_set=_number(elements, _DATA_SET_TYPE) != NO_DATA_SET,
    )


def response(request: Request, status: int, comment: str = "") -> bytes:
    """Encode the response to a request; `comment` is the ErrorComment, without patient data."""
    elements = {
        _FIELD: struct.pack("<H", request.field | RESPONSE),
        _RESPONDED_TO: struct.pack("<H", request.message_id),
        _DATA_SET_TYPE: struct.pack("<H", NO_DATA_SET),
        _STATUS: struct.pack("<H", status),
    }
    if request.sop_class_uid:
        elements[_SOP_CLASS] = _padded(request.sop_class_uid, "\0")
    if comment:
        elements[_COMMENT] = _padded(comment[:_COMMENT_LENGTH], " ")
    if request.sop_instance_uid:
        elements[_SOP_INSTANCE] = _padded(request.sop_instance_uid, "\0")
    body = b"".join(_element(number, elements[number]) for number in sorted(elements))
    return _element(_GROUP_LENGTH, struct.pack("<L", len(body))) + body


def _elements(encoded: bytes) -> dict[int, bytes]:
    elements, at = {}, 0
    while at < len(encoded):
        if len(encoded) - at < _ELEMENT.size:
            raise ProtocolError("command element is cut off")
        group, number, length = _ELEMENT.unpack_from(encoded, at)
        at += _ELEMENT.size
        if group != 0 or length > len(encoded) - at:
            raise ProtocolError(f"command element ({group:04x},{number:04x}) of {length} bytes")
        elements[number] = encoded[at : at + length]
        at += length
    return elements


def _number(elements: Mapping[int, bytes], number: int, default: int | None = None) -> int:
    value = elements.get(number)
    if value is None and default is not None:
        return default
    if value is None or len(value) != 2:
        raise ProtocolError(f"command element (0000,{number:04x}) is missing or not a US")
    return int.from_bytes(value, "little")


def _uid(elements: Mapping[int, bytes], number: int) -> str:
    try:
        return elements.get(number, b"").decode("ascii").rstrip(" \0")
    except UnicodeDecodeError:
        raise ProtocolError(f"command element (0000,{number:04x}) is not ASCII") from None


def _padded(text: str, padding: str) -> bytes:
    return (text + padding * (len(text) % 2)).encode("ascii", "replace")


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value

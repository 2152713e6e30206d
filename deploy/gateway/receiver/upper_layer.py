"""PDUs of the DICOM upper layer protocol (PS3.8 section 9.3): parsing and encoding, no sockets.

Every length field is checked against the available bytes before it is used. Malformed PDUs raise
`ProtocolError`, which has the reason for the A-ABORT.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from stillscan.operators.writing.provenance import IMPLEMENTATION_CLASS_UID

HEADER = struct.Struct(">BxL")  # type, length of what follows
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_VERSION = "STILLSCAN"
PROTOCOL_VERSION = 0x0001
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # push model

_FIXED = struct.Struct(">HH16s16s32s")  # A-ASSOCIATE-RQ and -AC up to the variable items
_ITEM = struct.Struct(">BxH")
_PDV = struct.Struct(">LBB")
_PDV_MORE = 2  # context ID and control header are counted in a PDV's length
_MAX_CONTEXTS = 128  # odd numbers of one byte


class Pdu(IntEnum):
    """Types of PDU."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Abort(IntEnum):
    """Reasons of an A-ABORT by the service provider (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """The peer violates the upper layer protocol."""

    def __init__(self, message: str, reason: Abort = Abort.INVALID_PARAMETER) -> None:
        """`message` is for the log, `reason` for the peer."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Rejection:
    """Why an association is rejected (PS3.8 table 9-21).

    Attributes:
        name: used in logs.
        result: 1 permanent, 2 transient (the peer may try again).
        source, reason: as in the table.
    """

    name: str
    result: int
    source: int
    reason: int


UNKNOWN_CALLING = Rejection("calling-ae-title", 1, 1, 3)
UNKNOWN_CALLED = Rejection("called-ae-title", 1, 1, 7)
UNKNOWN_APPLICATION = Rejection("application-context", 1, 1, 2)
UNKNOWN_PROTOCOL = Rejection("protocol-version", 1, 2, 2)
TOO_MANY = Rejection("too-many-associations", 2, 3, 2)


@dataclass(frozen=True)
class Proposal:
    """One proposed presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """The answer to a proposed presentation context; result 0: accepted (PS3.8 table 9-18)."""

    proposal: Proposal
    result: int
    transfer_syntax: str


@dataclass(frozen=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ.

    Attributes:
        called, calling: AE titles without the spaces around them.
        titles: both as received, and the reserved bytes: the answer repeats them.
        max_length: maximum length of the data PDUs that the peer accepts; 0: no limit.
        provides: SOP classes for which the peer proposes to be the provider (SCP).
    """

    called: str
    calling: str
    titles: bytes
    protocol_version: int
    application_context: str
    proposals: tuple[Proposal, ...]
    max_length: int
    provides: frozenset[str] = frozenset()


def parse_associate_request(body: bytes | memoryview) -> AssociateRequest:
    """Parse an A-ASSOCIATE-RQ without its first six bytes.

    Raises:
        ProtocolError: if it is malformed.
    """
    data = bytes(body)
    if len(data) < _FIXED.size:
        raise ProtocolError(f"association request of {len(data)} bytes; it needs {_FIXED.size}")
    version, _, called, calling, reserved = _FIXED.unpack_from(data)
    context, proposals, max_length = "", [], 0
    provides: frozenset[str] = frozenset()
    for kind, value in _items(data[_FIXED.size :]):
        if kind == 0x10:
            context = _text(value)
        elif kind == 0x20:
            proposals.append(_proposal(value))
        elif kind == 0x50:
            max_length, provides = _user_information(value)
    if not proposals or len(proposals) > _MAX_CONTEXTS:
        raise ProtocolError(f"{len(proposals)} presentation contexts")
    if len({each.context_id for each in proposals}) < len(proposals):
        raise ProtocolError("two presentation contexts with the same ID")
    return AssociateRequest(
        called=_text(called),
        calling=_text(calling),
        titles=called + calling + reserved,
        protocol_version=version,
        application_context=context,
        proposals=tuple(proposals),
        max_length=max_length,
        provides=provides,
    )


def associate_accept(
    request: AssociateRequest, answers: Sequence[Answer], max_length: int
) -> bytes:
    """The A-ASSOCIATE-AC; `max_length` is that of the data PDUs that the gateway accepts."""
    items = [_item(0x10, APPLICATION_CONTEXT.encode())]
    for answer in answers:
        head = bytes((answer.proposal.context_id, 0, answer.result, 0))
        items.append(_item(0x21, head + _item(0x40, answer.transfer_syntax.encode())))
    roles = [
        _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((0, 1)))  # the peer is SCP, not SCU
        for uid in sorted(each.encode() for each in request.provides & {STORAGE_COMMITMENT})
    ]
    user = (
        _item(0x51, struct.pack(">L", max_length))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + b"".join(roles)
        + _item(0x55, IMPLEMENTATION_VERSION.encode())
    )
    items.append(_item(0x50, user))
    fixed = struct.pack(">HH", PROTOCOL_VERSION, 0) + request.titles
    return _pdu(Pdu.ASSOCIATE_AC, fixed + b"".join(items))


def associate_reject(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ."""
    fields = bytes((0, rejection.result, rejection.source, rejection.reason))
    return _pdu(Pdu.ASSOCIATE_RJ, fields)


def release_response() -> bytes:
    """The A-RELEASE-RP."""
    return _pdu(Pdu.RELEASE_RP, bytes(4))


def abort(reason: Abort) -> bytes:
    """The A-ABORT of the service provider."""
    return _pdu(Pdu.ABORT, bytes((0, 0, 2, reason)))


@dataclass(frozen=True)
class Fragment:
    """One presentation data value.

    Attributes:
        is_command: part of a command set, else of a data set.
        is_last: the last fragment of its command set or data set.
        data: only valid until the next PDU is read.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


def fragments(body: memoryview) -> Iterator[Fragment]:
    """The presentation data values of a P-DATA-TF without its first six bytes.

    Raises:
        ProtocolError: if the lengths do not fit into the PDU, or it is empty.
    """
    at = 0
    if not body:
        raise ProtocolError("data PDU without data")
    while at < len(body):
        if len(body) - at < _PDV.size:
            raise ProtocolError("presentation data value is cut off")
        length, context_id, control = _PDV.unpack_from(body, at)
        end = at + 4 + length
        if length < _PDV_MORE or end > len(body):
            raise ProtocolError(f"presentation data value of {length} bytes in {len(body) - at}")
        yield Fragment(context_id, bool(control & 1), bool(control & 2), body[at + _PDV.size : end])
        at = end


def command_pdus(context_id: int, command: bytes, max_length: int) -> Iterator[bytes]:
    """A command set as P-DATA-TF PDUs up to the peer's `max_length` (0: no limit)."""
    room = (max_length or len(command) + _PDV.size) - _PDV.size
    if room < 1:
        raise ProtocolError(f"the peer's maximum PDU length of {max_length} bytes is too small")
    for start in range(0, len(command), room):
        piece = command[start : start + room]
        control = 1 | (2 if start + room >= len(command) else 0)
        yield _pdu(Pdu.DATA, _PDV.pack(len(piece) + _PDV_MORE, context_id, control) + piece)


def _proposal(value: bytes) -> Proposal:
    if len(value) < 4:
        raise ProtocolError("presentation context is cut off")
    context_id, abstract, transfer = value[0], "", []
    if context_id % 2 == 0:
        raise ProtocolError(f"presentation context ID {context_id} is not odd")
    for kind, text in _items(value[4:]):
        if kind == 0x30:
            abstract = _text(text)
        elif kind == 0x40:
            transfer.append(_text(text))
    if not abstract or not transfer:
        raise ProtocolError("presentation context without abstract or transfer syntax")
    return Proposal(context_id, abstract, tuple(transfer))


def _user_information(value: bytes) -> tuple[int, frozenset[str]]:
    """Maximum length (0: no limit), and SOP classes with the proposed role SCP (PS3.7 D.3.3.4)."""
    max_length, provides = 0, set()
    for kind, content in _items(value):
        if kind == 0x51:
            if len(content) != 4:
                raise ProtocolError("maximum length does not have four bytes")
            max_length = int.from_bytes(content, "big")
        elif kind == 0x54 and content[-1:] == b"\1":
            provides.add(_text(content[2:-2]))
    return max_length, frozenset(provides)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if len(data) - at < _ITEM.size:
            raise ProtocolError("item is cut off")
        kind, length = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        if length > len(data) - at:
            raise ProtocolError(f"item of {length} bytes in {len(data) - at}")
        yield kind, data[at : at + length]
        at += length


def _text(value: bytes) -> str:
    try:
        return value.decode("ascii").strip(" \0")
    except UnicodeDecodeError:
        raise ProtocolError("UID or AE title is not ASCII") from None


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _pdu(kind: Pdu, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body

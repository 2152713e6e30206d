"""One DICOM association, on the acceptor's side: C-STORE, C-ECHO, reports of storage commitment.

Data sets are written to the spool in pieces as they arrive, neither decoded nor held in memory. A
C-STORE is answered with success (0x0000) only after the spool has made the instance durable;
`status_of` gives the status of a refused one.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pynetdicom import AllStoragePresentationContexts

from stillscan.deploy.gateway.receiver.command_set import (
    C_CANCEL,
    C_ECHO,
    C_STORE,
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH,
    MAX_BYTES,
    N_EVENT_REPORT,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    UNRECOGNIZED_OPERATION,
    Request,
    parse_request,
    response,
)
from stillscan.deploy.gateway.receiver.spool import Arrival, Incoming, Receipt, Spool
from stillscan.deploy.gateway.receiver.upper_layer import (
    HEADER,
    STORAGE_COMMITMENT,
    Abort,
    Answer,
    AssociateRequest,
    Fragment,
    Pdu,
    Proposal,
    ProtocolError,
    abort,
    associate_accept,
    command_pdus,
    fragments,
    release_response,
)
from stillscan.deploy.gateway.settings import ReceiverSection

log = logging.getLogger("stillscan.gateway")

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_CLASSES = frozenset(str(each.abstract_syntax) for each in AllStoragePresentationContexts)
# The syntaxes that the reader decodes, in order of preference if a sender offers several.
TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed
    "1.2.840.10008.1.2.1.99",  # Deflated
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # lossy ones: `selection.lossy` decides whether they are processed
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.203",
)
ACCEPTED, NO_ABSTRACT_SYNTAX, NO_TRANSFER_SYNTAX = 0, 3, 4
OPERATIONS = {VERIFICATION: C_ECHO, STORAGE_COMMITMENT: N_EVENT_REPORT}  # others: C-STORE
MAX_REPORT = 2**22  # bytes of a report of storage commitment: 20,000 instances
CLOSING_S = 2.0  # time limit for the peer to close the connection after a release

Count = Callable[[str, int], None]
Report = Callable[[bytes, str], bool]  # takes a data set and its transfer syntax


class PeerGoneError(Exception):
    """The peer closed the connection or aborted."""


@dataclass
class _Message:
    """A message whose data set has not completely arrived.

    Attributes:
        incoming: destination of the data set; None if the data set is discarded.
        report: data set of a report; None if the message is none.
        refusal: status and comment of the response, if the request is refused.
    """

    context_id: int
    request: Request
    incoming: Incoming | None = None
    report: bytearray | None = None
    refusal: tuple[int, str] | None = None
    received: int = 0


class Association:
    """Serves one peer until release, abort, a protocol error or a time-out."""

    def __init__(
        self,
        connection: socket.socket,
        request: AssociateRequest,
        settings: ReceiverSection,
        spool: Spool,
        count: Count,
        idle: Callable[[bool], None] = lambda idle: None,
        report: Report = lambda encoded, syntax: False,
    ) -> None:
        """Negotiate the presentation contexts.

        Args:
            connection: socket of the peer.
            request: the association request.
            settings: time and size limits.
            spool: where instances are stored.
            count: increments a counter of the receiver.
            idle: called with True when no request is under way, with False when one begins.
            report: takes a report of storage commitment; False: it is of no known delivery.
        """
        self._connection = connection
        self._request = request
        self._settings = settings
        self._spool = spool
        self._count = count
        self._idle = idle
        self._report = report
        self._ends = time.monotonic() + settings.association_s
        self._answers = {each.proposal.context_id: each for each in negotiate(request.proposals)}
        self._buffer = memoryview(bytearray(settings.max_pdu))
        self._command = bytearray()
        self._command_context: int | None = None
        self._message: _Message | None = None
        self.stored = 0

    def serve(self) -> str:
        """Accept the association and answer all its messages.

        Returns:
            How it ended: `released`, `gone` (closed or aborted by the peer), `aborted` (by the
            gateway, after a protocol error) or `idle` (time-out).
        """
        try:
            self._send(
                associate_accept(
                    self._request, tuple(self._answers.values()), self._settings.max_pdu
                )
            )
            while self._serve_pdu():
                pass
            return "released"
        except ProtocolError as error:
            log.warning("association of %r aborted: %s", self._request.calling, error)
            self._try_to_send(abort(error.reason))
            return "aborted"
        except TimeoutError:
            self._try_to_send(abort(Abort.NOT_SPECIFIED))
            return "idle"
        except (PeerGoneError, OSError):
            return "gone"
        finally:
            if self._message and self._message.incoming:
                self._message.incoming.discard()

    def _serve_pdu(self) -> bool:
        """Read one PDU and handle it; False after a release."""
        kind, body = self._receive()
        if kind == Pdu.DATA:
            for fragment in fragments(body):
                self._take(fragment)
            return True
        if kind == Pdu.RELEASE_RQ:
            self._send(release_response())
            self._wait_for_close()
            return False
        if kind == Pdu.ABORT:
            raise PeerGoneError
        raise ProtocolError(f"PDU of type {kind} within an association", Abort.UNEXPECTED_PDU)

    def _take(self, fragment: Fragment) -> None:
        if fragment.context_id not in self._answers:
            raise ProtocolError(f"presentation context {fragment.context_id} was not proposed")
        if fragment.is_command:
            self._take_command(fragment)
        else:
            self._take_data(fragment)

    def _take_command(self, fragment: Fragment) -> None:
        if self._message is not None:
            raise ProtocolError("a command within a data set", Abort.UNEXPECTED_PARAMETER)
        if self._command_context not in (None, fragment.context_id):
            raise ProtocolError("one command in two presentation contexts")
        if len(self._command) + len(fragment.data) > MAX_BYTES:
            raise ProtocolError(f"command set of more than {MAX_BYTES} bytes")
        self._command_context = fragment.context_id
        self._command += fragment.data
        if fragment.is_last:
            request = parse_request(bytes(self._command))
            self._command.clear()
            self._command_context = None
            self._begin(fragment.context_id, request)

    def _begin(self, context_id: int, request: Request) -> None:
        message = _Message(context_id, request, refusal=self._refusal(context_id, request))
        if request.field == C_STORE and not request.has_data_set:
            message.refusal = (CANNOT_UNDERSTAND, "no data set")
        elif request.field == N_EVENT_REPORT and message.refusal is None:
            message.report = bytearray()
        elif request.field == C_STORE and message.refusal is None:
            message.incoming = self._spool.begin(
                Arrival(
                    sop_class_uid=request.sop_class_uid,
                    sop_instance_uid=request.sop_instance_uid,
                    transfer_syntax_uid=self._answers[context_id].transfer_syntax,
                    calling_ae_title=self._request.calling,
                )
            )
        if request.has_data_set:
            self._message = message
        elif request.field != C_CANCEL:  # there is no operation that could be cancelled
            status, comment = message.refusal or (SUCCESS, "")
            self._answer(message, status, comment)

    def _refusal(self, context_id: int, request: Request) -> tuple[int, str] | None:
        """Status and comment for a request that cannot be served."""
        answer = self._answers[context_id]
        if answer.result != ACCEPTED:
            raise ProtocolError(f"presentation context {context_id} was not accepted")
        if request.sop_class_uid != answer.proposal.abstract_syntax:
            return SOP_CLASS_NOT_SUPPORTED, "SOP class is not that of the context"
        if request.field != OPERATIONS.get(request.sop_class_uid, C_STORE):
            return UNRECOGNIZED_OPERATION, ""
        return None

    def _take_data(self, fragment: Fragment) -> None:
        message = self._message
        if message is None or message.context_id != fragment.context_id:
            raise ProtocolError("a data set without a command", Abort.UNEXPECTED_PARAMETER)
        message.received += len(fragment.data)
        if message.report is not None:
            message.report += fragment.data
            if len(message.report) > MAX_REPORT:
                raise ProtocolError(f"a report of more than {MAX_REPORT} bytes")
        if message.incoming is not None:
            if message.received > self._settings.max_instance_mb * 2**20:
                message.incoming.discard()
                message.incoming = None
                limit = self._settings.max_instance_mb
                message.refusal = (OUT_OF_RESOURCES, f"more than {limit} MB")
            else:
                message.incoming.write(fragment.data)
        if fragment.is_last:
            self._finish(message)

    def _finish(self, message: _Message) -> None:
        status, comment = message.refusal or (SUCCESS, "")
        if message.incoming is not None:
            receipt = message.incoming.commit()
            message.incoming.discard()  # has no effect after a successful commit
            status, comment = status_of(receipt)
            if status == SUCCESS:
                self.stored += 1
                self._count("instances_acknowledged", 1)
        if message.report is not None:
            syntax = self._answers[message.context_id].transfer_syntax
            status = SUCCESS if self._report(bytes(message.report), syntax) else PROCESSING_FAILURE
        elif status != SUCCESS:
            log.warning("instance of %r refused: %s", self._request.calling, comment)
            self._count("instances_refused", 1)
        self._message = None
        self._answer(message, status, comment)

    def _answer(self, message: _Message, status: int, comment: str) -> None:
        encoded = response(message.request, status, comment)
        for pdu in command_pdus(message.context_id, encoded, self._request.max_length):
            self._send(pdu)

    def _receive(self) -> tuple[int, memoryview]:
        """Type and body of the next PDU; the body is only valid until the next call."""
        self._idle(self._message is None and not self._command)
        kind, length = HEADER.unpack(self._read(HEADER.size))
        self._idle(False)
        if kind not in tuple(Pdu):
            raise ProtocolError(f"PDU of type {kind}", Abort.UNRECOGNIZED_PDU)
        if length > self._settings.max_pdu:
            raise ProtocolError(f"PDU of {length} bytes; the maximum is {self._settings.max_pdu}")
        return kind, self._read(length)

    def _read(self, count: int) -> memoryview:
        """The next `count` bytes; all of them must arrive within `idle-s`."""
        deadline, got = min(time.monotonic() + self._settings.idle_s, self._ends), 0
        while got < count:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            received = self._connection.recv_into(self._buffer[got:count])
            if received == 0:
                raise PeerGoneError
            got += received
            if got < count and time.monotonic() > deadline:
                raise TimeoutError
        return self._buffer[:count]

    def _send(self, pdu: bytes) -> None:
        self._connection.settimeout(self._settings.idle_s)
        self._connection.sendall(pdu)

    def _try_to_send(self, pdu: bytes) -> None:
        with suppress(OSError):  # the peer has closed the connection
            self._connection.settimeout(CLOSING_S)
            self._connection.sendall(pdu)

    def _wait_for_close(self) -> None:
        """Let the peer close the connection first (PS3.8 AR-4, AR-5), within a time limit."""
        with suppress(OSError):
            self._connection.settimeout(CLOSING_S)
            self._connection.recv(1)


def negotiate(proposals: Sequence[Proposal]) -> list[Answer]:
    """Accept storage and verification contexts that offer a transfer syntax the reader decodes."""
    return [_negotiate(each) for each in proposals]


def _negotiate(proposal: Proposal) -> Answer:
    offered = proposal.transfer_syntaxes
    if proposal.abstract_syntax not in STORAGE_CLASSES | OPERATIONS.keys():
        return Answer(proposal, NO_ABSTRACT_SYNTAX, offered[0])
    is_report = proposal.abstract_syntax == STORAGE_COMMITMENT
    for syntax in TRANSFER_SYNTAXES[: 2 if is_report else None]:
        if syntax in offered:
            return Answer(proposal, ACCEPTED, syntax)
    return Answer(proposal, NO_TRANSFER_SYNTAX, offered[0])


def status_of(receipt: Receipt) -> tuple[int, str]:
    """Status and error comment of the C-STORE response for a receipt (PS3.4 table B.2-1)."""
    if receipt.refusal is None:
        return SUCCESS, ""
    if receipt.refusal == "invalid-uid":
        return DOES_NOT_MATCH, receipt.message
    return OUT_OF_RESOURCES, receipt.message
